"""What is settled and refused of a task before an actor starts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

import ray_split as rs
from ray_split.preparation.prepare import prepare
from ray_split.preparation.task_settings import balanced

VALUES = {"name": "synthetic_regression", "kwargs": {"samples": 100}}
MAPS = {"name": "synthetic_segmentation", "kwargs": {"samples": 60, "size": 8}}
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
    two = {"name": "tests.ray_split.preparation.test_task_settings:pairs"}
    assert prepared(model=MLP, data=two, task={"loss": "mse"}).model.num_classes == 2


def pairs() -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((50, 64), np.float32), np.zeros((50, 2))


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"task": {"class_weights": [1, 2, 3]}}, r"task\.class_weights: .*10 weights, one for each class"),
        ({"task": {"class_weights": [1, 2, 0]}}, r"task\.class_weights: .*greater than 0"),
        ({"task": {"class_weights": "even"}}, r"task\.class_weights: \['even'\].*'balanced'"),
        (
            {"task": {"class_weights": "balanced"}, "model": {"num_classes": 12}},
            r"task\.class_weights: 'balanced'.*list of 12 weights: class 10 has no training sample",
        ),
        (
            {"task": {"loss": "mse"}},
            r"task\.loss: 'mse'.*digits has whole numbers for labels; mse's are values",
        ),
        ({"model": MLP, "data": VALUES}, r"task\.loss: 'cross_entropy'.*classes, whole numbers"),
        (
            {"model": {**MLP, "num_classes": 3}, "data": VALUES, "task": {"loss": "mse"}},
            r"task\.loss: 'mse'.*outputs \(2, 3\) and labels \(2,\).*same shape",
        ),
        ({"model": {"name": "transformer"}, "data": TOKENS}, r"task\.loss: 'cross_entropy'.*Expected target size"),
        (
            {"model": {"name": "unet"}, "data": MAPS, "task": {"loss": "token_cross_entropy"}},
            r"task\.loss: 'token_cross_entropy'.*labels' dimensions, and then the classes",
        ),
        (
            {"model": {"name": "unet", "kwargs": {"num_classes": 2}}, "data": MAPS},
            r"model\.kwargs: .*without num_classes, .* says: 3 here; .*outputs \(10, 2, 8, 8\) have 3 classes",
        ),
        ({"task": {"metrics": ["r2"]}}, r"task\.metrics: \['r2'\].*score of values, and the labels are classes"),
        (
            {"model": MLP, "data": VALUES, "task": {"loss": "mse", "metrics": "macro_f1"}},
            r"task\.metrics: \['macro_f1'\].*score of classes, and the labels are values",
        ),
        (
            {"task": {"metrics": ["tests.nets:squared_error"]}},
            r"task\.metrics: \['tests\.nets:squared_error'\].*size of tensor",
        ),
        ({"data": {**MAPS, "partition": {"name": "dirichlet"}}, "model": {"name": "unet"}}, "labels aren't classes"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_task_that_does_not_suit_model_or_data_is_refused_in_one_line(sections: dict[str, Any], message: str) -> None:
    with pytest.raises(rs.SettingsError, match=message) as caught:
        prepared(**sections)
    assert "\n" not in str(caught.value)
