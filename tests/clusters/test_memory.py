"""Memory: an object store that is full slows a run down and no more; thousands of rounds hold what fifty do."""

from __future__ import annotations

from pathlib import Path

import pytest
import ray

from jobs.bench.whole_runs.memory import SMALL, full_store, many_rounds


@pytest.mark.slow
@pytest.mark.usefixtures("own_ray")
def test_a_full_object_store_spills_and_the_bytes_are_the_same(tmp_path: Path) -> None:
    found = full_store(SMALL, str(tmp_path))
    assert any("Spilled" in line for line in found["spilled"])
    full_store(0, str(tmp_path))
    assert len({(tmp_path / name / "model.safetensors").read_bytes() for name in (str(SMALL), "0")}) == 1


@pytest.mark.slow
def test_two_thousand_rounds_hold_no_more_memory_than_fifty(ray_session: object) -> None:
    assert ray.is_initialized()
    found = many_rounds()
    assert found["growth"] < 0.02, found
