"""What a row of the check is, and the runs that rows compare."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ray_split as rs


class MissingError(Exception):
    """What a row needs and isn't here, in a few words: it is skipped."""


class Measured(NamedTuple):
    """A row's figure for people, and whether it reaches the goal."""

    figure: str
    reached: bool


class Row(NamedTuple):
    """A claim: what is measured, what it must reach, about how many seconds it takes, and how."""

    name: str
    goal: str
    seconds: float
    measure: Callable[[], Measured]


class Run(NamedTuple):
    """What rows need of a run that is over."""

    rows: list[dict[str, Any]]
    digest: str  # of the model's file

    @property
    def losses(self) -> list[float]:
        """Of its rounds."""
        return [row["train_loss"] for row in self.rows]

    @property
    def samples_per_second(self) -> float:
        """Of the fastest round but the first, in which much is done once."""
        return max(float(row["samples"]) / float(row["round_seconds"]) for row in self.rows[1:])


Sections = Mapping[str, Mapping[str, Any]]
"""Settings, by section."""


def trained(sections: Sections, backend: str = "inprocess", gpus: float = 1, client_gpus: float = 0) -> Run:
    """Train with these settings, in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="gpu_check_") as folder:
        given: dict[str, Any] = {name: dict(values) for name, values in sections.items()}
        given["run"] = {"storage_path": folder, "name": "run", "eval_every": 99, **given.get("run", {})}
        given["cluster"] = {"backend": backend, "client_gpus": client_gpus, **given.get("cluster", {})}
        given["server"] = {"num_gpus": gpus, **given.get("server", {})}
        result = rs.fit(rs.Config(**given), callbacks=[])
        lines = (Path(result.path) / "metrics.jsonl").read_text().splitlines()
        content = (Path(result.path) / "model.safetensors").read_bytes()
    return Run([json.loads(line) for line in lines], hashlib.sha256(content).hexdigest())
