"""Runs that apply received gradients by fitting to auxiliary labels train as those by autograd do."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reference import assert_close_weights, assert_same_training, unsplit
from tests.runs.equality.test_schedules import ALL, COHORTS, SGD, fit
from tests.tiers import mostly_thorough, thorough


@pytest.mark.thorough
@pytest.mark.parametrize("schedule", mostly_thorough(ALL, "sequential", "splitfed_v1"))
@pytest.mark.parametrize("cuts", [*thorough("block1"), "block1,hidden"])
@pytest.mark.few(2)
def test_both_ways_train_the_same(tmp_path: Path, schedule: str, cuts: str) -> None:
    phones = {"cohort": 3} if schedule in COHORTS else {}
    results = [
        fit(tmp_path, schedule, SGD, phones=phones, model={"cuts": cuts, "backprop": how})[1]
        for how in ("autograd", "auxiliary_labels")
    ]
    assert_same_training(results[0], results[1], 1e-6)


@pytest.mark.parametrize(
    "model",
    [
        {"name": "tests.nets:with_batchnorm", "cuts": "2,7"},
        {"name": "tests.nets:Residual", "cuts": "blocks.0.first,blocks.1.first"},
    ],
    ids=["batchnorm", "two tensors cross"],
)
def test_one_phone_is_still_unsplit(tmp_path: Path, model: dict) -> None:
    phones = {"count": 1, "local_steps": 10}
    settings, result = fit(tmp_path, "sequential", phones=phones, model={**model, "backprop": "auxiliary_labels"})
    assert_close_weights(lambda: unsplit(settings), result.path)
