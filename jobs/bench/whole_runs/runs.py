"""Whole runs as people start them, watched from outside: time to the first round, memory of all processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import psutil
import ray

from jobs.bench.scratch_folder import scratch_folder
from jobs.bench.timing import Row

SAMPLE_SECONDS = 0.2
SYNTHETIC = [
    "--data.name", "synthetic", "--schedule.name", "splitfed_v1", "--server.num_gpus", "0",
    "--cluster.client_actors", "1", "--run.eval_every", "1000",
]  # fmt: skip


class Sample(NamedTuple):
    """What was seen at a moment: seconds since the start, rounds done, bytes (PSS) of each process by its kind."""

    seconds: float
    rounds: int
    memory: dict[str, int]

    @property
    def total(self) -> int:
        """Bytes of all processes."""
        return sum(self.memory.values())


def memory() -> dict[str, int]:
    """Proportional set size of the processes that descend from this one, by kind: Ray's too, not this one's own."""
    found: dict[str, int] = {}
    for process in psutil.Process().children(recursive=True):
        try:
            kind, size = _kind(process), process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):  # it ended meanwhile
            continue
        found[kind] = found.get(kind, 0) + size
    return found


def _kind(process: psutil.Process) -> str:
    line = process.cmdline()
    if line and line[0].startswith("ray::"):
        return line[0].partition(".")[0]
    return "driver" if "jobs.train" in line else "ray itself"


def watched(arguments: list[str], rounds: int) -> list[Sample]:
    """Run jobs.train on the Ray that this process is connected to, to its end; raises RuntimeError if it fails."""
    folder = Path(scratch_folder())
    where = ["--run.storage_path", str(folder), "--run.name", "run", "--run.rounds", str(rounds)]
    env = os.environ | {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    command = [sys.executable, "-m", "jobs.train", *arguments, *where]
    samples, start = [], time.monotonic()
    with (folder / "log").open("w") as log, subprocess.Popen(command, env=env, stdout=log, stderr=log) as process:
        while process.poll() is None:
            samples.append(Sample(time.monotonic() - start, _done(folder / "run/metrics.jsonl"), memory()))
            time.sleep(SAMPLE_SECONDS)
    if process.returncode:
        raise RuntimeError((folder / "log").read_text())
    return samples


def _done(metrics: Path) -> int:
    return len(metrics.read_text().splitlines()) if metrics.exists() else 0


def figures(samples: list[Sample]) -> dict[str, Any]:
    """Time and memory of a run."""
    peak = max(samples, key=lambda sample: sample.total)
    return {
        "seconds_to_end_of_round_1": round(next(s.seconds for s in samples if s.rounds), 1),
        "seconds": round(samples[-1].seconds, 1),
        "peak_mb": round(peak.total / 1e6),
        "peak_mb_by_process": {kind: round(size / 1e6) for kind, size in sorted(peak.memory.items())},
    }


def typical(samples: list[Sample], rounds: range) -> dict[str, float]:
    """The median of each kind of process while these rounds were under way, in MB."""
    chosen = [sample for sample in samples if sample.rounds in rounds]
    kinds = {kind for sample in chosen for kind in sample.memory}
    each = {kind: median(sample.memory.get(kind, 0) for sample in chosen) / 1e6 for kind in sorted(kinds)}
    return {"all": median(sample.total for sample in chosen) / 1e6, **each}


def ten_thousand(repeats: int, calls: int) -> Row:
    """10,000 phones, 1,000 a round, the digits model: memory over 20 rounds."""
    samples = watched(["--phones.count", "10000", "--phones.per_round", "1000", *SYNTHETIC], 20)
    early, late = typical(samples, range(5, 9)), typical(samples, range(16, 20))
    growth = {kind: round(late[kind] - mb, 1) for kind, mb in early.items()}
    return figures(samples) | {
        "mb_after_5": round(early["all"]),
        "mb_after_20": round(late["all"]),
        "growth": round(late["all"] / early["all"] - 1, 4),
        "growth_mb_by_process": growth,
    }


def hundred_thousand(repeats: int, calls: int) -> Row:
    """100,000 phones beside 1,000: in both 1,000 a round with one sample each, of the same data."""
    data = ["--data.kwargs", "{samples: 120000}", "--model.name", "tiny_cnn"]
    data += ["--phones.local_steps", "1", "--data.batch_size", "1"]
    arguments = ["--phones.per_round", "1000", *data, *SYNTHETIC]
    few, many = (watched(["--phones.count", str(count), *arguments], 6) for count in (1000, 100_000))
    before, after = (typical(samples, range(2, 6)) for samples in (few, many))
    extra = {kind: round(mb - before.get(kind, 0.0), 1) for kind, mb in after.items()}
    # The indices are the same in both; 100,000 offsets of 8 bytes are not.
    return {"1000": figures(few), "100000": figures(many), "extra_mb_by_process": extra, "offsets_mb": 0.8}


def thousand(repeats: int, calls: int) -> Row:
    """1,000 phones with the tiny model: memory of all processes, and time to the end of the first round."""
    arguments = ["--phones.count", "1000", "--model.name", "tiny_cnn", "--data.kwargs", "{samples: 2223}"]
    runs = [watched([*arguments, *SYNTHETIC], 5) for _ in range(3)]
    first = [figures(run)["seconds_to_end_of_round_1"] for run in runs]
    return figures(runs[-1]) | {"seconds_to_end_of_round_1": median(first), "all": first}


RUN_ROWS = {
    "run of 1000 phones": thousand,
    "run of 10000 phones": ten_thousand,
    "run of 100000 phones": hundred_thousand,
}
