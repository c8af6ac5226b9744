"""Scores against scikit-learn's, of tallies that are added up over batches."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn

from ray_split.tasks.metrics import METRICS, classes, errors, surprise

OF_CLASSES = {
    "macro_f1": lambda wanted, said: sklearn.f1_score(wanted, said, average="macro"),
    "balanced_accuracy": sklearn.balanced_accuracy_score,
    "mean_iou": lambda wanted, said: sklearn.jaccard_score(wanted, said, average="macro"),
}
OF_VALUES = {
    "mse": sklearn.mean_squared_error,
    "mae": sklearn.mean_absolute_error,
    "r2": sklearn.r2_score,
}


def in_batches(tally, outputs: np.ndarray, labels: np.ndarray, size: int = 7) -> np.ndarray:
    """The tallies of batches, added up."""
    starts = range(0, len(labels), size)
    batches = [[torch.from_numpy(x[i : i + size]) for x in (outputs, labels)] for i in starts]
    return sum(tally(*batch) for batch in batches)


@pytest.mark.parametrize("name", OF_CLASSES)
@pytest.mark.parametrize("seed", range(5))
def test_scores_of_classes_are_scikit_learns(name: str, seed: int) -> None:
    draw = np.random.default_rng(seed)
    # Class 4 is never wanted, class 5 neither wanted nor said; class 3 is rare.
    labels = draw.choice(4, 60, p=[0.5, 0.3, 0.15, 0.05])
    outputs = draw.normal(size=(60, 6)) - [0, 0, 0, 0, 0, 100]
    outputs[np.arange(60), labels] += 1
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="y_pred contains classes not in y_true")
        expected = OF_CLASSES[name](labels, outputs.argmax(1))
    assert METRICS[name].figure(in_batches(classes, outputs, labels)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", OF_VALUES)
@pytest.mark.parametrize("outputs", [1, 3])
def test_scores_of_values_are_scikit_learns(name: str, outputs: int) -> None:
    draw = np.random.default_rng(0)
    labels = draw.normal(5, [1, 2, 3][:outputs], (60, outputs)).astype(np.float32)
    said = (labels + draw.normal(0, 0.5, labels.shape)).astype(np.float32)
    found = METRICS[name].figure(in_batches(errors, said, labels))
    assert found == pytest.approx(OF_VALUES[name](labels, said), rel=1e-6)


def test_perplexity_is_the_exponential_of_torchs_mean_in_whatever_batches() -> None:
    draw = np.random.default_rng(0)
    labels, outputs = draw.integers(0, 50, 61), draw.normal(0, 3, (61, 50))
    expected = torch.nn.functional.cross_entropy(torch.from_numpy(outputs), torch.from_numpy(labels)).exp().item()
    for size in (1, 7, 61):
        found = METRICS["perplexity"].figure(in_batches(surprise, outputs, labels, size))
        assert found == pytest.approx(expected, rel=1e-12)
    single = METRICS["perplexity"].figure(in_batches(surprise, outputs.astype(np.float32), labels))
    assert single == pytest.approx(expected, rel=1e-6)


def test_perplexity_of_a_guess_is_how_many_classes_there_are() -> None:
    assert METRICS["perplexity"].figure(surprise(torch.zeros(5, 8), torch.arange(5))) == pytest.approx(8, rel=1e-6)


def test_perplexity_of_half_precision_is_that_of_the_same_scores_in_single() -> None:
    scores = torch.randn(9, 30, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert (surprise(scores, torch.arange(9)) == surprise(scores.float(), torch.arange(9))).all()


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf, -1e9])
def test_a_perplexity_that_is_not_finite_is_not_a_number(score: float) -> None:
    scores = torch.zeros(4, 3)
    scores[1, 0] = score
    assert math.isnan(METRICS["perplexity"].figure(surprise(scores, torch.zeros(4, dtype=torch.int64))))


@pytest.mark.parametrize("off", [0.0, 1.0])
def test_r2_of_labels_that_are_all_equal_is_scikit_learns(off: float) -> None:
    labels = np.full((6, 1), 3.0)
    found = METRICS["r2"].figure(in_batches(errors, labels + off, labels))
    assert found == sklearn.r2_score(labels, labels + off) == (0.0 if off else 1.0)


def test_a_score_of_nothing_is_not_a_number() -> None:
    nothing = {classes: classes(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))}
    nothing[errors] = errors(torch.zeros(0, 1), torch.zeros(0, 1))
    nothing[surprise] = surprise(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))
    assert all(math.isnan(score.figure(nothing[score.tally])) for score in METRICS.values())


def test_labels_of_the_other_kind_are_refused() -> None:
    with pytest.raises(ValueError, match="score of classes, and the labels are values"):
        classes(torch.zeros(4, 3), torch.zeros(4))
    for labels in (torch.zeros(4), torch.zeros(4, 3, dtype=torch.int64)):
        with pytest.raises(ValueError, match="score of classes, of which each label is one"):
            surprise(torch.zeros(4, 3), labels)
    with pytest.raises(ValueError, match="score of values, and the labels are classes"):
        errors(torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64))


def test_r2_of_labels_that_are_all_equal_is_zero_whatever_rounding_leaves():
    for constant in np.random.default_rng(0).normal(size=200):
        outputs, labels = torch.full((7, 1), float(constant) + 1), torch.full((7, 1), float(constant))
        sums = METRICS["r2"].tally(outputs, labels)
        assert METRICS["r2"].figure(sums) == 0.0


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["outputs", "labels"])
@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_of_values_that_are_not_finite_there_is_no_score(value: float, where: str, spread: float) -> None:
    labels = np.full((6, 1), 3.0) + spread * np.arange(6)[:, None]
    outputs = labels.copy()
    (outputs if where == "outputs" else labels)[4] = value
    sums = in_batches(errors, outputs, labels)
    assert math.isnan(METRICS["r2"].figure(sums))
    assert not any(math.isfinite(METRICS[name].figure(sums)) for name in ("mse", "mae"))


def test_scores_that_are_no_number_say_no_class() -> None:
    """As scikit-learn has it of a class beyond those that are looked at."""
    draw = np.random.default_rng(0)
    labels, outputs = draw.integers(0, 4, 60), draw.normal(size=(60, 4))
    broken = draw.random(60) < 0.3
    outputs[broken, draw.integers(0, 4, broken.sum())] = math.nan
    said = np.where(broken, 4, outputs.argmax(1))
    each = {"labels": range(4), "average": "macro", "zero_division": 0}
    sums = in_batches(classes, outputs, labels)
    assert METRICS["macro_f1"].figure(sums) == pytest.approx(sklearn.f1_score(labels, said, **each))
    assert METRICS["mean_iou"].figure(sums) == pytest.approx(sklearn.jaccard_score(labels, said, **each))
    assert METRICS["balanced_accuracy"].figure(sums) == pytest.approx(sklearn.recall_score(labels, said, **each))
