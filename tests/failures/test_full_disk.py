"""Places that can't be written to, a disk that fills, who may read what is written, and SIGTERM while a run starts."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import ray_split as rs
from actors import inprocess
from ray_split import api, cli, filesystem
from ray_split.driver import one_run
from ray_split.messages.state import Closed
from ray_split.results.personal_state import Personal
from tests.conftest import ROOT
from tests.failures.test_stopped import summary, terminate
from tests.runs.storage.test_storage_runs import config, model_bytes, resumed

SMALL = ["--cluster.backend", "ray", "--cluster.address", "127.0.0.1:1", "--phones.count", "2", "--run.name", "run"]


def refused(capsys: pytest.CaptureFixture[str], path: str | Path) -> str:
    """The one line, which comes before Ray is looked for."""
    assert cli.main(["train", *SMALL, "--run.storage_path", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A disk of its own, by mount's options."""
    made: list[Path] = []

    def mount(options: str) -> Path:
        folder = tmp_path / f"disk{len(made)}"
        folder.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True)
        if done.returncode:
            pytest.skip("only root can mount")
        made.append(folder)
        return folder

    yield mount
    for folder in made:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (
            "/proc/runs",
            "'/proc/runs' can't be read or written to: [Errno 2] No such file or directory: '/proc/runs'. Set ",
        ),
        (
            "/proc/self/status/runs",
            "'/proc/self/status/runs' can't be a folder, because /proc/self/status is a file. Set ",
        ),
        (f"/tmp/{'x' * 300}", f"has a part of 300 bytes, but each may have at most 255. Shorten '{'x' * 50}"),
    ],
    ids=["proc", "file", "long"],
)
def test_a_place_that_can_not_be_is_one_line_before_ray_starts(
    capsys: pytest.CaptureFixture[str], path: str, said: str
) -> None:
    assert refused(capsys, path).startswith(f"error: run.storage_path: {said}")


def test_a_disk_that_is_read_only_is_one_line_before_ray_starts(
    capsys: pytest.CaptureFixture[str], mounted: Callable[[str], Path]
) -> None:
    folder = mounted("ro")
    error = refused(capsys, folder)
    assert error.startswith(f"error: run.storage_path: '{folder}' can't be read or written to: ")
    assert f"[Errno 30] Read-only file system: '{folder / 'run'}'. Set run.storage_path to another folder." in error


def test_a_disk_that_is_full_is_one_line_before_ray_starts_and_nothing_is_left_there(
    capsys: pytest.CaptureFixture[str], mounted: Callable[[str], Path]
) -> None:
    folder = mounted("size=16k")
    assert f"No space left on device: '{folder / 'run'}" in refused(capsys, folder)
    assert list(folder.iterdir()) == []


