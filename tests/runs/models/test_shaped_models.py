"""Models whose sizes are the data's, and the model that a data set has when none is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import ray_split as rs
from tests.reference import assert_same_training, assert_same_weights, unsplit
from tests.tiers import mostly_thorough

SHAPES = {"cnn": [2, 9, 12], "cnn1d": [3, 14], "lstm": [3, 9], "mlp": [5, 3]}
SMALL = {"cnn": {"width": 4, "hidden": 16}, "cnn1d": {"width": 4, "hidden": 16}, "lstm": {"width": 8}, "mlp": {}}
MIDDLE = {"cnn": ("block2", "hidden"), "cnn1d": ("block2", "hidden"), "lstm": ("recurrent",), "mlp": ("layers.1",)}


def config(path: Path, name: str, schedule: str = "sequential", **sections: Any) -> rs.Config:
    run = {"storage_path": str(path), "name": f"run_{len(list(path.iterdir()))}", "rounds": 1}
    data = {"name": "synthetic", "kwargs": {"samples": 60, "shape": SHAPES.get(name, [3, 4]), "num_classes": 3}}
    model = {"name": name, "kwargs": SMALL.get(name, {})}
    merged = {"model": model, "data": data, "optimizer": {"lr": 0.05, "momentum": 0.9}, **sections}
    return rs.Config(schedule={"name": schedule}, cluster={"backend": "inprocess"}, run=run, **merged)


def resolved(result: rs.Result) -> rs.Config:
    return rs.Config.from_yaml(Path(result.path) / "config.yaml")


@pytest.mark.parametrize("name", SHAPES)
def test_split_is_unsplit_bit_for_bit(tmp_path: Path, name: str) -> None:
    settings = config(tmp_path, name, phones={"count": 3})
    result = rs.fit(settings, callbacks=[])
    assert_same_weights(unsplit(settings, b=MIDDLE[name]), result.path)
    assert resolved(result).model.input_shape == SHAPES[name]
    again = rs.fit(resolved(result).with_values(run={"name": "again"}), callbacks=[])
    files = [Path(each.path) / "model.safetensors" for each in (result, again)]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("name", mostly_thorough(SHAPES, "cnn1d", "lstm"))
def test_stacked_is_looped(tmp_path: Path, name: str) -> None:
    stacked = ["a", "c"] if name == "lstm" else ["a", "b", "c"]  # vmap has no LSTM
    runs = [
        rs.fit(config(tmp_path, name, "splitfed_v1", phones={"count": 3, "cohort": 3, "stacked": each}), callbacks=[])
        for each in ([], stacked)
    ]
    assert_same_training(*runs, b=MIDDLE[name])


def test_an_lstm_that_is_to_be_stacked_is_refused_and_said_why(tmp_path: Path) -> None:
    settings = config(tmp_path, "lstm", "splitfed_v1", phones={"count": 3, "cohort": 3, "stacked": ["b"]})
    with pytest.raises(rs.SettingsError, match=r"phones\.stacked: can't contain b, because .*lstm.*Remove b from"):
        rs.fit(settings, callbacks=[])


class Shaped(nn.Module):
    """A user's model that asks for a sample's shape."""

    def __init__(self, num_classes: int, input_shape: tuple[int, ...]) -> None:
        super().__init__()
        assert isinstance(input_shape, tuple)
        self.first = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(input_shape)), 4), nn.ReLU())
        self.second, self.third = nn.Linear(4, 4), nn.Linear(4, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.third(torch.relu(self.second(self.first(x))))


def passed_on(num_classes: int, **kwargs: Any) -> nn.Module:
    """A user's model that says nothing of a shape, and passes on what it is given."""
    assert not kwargs
    return Shaped(num_classes, (3, 4))


@pytest.mark.parametrize(("name", "shape"), [("Shaped", [3, 4]), ("passed_on", None)])
def test_a_model_of_ones_own_is_given_the_shape_if_it_has_a_place_for_it(
    tmp_path: Path, name: str, shape: list[int] | None
) -> None:
    settings = config(tmp_path, f"{__name__}:{name}").with_values(model={"cuts": "first,second"})
    result = rs.fit(settings, callbacks=[])
    assert resolved(result).model.input_shape == shape
    assert_same_weights(unsplit(settings, b=("second",)), result.path)


def test_another_shape_than_the_datas_is_refused(tmp_path: Path) -> None:
    settings = config(tmp_path, "cnn1d").with_values(model={"input_shape": "3,15"})
    with pytest.raises(rs.SettingsError, match=r"model\.input_shape: is 3,15, but the samples have the shape 3,14"):
        rs.fit(settings, callbacks=[])


def test_a_run_that_began_before_the_shape_was_told_is_gone_on_with(tmp_path: Path) -> None:
    settings = config(tmp_path, "mlp")
    path = Path(rs.fit(settings, callbacks=[]).path)
    told = (path / "config.yaml").read_text()
    without = told.replace("  input_shape:\n  - 5\n  - 3\n", "")
    assert without != told
    (path / "config.yaml").write_text(without)
    result = rs.fit(settings.with_values(run={"resume": "auto", "rounds": 2}), callbacks=[])
    assert result.metrics["round"] == 1 and resolved(result).model.input_shape == [5, 3]


@pytest.mark.parametrize(
    ("data", "model"),
    [
        ({}, "digits_cnn"),
        ({"name": "mnist_5k"}, "cnn"),
        ({"name": "basic_motions"}, "cnn1d"),
        ({"name": "synthetic_tokens"}, "transformer"),
        ({"name": "tests.nets:theirs"}, "digits_cnn"),
    ],
)
def test_without_a_name_the_model_is_the_data_sets(data: dict[str, str], model: str) -> None:
    assert rs.Config(data=data).model.name == model
    assert rs.Config(data=data, model={"num_classes": 3}).model.name == model
    assert rs.Config(data=data, model={"name": "mlp"}).model.name == "mlp"


def test_a_default_model_is_cut_as_suits_it(tmp_path: Path) -> None:
    settings = config(tmp_path, "", model={}, data={"name": "synthetic_regression"}, task={"loss": "mse"})
    assert resolved(rs.fit(settings, callbacks=[])).model.cuts == ["layers.0", "layers.1"]


@pytest.mark.parametrize(("shape", "fits"), [([1, 28, 28], "cnn or mlp"), ([3, 9], "cnn1d, lstm or mlp")])
def test_a_model_for_other_samples_is_refused_with_those_that_fit(tmp_path: Path, shape: list[int], fits: str) -> None:
    data = {"name": "synthetic", "kwargs": {"samples": 60, "shape": shape}}
    with pytest.raises(rs.SettingsError, match=rf"^model\.name: .* Choose {fits}, which fit data of any size\.$"):
        rs.fit(config(tmp_path, "digits_cnn", data=data), callbacks=[])
