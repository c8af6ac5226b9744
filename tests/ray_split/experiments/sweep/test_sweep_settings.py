"""A sweep's axes and points, and what is refused."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

import ray_split as rs
from ray_split.experiments.command import parser_of
from ray_split.experiments.sweep.axes import settings_at, space
from ray_split.experiments.sweep.report import by_point
from ray_split.experiments.sweep.settings import sweep_of
from ray_split.experiments.sweep.trials import name_of

CUTS = "[layers.0,layers.1],[nowhere,layers.1]"


def grid(axis: Any) -> list[Any]:
    return list(axis["grid_search"])


def test_an_axis_is_a_list_of_values_of_any_kind() -> None:
    axes = space(["optimizer.lr=0.01,0.1", "schedule.name=splitfed_v1,parallel", f"model.cuts={CUTS}"], [3, 4])
    assert {name: grid(axis) for name, axis in axes.items()} == {
        "optimizer.lr": [0.01, 0.1],
        "schedule.name": ["splitfed_v1", "parallel"],
        "model.cuts": [["layers.0", "layers.1"], ["nowhere", "layers.1"]],
        "run.seed": [3, 4],
    }


def test_an_axis_may_be_drawn_from() -> None:
    axis = space(["optimizer.lr=loguniform(1e-3, 1)"], [])["optimizer.lr"]
    assert (axis.lower, axis.upper) == (1e-3, 1)
    choice = space(["optimizer.name=choice(sgd, adam)"], [])["optimizer.name"]
    assert choice.categories == ["sgd", "adam"]


@pytest.mark.parametrize(
    "over",
    [
        ["optimizer.lr"],
        ["optimizer.lr="],
        ["nothing.lr=1,2"],
        ["optimizer.lr=loguniform(a, 1)"],
        ["optimizer.lr=gauss(1, 2)"],
        ["optimizer.lr=[1"],
        ["optimizer.lr=1", "optimizer.lr=2"],
    ],
    ids=str,
)
def test_what_is_no_axis_is_refused(over: list[str]) -> None:
    with pytest.raises(rs.SettingsError, match="--over"):
        space(over, [])


def test_a_point_is_the_base_with_its_values() -> None:
    base = rs.Config(optimizer={"momentum": 0.5}, data={"partition": {"min_samples": 2}})
    found = settings_at(base, {"optimizer.lr": 0.3, "data.partition.alpha": 0.1})
    assert (found.optimizer.lr, found.optimizer.momentum) == (0.3, 0.5)
    assert (found.data.partition.alpha, found.data.partition.min_samples) == (0.1, 2)
    with pytest.raises(rs.SettingsError, match=r"optimizer\.lr"):
        settings_at(base, {"optimizer.lr": "high"})


def test_runs_have_readable_names_of_their_own() -> None:
    names = [name_of({"optimizer.lr": lr, "model.cuts": ["a/b", "c"]}) for lr in (0.1, 0.2)]
    assert len(set(names)) == 2
    assert all(name.startswith("cuts=['a_b',_'c'],lr=0.") and "/" not in name for name in names)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "sweep needs values to try"),
        (["--seeds", "a"], "whole numbers"),
        (["--seeds", "1", "--run.name", "x"], "Remove --run.name"),
        (["--seeds", "1", "--cluster.backend", "inprocess"], r"cluster\.backend"),
        (["--seeds", "1", "--optimiser.lr", "1"], "--optimiser.lr"),
    ],
    ids=str,
)
def test_a_sweep_that_can_not_be_is_refused(arguments: list[str], named: str) -> None:
    with pytest.raises(rs.SettingsError, match=named):
        sweep_of(arguments, parser_of("sweep", ""))


def test_points_are_compared_over_their_seeds() -> None:
    frame = pd.DataFrame(
        {"config/optimizer.lr": [0.1, 0.1, 0.2, 0.2], "config/run.seed": [0, 1, 0, 1], "val_loss": [1.0, 3.0, 1.0, 2.0]}
    )
    points = by_point(frame, ["optimizer.lr"], "val_loss", "min").to_dict("records")
    assert [(p["optimizer.lr"], p["mean"], p["runs"]) for p in points] == [("0.2", 1.5, 2), ("0.1", 2.0, 2)]
    assert points[1]["std"] == pytest.approx(2**0.5)
