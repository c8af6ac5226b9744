"""What it saves that threads make batches ahead: images decoded from files, rounds with and without (data.decoders)."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

import ray_split as rs
from jobs.bench.timing import Row, ratio

CASES: dict[str, dict[str, Any]] = {
    "resnet18, splitfed_v1": {"model": {"name": "resnet18", "cuts": ["layer1", "avgpool"]}},
    "cnn, splitfed_v1": {"model": {"name": "cnn"}},
    "cnn, sequential": {"model": {"name": "cnn"}},
}
"""In the first most of a round is computed, in the others most is decoding."""

IMAGES, SIDE = 64, 500  # of each of two classes, JPEG; pixels


def _images(folder: Path) -> Path:
    draw = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for i in range(IMAGES):
            coarse = Image.fromarray(draw.integers(0, 256, (20, 20, 3), np.uint8))
            coarse.resize((SIDE, SIDE)).save(folder / name / f"{i}.jpg", quality=90)
    return folder


def _round_seconds(images: Path, case: str, decoders: int) -> float:
    """The median of a run's rounds but the first, on the Ray that this process is connected to."""
    with tempfile.TemporaryDirectory(prefix="rs_decoding") as folder:
        sections: dict[str, dict[str, Any]] = {
            **CASES[case],
            "data": {"name": "image_folder", "path": images, "kwargs": {"size": 64}, "decoders": decoders},
            "phones": {"count": 4},
            "schedule": {"name": case.rpartition(" ")[2]},
            "server": {"num_cpus": 1, "num_gpus": 0},
            "cluster": {"client_actors": 1, "cpus_per_client": 1, "share_cpus": "never"},
            "run": {"storage_path": folder, "name": "run", "rounds": 4, "eval_every": 99},
        }
        result = rs.fit(rs.Config(**sections), callbacks=[])
        rows = [json.loads(line) for line in (Path(result.path) / "metrics.jsonl").read_text().splitlines()]
    return median(float(row["round_seconds"]) for row in rows[1:])


def decoding_row(repeats: int, calls: int) -> Row:
    """A server and a client with a CPU each, JPEGs of 500 pixels: a round's seconds with 0, 1 and 2 threads."""
    found: Row = {}
    with tempfile.TemporaryDirectory(prefix="rs_images") as folder:
        images = _images(Path(folder) / "images")
        for case in CASES:
            times: dict[str, list[float]] = {"0": [], "1": [], "2": []}
            for _ in range(max(1, repeats // 6)):
                for decoders, seconds in times.items():
                    seconds.append(_round_seconds(images, case, int(decoders)))
            medians = {f"seconds_{decoders}": round(median(seconds), 3) for decoders, seconds in times.items()}
            found[case] = medians | {f"ratio_{n}": ratio(times, n, "0") for n in ("1", "2")}
    return found