@pytest.mark.thorough
def test_a_disk_that_fills_ends_the_run_in_order_and_it_goes_on_when_there_is_room(
    tmp_path: Path, mounted: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    whole = rs.fit(config(tmp_path, "whole", "splitfed_v3", rounds=40), callbacks=[])
    folder = mounted("size=300k")
    what = config(folder, "run", "splitfed_v3", rounds=40)
    with pytest.raises(rs.RunFailedError, match=rf"No space left on device: '{folder}/run/.*'$") as failed:
        rs.fit(what, callbacks=[])
    found = summary(folder / "run")
    assert (found["status"], found["error"]) == ("failed", str(failed.value))
    assert "Traceback" not in caplog.text
    assert not list((folder / "run").glob(".*"))
    subprocess.run(["mount", "-o", "remount,size=4m", str(folder)], check=True)
    assert model_bytes(resumed(what)) == model_bytes(whole)


@pytest.mark.thorough
def test_a_write_that_fails_at_any_time_is_named_and_the_run_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync, calls = filesystem.sync, [0]
    rs.fit(config(tmp_path, "whole", rounds=1), callbacks=[])

    def full(descriptor: int) -> None:
        calls[0] += 1
        if calls[0] == number:
            raise OSError(28, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr(filesystem, "sync", full)
    ends = []
    for number in range(1, 30):
        calls[0], name = 0, f"run{number}"
        try:
            rs.fit(config(tmp_path, name, rounds=1), callbacks=[])
            ends.append("finished")  # a summary of a run that goes on is written in the room that was kept
        except rs.SettingsError as error:
            assert f"No space left on device: '{tmp_path / name}/" in str(error)
            assert not (tmp_path / name).exists()
            ends.append("refused")
        except rs.RunFailedError as error:
            assert f"No space left on device: '{tmp_path / name}/" in str(error)
            there = (tmp_path / name / "summary.json").exists()
            assert not there or summary(tmp_path / name)["status"] == "failed"
            ends.append("failed")
        if calls[0] < number:
            break
    assert ends[:2] == ["refused", "refused"] and "failed" in ends and ends[-1] == "finished"


def test_rows_of_phones_that_there_is_no_room_for_are_an_error(mounted: Callable[[str], Path]) -> None:
    folder = mounted("size=200k")
    rows = Personal(folder / "personal", 100)
    with pytest.raises(OSError, match=r"No space left on device: '.*/personal/a~weights~x\.npy'$"):
        for phone in range(100):
            rows.write(Closed((phone,), {}, {"a": {"weights/x": np.ones((1, 1000), np.float32)}}, 0))
    assert rows.trained.sum() > 40
    assert (rows.own(0)["a"]["weights/x"] == 1).all()
    del rows


def modes(folder: Path, directories: bool) -> set[str]:
    paths = [folder, *folder.rglob("*")]
    return {oct(stat.S_IMODE(path.stat().st_mode)) for path in paths if path.is_dir() == directories}


@pytest.mark.parametrize(
    ("umask", "private", "files", "folders"),
    [(0o022, False, "0o644", "0o755"), (0o002, False, "0o664", "0o775"), (0o022, True, "0o600", "0o700")],
)
def test_what_is_written_is_open_as_the_umask_says_or_its_owners_alone(
    tmp_path: Path, umask: int, private: bool, files: str, folders: str
) -> None:
    before = os.umask(umask)
    try:
        result = rs.fit(config(tmp_path, "run", "splitfed_v3", rounds=1, private=private), callbacks=[])
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert modes(Path(result.path), directories=False) == {files}
    assert modes(Path(result.path), directories=True) == {folders}


def test_at_a_uri_nothing_is_said_to_be_private() -> None:
    with pytest.raises(rs.SettingsError, match=r"run\.private: must be false at a URI, .*, not true"):
        rs.fit(config("memory://store", "private", private=True), callbacks=[])


@pytest.mark.parametrize(
    ("module", "where"),
    [(api, "prepare"), (api, "claimed"), (inprocess, "resolve"), (one_run, "Records")],
    ids=["prepare", "claimed", "resolve", "Records"],
)
def test_a_run_that_is_stopped_while_it_starts_leaves_nothing(
    tmp_path: Path, module: ModuleType, where: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = getattr(module, where)

    def stopped(*arguments: object, **more: object) -> object:
        terminate()
        return original(*arguments, **more)

    monkeypatch.setattr(module, where, stopped)
    small = ["--cluster.backend", "inprocess", "--data.name", "synthetic", "--data.kwargs", "{samples: 60}"]
    before = signal.getsignal(signal.SIGTERM)
    assert cli.main(["train", *small, "--run.storage_path", str(tmp_path / "runs"), "--run.name", "x"]) == 143
    assert capsys.readouterr().err == "stopped before the run began\n"
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_process_that_is_stopped_while_it_imports_says_so(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'torch': os.kill(os.getpid(), signal.SIGTERM)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "from ray_split.cli import main\n"
        f"sys.exit(main(['train', '--run.storage_path', {str(tmp_path / 'runs')!r}]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (143, "stopped before the run began\n")
    assert list(tmp_path.iterdir()) == []
