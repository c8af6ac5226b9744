from __future__ import annotations

from pathlib import Path

import pytest

from ray_split.experiments.compare.results import Run, read
from tests.ray_split.experiments.compare.made_up_runs import write_run


@pytest.fixture
def made_up(tmp_path: Path) -> list[Run]:
    """unsplit reaches 0.9 twice, sequential once of two, splitfed_v3 never and once failed, parallel failed twice."""
    write_run(tmp_path, "unsplit", 0, [0.5, 0.9, 0.96], test_accuracy_at_best_val=0.8, phone_rounds_per_second=10.0)
    write_run(tmp_path, "unsplit", 1, [0.5, 0.8, 0.94], test_accuracy_at_best_val=0.9, phone_rounds_per_second=20.0)
    write_run(tmp_path, "sequential", 0, [0.3, None, 0.91])
    write_run(tmp_path, "sequential", 1, [0.3, None, 0.89], test_accuracy_at_best_val=None)
    write_run(tmp_path, "splitfed_v3", 0, [0.2, 0.2, 0.3])
    write_run(tmp_path, "splitfed_v3", 1, [0.95, 0.95], status="failed", error="Boom_1: 5 % & more\nsecond line")
    write_run(tmp_path, "parallel", 0, [0.95], status="running")
    return read(tmp_path, ["unsplit", "sequential", "splitfed_v3", "parallel"], [0, 1])
