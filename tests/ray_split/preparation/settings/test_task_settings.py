"""What is settled and refused of a task before an actor starts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

import ray_split as rs
from ray_split.preparation.prepare import prepare
from ray_split.preparation.settings.task_settings import balanced

VALUES = {"name": "synthetic_regression", "kwargs": {"samples": 100}}
MAPS = {"name": "synthetic_segmentation", "kwargs": {"samples": 60, "size": 8}}
FEW_TOKENS = {"name": "synthetic_tokens", "kwargs": {"samples": 60, "length": 3}}
TOKENS = {"name": "synthetic_tokens", "kwargs": {"samples": 60, "length": 8}}
MLP = {"name": "mlp"}


def prepared(**sections: Any) -> rs.Config:
    return prepare(rs.Config(run={"name": "x"}, phones={"count": 4}, **sections)).settings


def test_balanced_weights_are_scikit_learns_of_the_labels_that_count() -> None:
    labels = np.array([0, 0, 0, 1, 2, 2])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    assert balanced(labels, 3) == pytest.approx(expected.tolist())
    assert balanced(np.array([[0, 0, -100, 0], [1, 2, 2, -100]]), 3) == pytest.approx(expected.tolist())


def test_balanced_weights_are_settled_by_the_training_samples() -> None:
    settings = prepared(task={"class_weights": "balanced"})
    labels = rs.load_data(settings.data).train.labels
    assert settings.task.class_weights == pytest.approx((len(labels) / (10 * np.bincount(labels))).tolist())
    assert prepared(task=settings.task.model_dump()).task == settings.task


@pytest.mark.parametrize(
    ("loss", "metrics"), [("mse", ["mae", "r2"]), ("l1", ["mse", "r2"]), ("huber", ["mse", "mae", "r2"])]
)
def test_a_regression_tells_what_its_loss_does_not(loss: str, metrics: list[str]) -> None:
    assert prepared(model=MLP, data=VALUES, task={"loss": loss}).task.metrics == metrics
    assert prepared(model=MLP, data=VALUES, task={"loss": loss, "metrics": []}).task.metrics == []


def test_a_classification_tells_no_scores_unless_asked_to() -> None:
    assert prepared().task.metrics is None


def test_a_model_has_as_many_outputs_as_a_regressions_labels_have_values() -> None:
    assert prepared(model=MLP, data=VALUES, task={"loss": "mse"}).model.num_classes == 1
    two = {"name": "tests.ray_split.preparation.settings.test_task_settings:pairs"}
    assert prepared(model=MLP, data=two, task={"loss": "mse"}).model.num_classes == 2


def pairs() -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((50, 64), np.float32), np.zeros((50, 2))


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"task": {"class_weights": [1, 2, 3]}},
            r"task\.class_weights: has 3 weights, but there are 10 classes\. Give 10 weights, one for each class\.",
        ),
        (
            {"task": {"class_weights": [1, 2, 0]}},
            r"task\.class_weights: must be balanced or greater than 0, not \[1, 2, 0\]\.",
        ),
        ({"task": {"class_weights": "even"}}, r"task\.class_weights: must be balanced or a number, not \['even'\]\."),
        (
            {"task": {"class_weights": "balanced"}, "model": {"num_classes": 12}},
            (
                r"task\.class_weights: can't be balanced, because class 10 has no training sample\. Give a list of 12 "
                r"weights\."
            ),
        ),
        (
            {"task": {"loss": "mse"}},
            r"task\.loss: mse needs labels that are real numbers, but those of digits are whole numbers",
        ),
        (
            {"model": MLP, "data": VALUES},
            (
                r"task\.loss: cross_entropy needs labels that are classes, but those of synthetic_regression are real "
                r"numbers \(float32\)\. Set task\.loss to mse, l1 or huber for values, or return "
                r"labels\.astype\(int\) for classes\."
            ),
        ),
        (
            {"model": {**MLP, "num_classes": 3}, "data": VALUES, "task": {"loss": "mse"}},
            (
                r"task\.loss: mse can't take outputs \(2, 3\) and labels \(2,\) of torch\.float32: ValueError: its "
                r"outputs and labels have the same shape, but for a last dimension of 1"
            ),
        ),
        (
            {"model": {"name": "transformer"}, "data": TOKENS},
            (
                r"task\.loss: cross_entropy can't take outputs \(10, 8, 4\) and labels \(10, 8\) of torch\.int64: "
                r"RuntimeError: Expected target size \[10, 4\], got \[10, 8\] \(functional\.py:\d+\)\. "
                r"Set task\.loss to token_cross_entropy, if these are a label and scores of its classes for each "
                r"token\."
            ),
        ),
        (
            {"model": {"name": "transformer", "kwargs": {"num_classes": 4}}, "data": FEW_TOKENS},
            (
                r"task\.loss: the model's outputs have the shape \(10, 3, 4\), but need 4 classes in the second "
                r"dimension\. Set task\.loss to token_cross_entropy, if these are a label and scores of its classes "
                r"for each token\."
            ),
        ),
        (
            {"model": {"name": "unet"}, "data": MAPS, "task": {"loss": "token_cross_entropy"}},
            (
                r"task\.loss: token_cross_entropy can't take outputs \(10, 3, 8, 8\) and labels \(10, 8, 8\) of "
                r"torch\.int64: ValueError: its outputs have the labels' dimensions, and then the classes"
            ),
        ),
        (
            {"model": {"name": "unet", "kwargs": {"num_classes": 2}}, "data": MAPS},
            (
                r"model\.kwargs: with num_classes 2, the model's outputs have the shape \(10, 2, 8, 8\), but need 3 "
                r"classes in the second dimension\. Remove num_classes from model\.kwargs: model\.num_classes already "
                r"sets 3\."
            ),
        ),
        (
            {"task": {"metrics": ["r2"]}},
            (
                r"task\.metrics: can't be computed from outputs \(16, 10\) and labels \(16,\) of torch\.int64: "
                r"ValueError: a score of values, and the labels are classes"
            ),
        ),
        (
            {"model": MLP, "data": VALUES, "task": {"loss": "mse", "metrics": "macro_f1"}},
            (
                r"task\.metrics: can't be computed from outputs \(16, 1\) and labels \(16,\) of torch\.float32: "
                r"ValueError: a score of classes, and the labels are values"
            ),
        ),
        (
            {"task": {"metrics": ["tests.nets:squared_error"]}},
            r"task\.metrics: squared_error can't be computed from .*size of tensor",
        ),
        (
            {"data": {**MAPS, "partition": {"name": "dirichlet"}}, "model": {"name": "unet"}},
            "can't be dirichlet, because the labels aren't classes",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_task_that_does_not_suit_model_or_data_is_refused_in_one_line(sections: dict[str, Any], message: str) -> None:
    with pytest.raises(rs.SettingsError, match=message) as caught:
        prepared(**sections)
    assert "\n" not in str(caught.value)


HERE = "tests.ray_split.preparation.settings.test_task_settings"


def summed(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(outputs, labels, reduction="sum")


def averaged(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(outputs, labels)


def no_number(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return outputs.sum() * 0 / 0


def nothing(outputs: torch.Tensor, labels: torch.Tensor) -> None:
    averaged(outputs, labels)


def each_one(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return outputs.argmax(1) == labels


def test_a_sum_over_the_batch_is_told_of_and_a_mean_is_not(caplog: pytest.LogCaptureFixture) -> None:
    prepared(task={"loss": f"{HERE}:averaged", "metrics": [f"{HERE}:averaged"]})
    assert not caplog.records
    prepared(task={"loss": f"{HERE}:summed", "metrics": [f"{HERE}:summed"]})
    told = [f"{name} is twice as large for the same samples twice" for name in (f"{HERE}:summed", "summed")]
    assert [record.getMessage()[: len(line)] for record, line in zip(caplog.records, told, strict=True)] == told


@pytest.mark.parametrize(
    ("task", "line"),
    [
        ({"metrics": [f"{HERE}:averaged", f"{HERE}:nothing"]}, "nothing returned nothing. Return one number, the mean"),
        ({"metrics": [f"{HERE}:each_one"]}, r"each_one returned a tensor of shape \(16,\). Return one number"),
        (
            {"loss": f"{HERE}:no_number"},
            ":no_number is nan for the first batch, though the model's outputs are finite",
        ),
    ],
)
def test_a_function_that_gives_no_number_is_told_of_by_its_name(task: dict[str, Any], line: str) -> None:
    with pytest.raises(rs.SettingsError, match=line):
        prepared(task=task)
