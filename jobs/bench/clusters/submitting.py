"""What a job costs before its first round, and five runs as a sweep against one after the other."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import ray

from jobs.bench.scratch_folder import scratch_folder
from jobs.bench.timing import Row
from jobs.ray_head import environment, head, ray_command

SEEDS = "0,1,2,3,4"
SETTINGS = ["--schedule.name", "splitfed_v1", "--phones.count", "20", "--run.rounds", "5", "--server.num_gpus", "0"]
CLUSTER = ["--cluster.client_actors", "1"]


def submit_row(repeats: int, calls: int) -> Row:
    """Seconds from `ray job submit` on a running, otherwise idle head to the end of the first round."""
    with head(num_cpus=4, num_gpus=0) as (_, dashboard):
        found = [_first_round(dashboard) for _ in range(min(repeats, 3))]
    return {"seconds_to_first_round": round(median(found), 1), "all": [round(each, 1) for each in found]}


def _first_round(dashboard: str) -> float:
    out = Path(scratch_folder())
    run = ["--run.storage_path", str(out), "--run.name", "first", "--run.rounds", "1", *CLUSTER]
    entry = ["python", "-m", "jobs.train", "--config", "jobs/configs/digits.yaml", *run]
    command = ray_command(sys.executable, "job", "submit", "--working-dir", ".", "--", *entry)
    start, metrics = time.monotonic(), out / "first" / "metrics.jsonl"
    job = subprocess.Popen(command, env=environment(RAY_ADDRESS=dashboard), stdout=subprocess.DEVNULL)
    while not (metrics.exists() and metrics.read_text()):
        time.sleep(0.05)
        if job.poll() not in (None, 0):
            raise RuntimeError(f"the job ended with {job.returncode}")
    seconds = time.monotonic() - start
    job.wait()
    return seconds


def _timed(work: Callable[[], Any]) -> dict[str, float]:
    """Wall seconds, and the share of the machine's processors that was idle."""
    before, start = psutil.cpu_times(), time.monotonic()
    work()
    after = psutil.cpu_times()
    idle, whole = after.idle - before.idle, sum(after) - sum(before)
    return {"seconds": round(time.monotonic() - start, 1), "idle_share": round(idle / whole, 3)}


def _command(module: str, *arguments: str) -> None:
    address = ray.get_runtime_context().gcs_address
    command = [sys.executable, "-m", module, *SETTINGS, *CLUSTER, *arguments]
    subprocess.run(command, env=environment(RAY_ADDRESS=address), check=True, stdout=subprocess.DEVNULL)


def sweep_row(repeats: int, calls: int) -> Row:
    """Five seeds as a sweep, two runs at a time, and as five commands one after the other."""

    def serial() -> None:
        for seed in SEEDS.split(","):
            out = scratch_folder()
            _command("jobs.train", "--run.seed", seed, "--run.storage_path", out)

    def sweep(concurrent: int) -> Callable[[], None]:
        out = Path(scratch_folder()) / "sweep"
        return lambda: _command("jobs.sweep", "--seeds", SEEDS, "--concurrent", str(concurrent), "--out", str(out))

    return {"serial": _timed(serial), **{f"sweep_{n}_at_a_time": _timed(sweep(n)) for n in (2,)}}


SUBMITTING_ROWS = {"submit to first round": submit_row, "sweep of 5 seeds": sweep_row}
