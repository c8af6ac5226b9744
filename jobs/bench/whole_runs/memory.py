"""Memory that must not grow: over thousands of rounds, and when the object store is too small for what is under way."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from jobs.bench.timing import Row
from jobs.bench.whole_runs.runs import SYNTHETIC, typical, watched

ROUNDS = 2000
OURS = ("driver", "ray::Client", "ray::Server", "ray::FedServer")
SMALL, ROOMY = 80, 2000  # MB of object store; Ray takes no less than 75

STORE = """
import json, sys
import ray
import ray_split as rs
from ray._private.internal_api import memory_summary

megabytes, path = int(sys.argv[1]), sys.argv[2]
if megabytes:
    ray.init(address="local", num_cpus=4, object_store_memory=megabytes * 10**6, include_dashboard=False,
             log_to_driver=False)
settings = rs.Config(
    model={"name": "jobs.bench.wide_model:wide", "cuts": ["1", "2"]},
    data={"name": "synthetic", "kwargs": {"samples": 8000, "shape": [8, 8]}, "batch_size": 500, "val_fraction": 0.0},
    phones={"count": 16, "cohort": 1}, schedule={"name": "splitfed_v1"}, server={"num_gpus": 0},
    cluster={"backend": "ray" if megabytes else "inprocess", "client_actors": 2},
    run={"storage_path": path, "name": str(megabytes), "rounds": 2},
)
result = rs.fit(settings, callbacks=[])
told = memory_summary(ray.get_runtime_context().gcs_address, stats_only=True) if megabytes else ""
spilled = [line for line in told.splitlines() if "pilled" in line]
print(json.dumps({"seconds": result.metrics["seconds"], "spilled": spilled}))
"""


def full_store(megabytes: int, folder: str) -> dict[str, Any]:
    """A run on a Ray of its own with so much object store (0: in-process): its seconds, and what Ray says it spilled.

    Eight cohorts are under way with 8 MB a message: more than 80 MB.
    """
    command = [sys.executable, "-c", STORE, str(megabytes), folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def full_store_row(repeats: int, calls: int) -> Row:
    """An object store too small for what is under way, beside a roomy one, in turn."""
    times: dict[int, list[float]] = {SMALL: [], ROOMY: []}
    told: dict[int, list[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for i in range(3):
            for megabytes, seconds in times.items():
                found = full_store(megabytes, str(Path(folder) / str(i)))
                seconds.append(found["seconds"])
                told[megabytes] = found["spilled"]
    ratios = [small / roomy for small, roomy in zip(times[SMALL], times[ROOMY], strict=True)]
    return {
        "small_mb": SMALL, "roomy_mb": ROOMY, "spilled_small": told[SMALL], "spilled_roomy": told[ROOMY],
        "seconds_small": round(median(times[SMALL]), 2), "seconds_roomy": round(median(times[ROOMY]), 2),
        "slower": round(median(ratios), 2),
    }  # fmt: skip


def many_rounds(repeats: int = 1, calls: int = 1) -> Row:
    """2,000 rounds of four phones: memory of all processes around round 50 and at the end."""
    arguments = ["--phones.count", "4", "--phones.local_steps", "1", "--model.name", "mlp", "--data.kwargs"]
    arguments += ["{samples: 100, shape: [8, 8]}", "--checkpoint.every", "50", *SYNTHETIC]
    samples = watched([*arguments, "--cluster.client_actors", "2"], ROUNDS)
    moments = {f"after_{first}": typical(samples, range(first, first + 100)) for first in (50, 200, 1000, ROUNDS - 100)}
    early, late = moments["after_50"], list(moments.values())[-1]
    ours = [kind for kind in early if kind in OURS]
    return {
        "rounds": ROUNDS,
        "mb_by_process": {at: {kind: round(mb, 1) for kind, mb in found.items()} for at, found in moments.items()},
        "growth": round(late["all"] / early["all"] - 1, 4),
        "growth_of_ours": round(sum(late[kind] for kind in ours) / sum(early[kind] for kind in ours) - 1, 4),
    }


MEMORY_ROWS = {"run of 2000 rounds": many_rounds, "a full object store": full_store_row}
