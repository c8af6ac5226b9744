"""Outputs that are not finite are wrong, counted and told of: in validation and test, in whole runs."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from torch import nn

import ray_split as rs
from ray_split import config as settings
from ray_split.messages.report import added
from ray_split.tasks.task import Task
from tests.tiers import mostly_thorough

HERE = "tests.runs.equality.test_nonfinite"
NAN, INF = math.nan, math.inf


class Broken(nn.Module):
    """In eval mode what it returns is no number where the first of its outputs is above a bound."""

    def __init__(self, above: float = -1e30, value: str = "nan") -> None:
        super().__init__()
        self.above, self.value = above, float(value)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            return x
        return torch.where((x[:, :1] > self.above), self.value, x)


def net(num_classes: int = 3, above: float = -1e30, value: str = "nan") -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), nn.Identity(), nn.Linear(4, num_classes), Broken(above, value))


def some(classes: bool = True) -> rs.DataSet:
    """Three in four test samples are of class 0."""
    draw = np.random.default_rng(0)
    inputs = draw.normal(size=(100, 4)).astype(np.float32)
    labels = np.where(np.arange(100) % 4, 0, draw.integers(1, 3, 100))
    wanted = labels if classes else (1.0 + labels).astype(np.float32)
    return rs.DataSet(rs.Part(inputs[:60], wanted[:60]), rs.Part(inputs[60:], wanted[60:]), groups={"w": labels[:60]})


def fit(path: Path, **sections: Any) -> rs.Result:
    base: dict[str, Any] = {
        "model": {"name": f"{HERE}:net", "cuts": "0,1"}, "data": {"name": f"{HERE}:some", "batch_size": 6},
        "phones": {"count": 3}, "cluster": {"backend": "inprocess"},
        "run": {"storage_path": str(path), "name": "run", "rounds": 2},
    }  # fmt: skip
    return rs.fit(rs.Config(**base).with_values(**sections), callbacks=[])


SCHEDULES = {
    "sequential": {},
    "splitfed_v1 stacked": {"schedule": {"name": "splitfed_v1"}, "phones": {"count": 3, "cohort": 3}},
    "splitfed_v1 looped": {"schedule": {"name": "splitfed_v1"}, "phones": {"count": 3, "cohort": 1}},
    "splitfed_v2": {"schedule": {"name": "splitfed_v2"}},
    "parallel": {"schedule": {"name": "parallel"}},
    "fedavg": {"schedule": {"name": "fedavg"}},
    "unsplit": {"schedule": {"name": "unsplit"}},
    "single": {"model": {"name": f"{HERE}:net", "cuts": "0"}},
}


@pytest.mark.parametrize("schedule", mostly_thorough(SCHEDULES, "sequential", "splitfed_v1 stacked", "single"))
def test_a_model_that_says_nothing_is_right_about_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, schedule: str
) -> None:
    scores = ["macro_f1", "balanced_accuracy", "mean_iou"]
    result = fit(tmp_path, task={"metrics": scores}, **SCHEDULES[schedule])
    told = result.metrics
    assert [told[f"test_{name}"] for name in ("accuracy", *scores)] == [0, 0, 0, 0]
    assert (told["val_accuracy"], told["val_nonfinite"], told["test_nonfinite"], told["test_loss"]) == (0, 6, 40, None)
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    broken = [line for line in lines if "not finite" in line]
    assert broken == [  # once, though there are two rounds
        "validation: the model's outputs are not finite for 6 of 6 samples: these count as wrong",
        "test: the model's outputs are not finite for 40 of 40 samples: these count as wrong",
    ]


def test_what_is_finite_counts_as_ever(tmp_path: Path) -> None:
    """The weights are those of a model that is not broken, and a sample that isn't is as right as there."""
    above = {"model": {"name": f"{HERE}:net", "cuts": "0,1", "kwargs": {"above": 0.0}}}
    never = {"model": {"name": f"{HERE}:net", "cuts": "0,1", "kwargs": {"above": 1e30}}}
    some_broken, whole = fit(tmp_path / "some", **above), fit(tmp_path / "whole", **never)
    test = some().test
    with torch.no_grad():
        outputs = rs.load_model(whole.path, trust=True)(torch.from_numpy(test.inputs)).numpy()
    broken, said = outputs[:, 0] > 0, outputs.argmax(1)
    assert 0 < broken.sum() < 40
    assert some_broken.metrics["test_nonfinite"] == broken.sum()
    assert some_broken.metrics["test_accuracy"] == pytest.approx(((said == test.labels) & ~broken).mean())
    assert (whole.metrics["test_nonfinite"], whole.metrics["val_nonfinite"]) == (0, 0)
    assert whole.metrics["test_accuracy"] == pytest.approx((said == test.labels).mean())


