"""A comparison that is run as a job is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.ray_head import environment
from tests.conftest import HANG_SECONDS, ROOT, RayHead

SMALL = ["--model.name", "mlp", "--phones.count", "4", "--phones.local_steps", "2"]


@pytest.mark.slow
def test_all_runs_share_one_ray(tmp_path: Path, ray_session: RayHead) -> None:
    from ray.util.state import list_actors, list_jobs

    there = {"address": ray_session.dashboard, "limit": 1000}

    def servers() -> dict[str, str]:
        return {actor.actor_id: actor.job_id for actor in list_actors(**there) if actor.class_name == "Server"}

    before, jobs = servers(), len(list_jobs(**there))
    flags = ["--schedules", "unsplit,splitfed_v1", "--seeds", "0", "--out", str(tmp_path / "out")]
    command = [sys.executable, "-m", "jobs.compare", *SMALL, *flags, "--run.rounds", "1", "--server.num_gpus", "0"]
    env = environment(RAY_ADDRESS=ray_session.address)
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=HANG_SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    new = {actor: job for actor, job in servers().items() if actor not in before}
    assert (len(new), len(set(new.values())), len(list_jobs(**there)) - jobs) == (2, 1, 1)
    assert done.stdout.splitlines()[1].startswith("2/2 splitfed_v1_seed0: test accuracy ")
    assert {
        json.loads((path / "summary.json").read_text())["status"] for path in (tmp_path / "out").glob("*_seed0")
    } == {"finished"}
