"""A frozen segment keeps its first weights, to the last bit, whatever the schedule."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import ray_split as rs
from ray_split.models import registry
from tests.tiers import thorough

BOTH = {"name": "tests.nets:with_batchnorm_and_dropout", "cuts": "3,9"}
PARTS = {"a": ("0.", "1."), "b": ("4.", "5.", "8."), "c": ("10.",)}


@pytest.mark.parametrize("frozen", ["a", "b", "c"])
@pytest.mark.parametrize(
    "schedule", ["sequential", "splitfed_v1", *thorough("splitfed_v2", "splitfed_v3", "parallel", "fedavg", "unsplit")]
)
@pytest.mark.few(2, thorough=3)
def test_a_frozen_segment_keeps_its_first_weights(tmp_path: Path, schedule: str, frozen: str) -> None:
    settings = rs.Config(
        model={**BOTH, "freeze": [frozen]}, phones={"count": 4, "local_steps": 2}, schedule={"name": schedule},
        data={"partition": {"name": "dirichlet", "alpha": 5.0}}, cluster={"backend": "inprocess"},
        run={"storage_path": str(tmp_path), "name": "run", "rounds": 3},
    )  # fmt: skip
    trained = rs.load_model(rs.fit(settings, callbacks=[]).path, trust=True).state_dict()
    first = registry.build(settings.model, settings.run.seed).state_dict()
    changed = {key for key in first if not torch.equal(first[key], trained[key])}
    assert not {key for key in changed if key.startswith(PARTS[frozen])}
    assert all(any(key.startswith(names) for key in changed) for name, names in PARTS.items() if name != frozen)


SCHEDULES = ["sequential", "splitfed_v1", *thorough("splitfed_v2", "splitfed_v3", "parallel")]


@pytest.mark.parametrize("cuts", ["block1", "block1,hidden"])
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.few(1)
def test_for_a_frozen_a_no_gradient_of_the_activation_crosses(tmp_path: Path, schedule: str, cuts: str) -> None:
    free, frozen = (crossing(tmp_path, schedule, cuts, freeze) for freeze in ([], ["a"]))
    activation = free["samples"] * 16 * 8 * 8 * 4
    assert free["bytes_down"] - frozen["bytes_down"] == activation
    assert free["bytes_up"] == frozen["bytes_up"]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_for_frozen_a_and_b_no_gradient_crosses_at_all(tmp_path: Path, schedule: str) -> None:
    frozen = crossing(tmp_path, schedule, "block1,hidden", ["a", "b"])
    assert frozen["bytes_up"] == frozen["samples"] * 16 * 8 * 8 * 4
    assert frozen["bytes_down"] == frozen["samples"] * 64 * 4


def crossing(path: Path, schedule: str, cuts: str, freeze: list[str]) -> dict[str, float]:
    settings = rs.Config(
        model={"cuts": cuts, "freeze": freeze}, phones={"count": 4, "local_steps": 2}, schedule={"name": schedule},
        cluster={"backend": "inprocess"},
        run={"storage_path": str(path), "name": f"run_{len(list(path.iterdir()))}", "rounds": 1},
    )  # fmt: skip
    return rs.fit(settings, callbacks=[]).metrics