def test_personal_models_are_counted_and_their_phones_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    v3 = {"schedule": {"name": "splitfed_v3"}, "phones": {"count": 3, "held_out": 0.4}}
    told = fit(tmp_path, **v3).metrics
    assert (told["test_accuracy"], told["phone_accuracy_worst"], told["phone_accuracy_mean"]) == (0, 0, 0)
    table = pandas.read_parquet(tmp_path / "run" / "phones.parquet")
    assert told["test_nonfinite"] > 0 and (table["test_accuracy"] == 0).all() and table["test_loss"].isna().all()
    assert "(of phones 0, 1, 2): these count as wrong" in caplog.text


def test_phones_that_hold_samples_out_of_a_shared_model_are_counted_too(tmp_path: Path) -> None:
    told = fit(tmp_path, phones={"count": 3, "held_out": 0.4}).metrics
    assert (told["phone_accuracy_mean"], told["test_accuracy"]) == (0, 0)
    assert told["phone_nonfinite"] == 3 * 4  # of 18 samples each, 7 are held out, of these 3 for validation


def test_a_regression_whose_outputs_are_not_finite_has_no_scores(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = {"name": f"{HERE}:some", "kwargs": {"classes": False}, "batch_size": 6}
    model = {"name": f"{HERE}:net", "cuts": "0,1", "kwargs": {"above": 1e30}}
    whole = fit(tmp_path / "whole", data=data, model=model, task={"loss": "l1"})
    with torch.no_grad():
        above = rs.load_model(whole.path, trust=True)(torch.from_numpy(some().test.inputs)).median().item()
    for value in ("nan", "inf"):
        own = {**model, "kwargs": {"above": above, "value": value}}
        told = fit(tmp_path / value, data=data, model=own, task={"loss": "l1"}).metrics
        assert (told["test_loss"], told["test_mse"], told["test_r2"]) == (None, None, None)
        assert told["test_nonfinite"] == 20
    assert "of 40 samples: loss and scores are null" in caplog.text


LABELS = torch.tensor([0, 0, 1, 2])
SCORES = torch.tensor([[NAN, 0.0, 0.0], [3.0, -INF, 0.0], [-INF, 2.0, INF], [-INF, -INF, -INF]])


def task(**values: Any) -> Task:
    return Task(settings.Task(**values))


def test_a_class_that_is_ruled_out_is_an_answer_and_what_is_infinite_none() -> None:
    """Minus infinity is the score of a class that can't be; softmax has no number where the highest is infinite."""
    assert task().corrects(SCORES[None], LABELS[None]).tolist() == [1]
    assert task().correct(SCORES, LABELS) == 1
    tallies = task(metrics=["macro_f1"]).tallies(SCORES, LABELS)
    assert tallies["nonfinite"].tolist() == [3, 4]
    assert tallies["classes"].tolist() == [[1, 0, 0], [1, 0, 0], [2, 1, 1]]


def test_of_maps_and_tokens_the_labels_that_count_decide() -> None:
    scores, labels = torch.zeros(3, 4, 2), torch.zeros(3, 4, dtype=torch.int64)
    scores[0, 3], labels[0, 3] = NAN, -100  # padding
    scores[1, 2] = NAN
    ours = task(loss="token_cross_entropy")
    assert ours.tallies(scores, labels)["nonfinite"].tolist() == [1, 3]
    assert ours.correct(scores, labels) == 1 + 0.75 + 1
    maps = task()
    assert maps.tallies(scores.movedim(-1, 1), labels)["nonfinite"].tolist() == [1, 3]
    assert maps.correct(scores.movedim(-1, 1), labels) == 2.75


def test_counts_add_up_over_batches_and_are_of_the_main_head() -> None:
    ours = task()
    halves = [ours.tallies({"out": SCORES[i:j], "aux": SCORES[:2]}, LABELS[i:j]) for i, j in ((0, 1), (1, 4))]
    assert added(halves)["nonfinite"].tolist() == [3, 4]


def test_values_that_are_not_finite_and_outputs_of_other_kinds_are_counted() -> None:
    values, wanted = torch.tensor([[1.0, NAN], [2.0, INF], [0.0, 0.0]]), torch.ones(3, 2)
    assert task(loss="mse").tallies(values, wanted)["nonfinite"].tolist() == [2, 3]
    own = task(loss="tests.nets:squared_error")
    assert own.tallies({"boxes": values, "n": 3}, wanted)["nonfinite"].tolist() == [1, 3]
    # What an own loss alone can read, of whatever shape, stops nothing.
    for outputs in (torch.zeros(7), torch.zeros(()), torch.zeros(3, 0), {"n": 3}, [torch.zeros(3, 0, 2)], None):
        assert own.tallies(outputs, wanted)["nonfinite"].tolist() == [0, 3]
    with pytest.raises(rs.SettingsError, match="can't contain nonfinite, which is always computed"):
        task(metrics=[f"{HERE}:nonfinite"])
