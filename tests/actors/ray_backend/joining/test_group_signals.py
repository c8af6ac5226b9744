"""A signal to all of a run's process group, as `timeout`, a shell or a service manager sends it: it ends in order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from threading import Thread

import psutil
import pytest

from actors.ray_backend.joining.own_sessions import own_sessions
from ray_split import cli
from tests.actors.ray_backend.joining.test_connection import Run, ended, runs, wait
from tests.conftest import HANG_SECONDS
from tests.tiers import slow, thorough

__all__ = ["runs"]  # a fixture

LAST = "stopped; --run.resume goes on from the last checkpoint"


def nothing(*_: object) -> None:
    pass


def session_of_a_child() -> int:
    child = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE, preexec_fn=nothing)
    try:
        return os.getsid(child.pid)
    finally:
        child.communicate(b"\n")


def test_what_a_thread_starts_there_has_a_session_of_its_own_and_nothing_else_has() -> None:
    found: list[int] = []
    with own_sessions():
        assert session_of_a_child() != os.getsid(0)
        beside = Thread(target=lambda: found.append(session_of_a_child()))
        beside.start()
        beside.join()
    assert [*found, session_of_a_child()] == [os.getsid(0)] * 2


def started(home: Path, runs: list[Run]) -> tuple[Run, list[psutil.Process]]:
    """A run with a Ray of its own that has completed rounds, and all other processes of it."""
    runs.append(run := Run(home, "run"))
    run.reach(2)
    others = run.processes()
    assert any("gcs_server" in " ".join(process.cmdline()) for process in others)
    return run, others


def check_ended(run: Run, others: list[psutil.Process], number: int) -> None:
    assert run.process.wait(HANG_SECONDS) == 128 + number, run.told.read_text()
    assert run.told.read_text().splitlines()[-2:] == [LAST, f"results: {run.folder}"]
    wait(lambda: all(map(ended, others)))


@pytest.mark.parametrize("number", [*thorough(signal.SIGTERM), *slow(signal.SIGINT)], ids=lambda number: number.name)
def test_one_to_the_group_ends_a_run_as_one_to_its_driver(
    tmp_path: Path, runs: list[Run], number: signal.Signals
) -> None:
    run, others = started(tmp_path, runs)
    os.killpg(run.process.pid, number)
    check_ended(run, others, number)
    done = run.rounds()
    assert (run.folder / "checkpoints" / f"round_{done:06d}").exists()
    flags = ["--config", str(run.folder / "config.yaml"), "--cluster.backend", "inprocess", "--run.resume"]
    assert cli.main(["train", *flags, "--run.rounds", str(done + 1)]) == 0
    assert run.rounds() == done + 1


@pytest.mark.slow
def test_one_to_each_of_its_processes_ends_a_run_that_says_so_though_its_ray_is_gone(
    tmp_path: Path, runs: list[Run]
) -> None:
    run, others = started(tmp_path, runs)
    for process in [psutil.Process(run.process.pid), *others]:
        process.send_signal(signal.SIGTERM)
    check_ended(run, others, signal.SIGTERM)
    assert "Failed to connect to GCS" not in run.told.read_text()
    assert list((run.folder / "checkpoints").glob("round_*"))
