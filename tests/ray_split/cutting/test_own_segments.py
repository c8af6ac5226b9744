"""Segments of the user's own: no tracing, so anything may happen in them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import ray_split as rs
from ray_split import config
from ray_split.cutting.cut import CutError, cut, merge
from ray_split.models import registry
from tests.reference import assert_same_weights, unsplit
from tests.runs.equality.test_schedules import fit


@pytest.mark.parametrize(("name", "cuts"), [("three", ["a", "b"]), ("two", ["a"])])
def test_a_model_of_own_segments_is_cut_between_them(name: str, cuts: list[str]) -> None:
    settings = config.Model(name=f"tests.nets:{name}_of_my_own", num_classes=10)
    model = registry.build(settings, seed=0)
    assert registry.cuts_of(settings, model) == cuts
    segments = cut(model, cuts)
    states = [module.state_dict() for module in segments.modules().values()]
    assert merge(*states).keys() == model.state_dict().keys()
    assert all(key.startswith(f"{name}.") for name, state in zip("abc", states, strict=False) for key in state)
    x = torch.randn(3, 1, 8, 8)
    activation = segments.a(x)
    middle = segments.b(*activation)
    assert torch.equal(middle if segments.c is None else segments.c(middle), model(x))
    segments.a.a.first.weight.data.zero_()
    assert model.a.first.weight.any()


@pytest.mark.parametrize("schedule", ["sequential", "splitfed_v1", "parallel"])
@pytest.mark.parametrize("name", ["three", "two"])
def test_they_train_as_the_whole(tmp_path: Path, schedule: str, name: str) -> None:
    model = {"name": f"tests.nets:{name}_of_my_own"}
    settings, result = fit(tmp_path, schedule, phones={"count": 1, "local_steps": 5}, model=model)
    assert_same_weights(unsplit(settings), result.path)


def test_other_cuts_and_weights_in_two_of_them_are_refused(tmp_path: Path) -> None:
    with pytest.raises(rs.SettingsError, match=r"is already cut\. Remove model\.cuts"):
        fit(tmp_path, "sequential", model={"name": "tests.nets:three_of_my_own", "cuts": "a.first,b"})
    layer = nn.Linear(2, 2)
    with pytest.raises(CutError, match=r"the tied weights a.weight and b.weight would be in both segments A and B"):
        cut(registry.Chain(layer, layer), ["a"])
