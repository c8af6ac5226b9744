"""Which Ray a run is on: the one that is named, the one that `ray start` began, or one that is started for it alone."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from actors.ray_backend.joining import auth, connection, head_keeper
from actors.ray_backend.joining.head_keeper import Keeper
from jobs.ray_head import environment
from tests.conftest import HANG_SECONDS, ROOT, RayHead, hear_hangup

NOBODY = "http://127.0.0.1:9"  # where nothing listens
PROXIES = {name: NOBODY for each in ("http_proxy", "https_proxy", "all_proxy") for name in (each, each.upper())}
PRIVATE = "on a Ray started for this run, which ends with it"


class Run:
    """`ray-split train`, as in a home where there is no token yet, behind a proxy that answers nobody."""

    def __init__(self, home: Path, name: str, **variables: str) -> None:
        flags = ["--model.name", "mlp", "--phones.count", "2", "--cluster.client_actors", "1", "--run.name", name]
        flags += ["--run.storage_path", str(home), "--run.rounds", "1000000"]
        self.folder, self.told = home / name, home / f"{name}.txt"
        env = environment(HOME=str(home), **{**PROXIES, **variables})
        for variable in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
            env.pop(variable, None) if variable not in variables else None
        with self.told.open("w") as out:
            command = [sys.executable, "-m", "ray_split.cli", "train", *flags]
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=env, stdout=out, stderr=out, start_new_session=True, preexec_fn=hear_hangup
            )

    def rounds(self) -> int:
        metrics = self.folder / "metrics.jsonl"
        return len(metrics.read_text().splitlines()) if metrics.exists() else 0

    def reach(self, rounds: int) -> None:
        wait(lambda: self.rounds() >= rounds or self.process.poll() is not None)
        assert self.process.poll() is None, self.told.read_text()

    def processes(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)


def wait(there: object) -> None:
    deadline = time.monotonic() + 300
    while not there():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.1)


def ended(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


@pytest.fixture
def runs(own_ray: None) -> Iterator[list[Run]]:
    started: list[Run] = []
    yield started
    for run in started:
        if run.process.poll() is None:
            run.process.kill()


@pytest.mark.thorough
def test_each_run_has_a_ray_of_its_own_that_ends_with_it_however_it_ends(tmp_path: Path, runs: list[Run]) -> None:
    runs.append(first := Run(tmp_path, "first"))
    first.reach(1)
    assert (tmp_path / ".ray" / "auth_token").stat().st_mode & 0o777 == 0o600
    first.process.send_signal(signal.SIGSTOP)  # the driver alone: two runs at once are much for a small machine
    runs.append(second := Run(tmp_path, "second"))
    second.reach(1)
    for run in (first, second):
        assert PRIVATE in run.told.read_text()
    left = first.processes()
    titles = [" ".join(process.cmdline()) for process in left]
    assert any("gcs_server" in title for title in titles) and any("ray::Server" in title for title in titles)
    folder = Path(next(title for title in titles if "head_keeper.py" in title).split()[-1])
    assert folder.stat().st_mode & 0o777 == 0o700
    # One that doesn't hear of anything: it must not be left either.
    next(p for p in left if "ray::Client" in " ".join(p.cmdline())).send_signal(signal.SIGSTOP)
    first.process.kill()
    first.process.wait()
    wait(lambda: all(map(ended, left)) and not folder.exists())
    second.reach(second.rounds() + 2)
    left = second.processes()
    os.killpg(second.process.pid, signal.SIGHUP)  # as when its terminal is closed
    assert second.process.wait(HANG_SECONDS) == 128 + signal.SIGHUP, second.told.read_text()
    assert "stopped; --run.resume goes on from the last checkpoint" in second.told.read_text()
    assert (second.folder / "checkpoints" / f"round_{second.rounds():06d}").exists()
    wait(lambda: all(map(ended, left)))


@pytest.mark.thorough
def test_the_ray_that_ray_start_began_is_joined_and_said(tmp_path: Path, ray_head: RayHead, runs: list[Run]) -> None:
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text(ray_head.address)  # as `ray start` does
    token = {"RAY_AUTH_TOKEN": auth.token_file().read_text().strip()} if auth.token_file().exists() else {}
    runs.append(run := Run(tmp_path, "joined", RAY_TMPDIR=str(tmp_path), RAY_AUTH_MODE="token", **token))
    run.reach(1)
    port = ray_head.address.rpartition(":")[2]  # Ray names this machine in its own way
    assert re.search(rf"^on Ray at \S+:{port}, which `ray start` began here$", run.told.read_text(), re.MULTILINE)
    assert not any("gcs_server" in " ".join(process.cmdline()) for process in run.processes())
    run.process.terminate()
    assert run.process.wait(HANG_SECONDS) == 128 + signal.SIGTERM


def test_what_ray_start_wrote_counts_while_that_ray_answers_and_is_this_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert connection.began() is None
    file = tmp_path / "ray" / "ray_current_cluster"
    file.parent.mkdir()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        file.write_text(f"127.0.0.1:{unused.getsockname()[1]}\n")
        assert connection.began() is None  # nobody listens
    file.write_text("127.0.0.1:6379\n")
    monkeypatch.setattr(connection.reachable, "complaint", lambda address: None)
    assert connection.began() == "127.0.0.1:6379"
    monkeypatch.setattr(connection.os, "getuid", lambda: 4711)
    assert connection.began() == ("127.0.0.1:6379" if file.stat().st_uid == 0 else None)


def test_a_head_is_lost_once_nobody_listens_there_any_more() -> None:
    with socket.socket() as head:
        head.bind(("127.0.0.1", 0))
        head.listen()  # and answers nobody: it may be busy
        address = f"127.0.0.1:{head.getsockname()[1]}"
        found = [connection.Connection("a Ray", each) for each in (address, f"ray://{address}")]
        assert [each.is_lost() for each in found] == [False, False]
    assert [each.is_lost() for each in found] == [True, True]
    assert [connection.Connection("a Ray", each).is_lost() for each in ("somewhere", None)] == [False, False]


def test_a_token_is_made_once_for_its_owner_alone_and_none_where_tokens_are_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    auth.make_token()
    assert not auth.token_file().exists()
    monkeypatch.delenv("RAY_AUTH_MODE")
    before = os.umask(0)
    try:
        auth.make_token()
    finally:
        os.umask(before)
    made = auth.token_file().read_text()
    assert len(made) == 64 and auth.token_file().stat().st_mode & 0o777 == 0o600
    assert auth.token_file().parent.stat().st_mode & 0o777 == 0o700
    auth.make_token()
    assert auth.token_file().read_text() == made
    assert [path.name for path in auth.token_file().parent.iterdir()] == ["auth_token"]


def test_rays_sockets_have_short_paths_wherever_temporary_files_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 60)
    long.mkdir()
    monkeypatch.setattr(head_keeper.tempfile, "tempdir", str(long))
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    kept = Keeper()
    try:
        assert len(f"{kept.folder}/session_2026-12-31_23-59-59_999999_1234567/sockets/plasma_store.10") <= 103
        assert kept.folder.parent.stat().st_mode & 0o777 == 0o700
    finally:
        kept.end()
    assert not kept.folder.parent.exists()


def test_a_process_that_only_reads_there_is_not_ended() -> None:
    kept = Keeper()
    kept.log.write_text("a line")
    reads = subprocess.Popen(["tail", "-f", str(kept.log)], stdout=subprocess.DEVNULL)
    with kept.log.open("a") as out:
        writes = subprocess.Popen(["sleep", "1000"], stdout=out)
    try:
        kept.end()
        assert writes.wait() == -signal.SIGKILL
        assert reads.poll() is None
    finally:
        reads.kill()
        writes.kill()
        reads.wait()
