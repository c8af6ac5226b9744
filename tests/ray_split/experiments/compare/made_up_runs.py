"""Folders of runs that nobody ran, for tables whose numbers are worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ray_split.experiments.compare.results import Line, Run, lines


def write_run(
    out: Path, schedule: str, seed: int, scores: list[float | None], status: str = "finished", **summary: Any
) -> None:
    """A run of 4 phones, a second a round longer than the one before, 100 + 200 + 1000 bytes a round."""
    folder = out / f"{schedule}_seed{seed}"
    folder.mkdir(parents=True)
    sizes = {"bytes_up": 100, "bytes_down": 200, "bytes_weights": 1000} | summary.pop("sizes", {})
    rows = [
        {"round": i, "val_accuracy": score, "phones": 4, "round_seconds": i + 1.0, **sizes}
        for i, score in enumerate(scores)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    figures = {"test_accuracy": 0.1, "test_accuracy_at_best_val": 0.8, "phone_rounds_per_second": 10.0}
    (folder / "summary.json").write_text(json.dumps({"status": status, "error": None, **figures, **summary}))


def by_schedule(runs: list[Run], target: float | None = 0.9) -> dict[str, Line]:
    return {line.schedule: line for line in lines(runs, target)}
