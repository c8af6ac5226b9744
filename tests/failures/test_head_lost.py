"""The head node is lost, with all that is on it: the run ends there, and goes on from storage on another head."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import ray_split as rs
from jobs.ray_head import environment, head
from tests.conftest import HANG_SECONDS, ROOT
from tests.runs.equality.test_same_bytes import model_bytes

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_ray")]


def kill_all(process: psutil.Process) -> None:
    """As when a machine loses power: no process of the head is told."""
    for each in [process, *process.children(recursive=True)]:
        if each.is_running():
            each.kill()


def head_process() -> psutil.Process:
    """`ray start`, which this process began."""
    return next(p for p in psutil.Process().children() if "start" in p.cmdline() and "--head" in p.cmdline())


def train(address: str, path: Path, rounds: int) -> subprocess.Popen[str]:
    flags = ["--config", "jobs/configs/digits.yaml", "--run.storage_path", str(path), "--run.name", "r", "--run.resume"]
    flags += ["--run.rounds", str(rounds), "--cluster.client_actors", "1", "--cluster.address", address]
    command = [sys.executable, "-m", "jobs.train", *flags]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def checkpoints(path: Path) -> int:
    return len(list(path.glob("r/checkpoints/round_*")))


def test_a_run_whose_head_is_lost_goes_on_from_storage_on_another(tmp_path: Path) -> None:
    with head(num_cpus=2) as (address, _):
        process = train(address, tmp_path, 400)
        deadline = time.monotonic() + 600
        while checkpoints(tmp_path) < 2:
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.1)
        kill_all(head_process())
        lost = time.monotonic()
        try:
            output = process.communicate(timeout=HANG_SECONDS)[0]
        finally:
            process.kill()
    print(
        f"the driver ended with {process.returncode}, {time.monotonic() - lost:.0f} s after its head:\n{output[-1500:]}"
    )
    assert process.returncode == 1 and "Failed to connect to GCS" in output
    assert json.loads((tmp_path / "r" / "summary.json").read_text())["status"] == "running"  # it could not say more
    done = int(max((tmp_path / "r" / "checkpoints").glob("round_*")).name.rpartition("_")[2])
    with head(num_cpus=2) as (address, _):
        process = train(address, tmp_path, done + 1)
        output = process.communicate(timeout=HANG_SECONDS)[0]
        assert process.returncode == 0, output[-3000:]
    assert f"from round {done + 1}\n" in output
    assert json.loads((tmp_path / "r" / "summary.json").read_text())["status"] == "finished"
    whole = rs.Config.from_yaml(tmp_path / "r" / "config.yaml").with_values(
        run={"name": "whole"}, cluster={"backend": "inprocess"}
    )
    assert model_bytes(rs.fit(whole, callbacks=[]).path) == model_bytes(tmp_path / "r")
