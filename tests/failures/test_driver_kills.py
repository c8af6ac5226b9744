"""SIGKILL of the driver, and the same command with --run.resume: the bytes of the undisturbed run."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import ray_split as rs
from jobs.ray_head import environment
from tests.conftest import HANG_SECONDS, ROOT, RayHead
from tests.failures.test_kills import processes
from tests.runs.equality.test_same_bytes import model_bytes

pytestmark = pytest.mark.usefixtures("own_ray")


def resumed_after(path: Path, rounds: int, plan: list[str]) -> list[int]:
    """Run tests/killed_drivers.py; asserts that what it leaves is the same. Returns how the drivers ended."""
    command = [sys.executable, "-m", "tests.killed_drivers", str(path), str(rounds), json.dumps(plan)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=HANG_SECONDS)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["ends"] == [0, 0], done.stderr[-3000:]
    assert found["killed"] == found["whole"]
    statuses: list[int] = found["statuses"]
    return statuses


@pytest.mark.thorough
def test_a_driver_killed_three_times_is_resumed_to_the_same_bytes(tmp_path: Path) -> None:
    # In the first checkpoint's first file; in a later one's manifest; in a round.
    assert resumed_after(tmp_path, 12, ["write 1", "write 12", "call 70"]) == [-signal.SIGKILL] * 3


@pytest.mark.slow
def test_a_driver_killed_fifteen_times_is_resumed_to_the_same_bytes(tmp_path: Path) -> None:
    draw = random.Random(5)
    plan = [f"write {draw.randint(1, 8)}" for _ in range(8)] + [f"call {draw.randint(1, 80)}" for _ in range(7)]
    draw.shuffle(plan)  # none comes far enough to let a later one find a finished run
    assert resumed_after(tmp_path, 40, plan) == [-signal.SIGKILL] * 15


@pytest.mark.slow
def test_a_killed_drivers_actors_end_and_the_run_is_resumed(tmp_path: Path, ray_session: RayHead) -> None:
    flags: dict[str, Any] = {
        "model.name": "mlp", "schedule.name": "splitfed_v1", "phones.count": 4, "phones.local_steps": 6,
        "phones.cohort": 2, "cluster.client_actors": 1, "run.storage_path": tmp_path, "run.name": "killed",
        "run.rounds": 400,
    }  # fmt: skip
    command = [sys.executable, "-m", "jobs.train", "--run.resume"]
    command += [part for name, value in flags.items() for part in (f"--{name}", str(value))]
    rows = tmp_path / "killed" / "metrics.jsonl"
    for kill in range(5):  # the first while its actors are made, the others some rounds later
        before = count_lines(rows)
        process = subprocess.Popen(command, cwd=ROOT, env=environment(RAY_ADDRESS=ray_session.address))
        wait_until(lambda: len(processes("ALIVE", "PENDING_CREATION")) > 0, 300)
        wait_until(lambda: count_lines(rows) >= before + 2 * kill, 300)  # noqa: B023  at once
        assert process.poll() is None
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        wait_until(lambda: not processes("ALIVE", "PENDING_CREATION"), 120)
    settings = rs.Config(
        model={"name": "mlp"}, schedule={"name": "splitfed_v1"}, cluster={"backend": "inprocess"},
        phones={"count": 4, "local_steps": 6, "cohort": 2}, server={"num_gpus": 1},
        run={"storage_path": str(tmp_path), "name": "killed", "rounds": 400, "resume": "auto"},
    )  # fmt: skip
    resumed = rs.fit(settings, callbacks=[])
    whole = rs.fit(settings.with_values(run={"name": "whole", "resume": "never"}), callbacks=[])
    assert model_bytes(resumed.path) == model_bytes(whole.path)


def count_lines(file: Path) -> int:
    return len(file.read_bytes().splitlines()) if file.exists() else 0


def wait_until(there: Any, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.1)
