"""A folder has one owner: of those that come at once, after one that died, and beside one that lives elsewhere."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import pytest

from ray_split import errors, filesystem
from ray_split.filesystem import Place, place
from ray_split.results import folder_lock, owner
from ray_split.results.folder_lock import HeldError, Hold
from tests.conftest import ROOT
from tests.runs.storage.test_storage_runs import bucket, endpoint  # noqa: F401  fixtures

ELSEWHERE = "another boot pid:[1]"


@pytest.fixture(params=["here", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return place(str(tmp_path / "run") if request.param == "here" else f"memory://{tmp_path.name}/run")


def names(folder: Place) -> list[str]:
    return [path.name for path in filesystem.children(folder)]


def left_by(folder: Place, who: owner.Owner) -> None:
    """As if it had taken the folder, and not given it back."""
    filesystem.make_folder(folder)
    name = folder_lock.FILE if isinstance(folder, Path) else f"{folder_lock.FILE}.{who.token}"
    filesystem.write(folder / name, who.content)


def taken_at_once(folder: Place, count: int) -> list[Hold | HeldError]:
    start = Barrier(count)

    def take(_: int) -> Hold | HeldError:
        start.wait()
        try:
            return folder_lock.take(folder)
        except HeldError as error:
            return error

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(take, range(count)))


def test_of_many_that_come_at_once_one_has_it_and_the_others_are_told_who(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    for _ in range(5):
        found = taken_at_once(folder, 8)
        (hold,) = [each for each in found if isinstance(each, Hold)]
        told = [each for each in found if isinstance(each, HeldError)]
        assert len(told) == 7 and all(each.owner.pid == os.getpid() for each in told)
        hold.release()
    assert names(folder) == []


def test_of_many_that_find_a_dead_owner_at_once_one_follows_it(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    for _ in range(5):
        left_by(folder, replace(owner.this_process(), pid=2**22 + 1, started="1"))
        found = taken_at_once(folder, 8)
        (hold,) = [each for each in found if isinstance(each, Hold)]
        assert [name for name in names(folder) if not name.startswith(".partial")] == [hold._file.name]
        hold.release()
    assert names(folder) == []


def test_on_s3_of_many_that_come_at_once_one_has_it(bucket: str) -> None:  # noqa: F811
    folder = place(f"s3://bucket/held{bucket}")
    for dead in (False, True):
        if dead:
            left_by(folder, replace(owner.this_process(), pid=2**22 + 1, started="1"))
        found = taken_at_once(folder, 6)
        (hold,) = [each for each in found if isinstance(each, Hold)]
        hold.release()
    assert names(folder) == []


def test_who_has_it_is_said_and_how_to_go_on_if_that_is_not_so(folder: Place) -> None:
    hold = folder_lock.take(folder)
    with pytest.raises(HeldError) as refused:
        folder_lock.take(folder)
    text = str(refused.value)
    assert text.startswith(f"process {os.getpid()} on {hold.owner.host}, since {hold.owner.since} writes there (")
    assert text.endswith(f"remove {hold._file})")
    hold.release()
    folder_lock.take(folder).release()


HOLDS = """
import sys, time
from ray_split import filesystem
from ray_split.results import folder_lock
folder_lock.take(filesystem.place(sys.argv[1]))
print(1)
"""


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has the folder."""
    command = [sys.executable, "-c", HOLDS + "sys.stdout.flush(); time.sleep(600)", str(tmp_path / "run")]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline()
    yield process
    process.kill()
    process.wait()


def test_a_process_that_was_killed_is_followed_at_once_also_if_nobody_has_waited_for_it(
    tmp_path: Path, other: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_lock, "_renews", lambda _: pytest.fail("it is known whether it lives"))
    with pytest.raises(HeldError, match=f"process {other.pid} on"):
        folder_lock.take(tmp_path / "run")
    other.send_signal(signal.SIGSTOP)  # it will go on some time
    with pytest.raises(HeldError):
        folder_lock.take(tmp_path / "run")
    other.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
    hold = folder_lock.take(tmp_path / "run")
    assert names(tmp_path / "run") == [folder_lock.FILE]
    hold.release()


def test_a_later_process_of_the_same_number_is_another(folder: Place) -> None:
    left_by(folder, replace(owner.this_process(), pid=os.getppid(), started="1"))
    folder_lock.take(folder).release()
    assert names(folder) == []


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_lock, "STALE_SECONDS", 1.0)
    monkeypatch.setattr(folder_lock, "POLL_SECONDS", 0.01)


def test_one_elsewhere_that_is_silent_is_dead_and_waited_for_no_longer_than_that(
    folder: Place, soon: None, caplog: pytest.LogCaptureFixture
) -> None:
    left_by(folder, replace(owner.this_process(), machine=ELSEWHERE, host="far"))
    folder_lock.take(folder).release()
    (line,) = [record.getMessage() for record in caplog.records]
    assert " on far, since " in line and "to see whether it lives" in line
    assert names(folder) == []


def test_one_elsewhere_that_was_silent_for_long_is_dead_at_once(tmp_path: Path) -> None:
    left_by(tmp_path, replace(owner.this_process(), machine=ELSEWHERE))
    os.utime(tmp_path / folder_lock.FILE, (1, 1))
    folder_lock.take(tmp_path).release()


def test_one_elsewhere_that_renews_its_file_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    monkeypatch.setattr(folder_lock, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(folder_lock, "BEAT_SECONDS", 0.05)
    hold = folder_lock.take(folder)
    for path in filesystem.children(folder):
        if path.name.startswith(folder_lock.FILE):
            hold.settle(replace(hold.owner, machine=ELSEWHERE, host="far"), path)
    with pytest.raises(HeldError, match="on far"):
        folder_lock.look(folder)
    hold.release()
    assert names(folder) == []


def test_a_file_that_was_cut_off_is_an_owner_that_is_not_named(tmp_path: Path, soon: None) -> None:
    for content in (b"", b"{", b"[1]", json.dumps({"pid": "x"}).encode(), b"\xff"):
        filesystem.write(tmp_path / folder_lock.FILE, content)
        hold = folder_lock.take(tmp_path)
        assert owner.read((tmp_path / folder_lock.FILE).read_bytes()) == hold.owner
        hold.release()


def test_who_lost_the_folder_is_told_and_leaves_the_next_ones_file(
    folder: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold = folder_lock.take(folder)
    for path in filesystem.children(folder):
        filesystem.remove(path)  # as the refusal says
    other = folder_lock.take(folder)
    hold.check()  # it has renewed its file just now, as far as it knows
    monkeypatch.setattr(folder_lock, "STALE_SECONDS", 0.0)
    with pytest.raises(errors.RunFailedError, match="was taken by another run"):
        hold.check()
    hold.release()
    other.check()
    other.release()


def test_a_folder_that_was_made_for_it_and_not_written_to_goes(tmp_path: Path) -> None:
    folder_lock.take(tmp_path / "a" / "b").release()
    assert names(tmp_path) == []
    hold = folder_lock.take(tmp_path / "a" / "b")
    (tmp_path / "a" / "b" / "x").write_text("")
    hold.release()
    assert names(tmp_path / "a" / "b") == ["x"]


def test_without_links_a_file_is_created_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    assert filesystem.create(tmp_path / "x", b"one")
    assert not filesystem.create(tmp_path / "x", b"two")
    assert (tmp_path / "x").read_bytes() == b"one"
    found = taken_at_once(tmp_path / "run", 8)
    assert sum(isinstance(each, Hold) for each in found) == 1
