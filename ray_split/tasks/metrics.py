"""Scores of validation and test, beside loss and accuracy: sums over the samples, and what is made of the sums.

The values are scikit-learn's, and the perplexity torch's, of all samples at once, in however many batches they come.
To add one: a line in METRICS. A tally takes what `Loss.pairs` gives and returns sums that can be added up.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional

from ray_split.arrays import Array


class Score(NamedTuple):
    """A score of ours: the sums that it needs, and the score of them (not a number of no samples)."""

    tally: Callable[[torch.Tensor, torch.Tensor], Array]
    figure: Callable[[Array], float]


def classes(scores: torch.Tensor, labels: torch.Tensor) -> Array:
    """Of each class how often it was right, said, and wanted (3, C), by class scores (m, C) and classes (m,).

    Scores whose highest is not finite say no class. Of truths (m, C) any number of classes is wanted, those with 1, and
    those with a score above 0 are said. Raises ValueError if the labels aren't classes.
    """
    if labels.is_floating_point():
        raise ValueError("a score of classes, and the labels are values")
    if labels.dim() == 2:
        wanted, says = labels > 0, (scores > 0) & scores.isfinite()
        return np.stack([each.sum(0).cpu().numpy() for each in (says & wanted, says, wanted)])
    count, (highest, found) = scores.shape[-1], scores.max(-1)
    says = highest.isfinite()  # argmax would take what is no number for the highest
    right, said = found[says & (found == labels)], found[says]
    return np.stack([torch.bincount(each, minlength=count).cpu().numpy() for each in (right, said, labels)])


def errors(outputs: torch.Tensor, labels: torch.Tensor) -> Array:
    """Sums (5, D) over values (n, D): how many, errors squared, errors, labels, labels squared.

    Raises ValueError if the labels aren't values.
    """
    if not labels.is_floating_point():
        raise ValueError("a score of values, and the labels are classes")
    off, wanted = (outputs.double() - labels.double()), labels.double()
    sums = [torch.ones_like(wanted), off**2, off.abs(), wanted, wanted**2]
    return torch.stack([each.sum(0) for each in sums]).cpu().numpy()


def surprise(scores: torch.Tensor, labels: torch.Tensor) -> Array:
    """Over classes (m,), the sum of their negative log-likelihoods by class scores (m, C), and how many they are (2,).

    Raises ValueError if a label isn't one class.
    """
    if labels.is_floating_point() or labels.dim() != 1:
        raise ValueError("a score of classes, of which each label is one")
    exact = scores if scores.dtype == torch.float64 else scores.float()  # else half the digits would be lost
    values = functional.cross_entropy(exact, labels, reduction="none")
    return np.array([values.double().sum().item(), len(labels)])


def macro_f1(sums: Array) -> float:
    """The mean over classes of F1, of those that were said or wanted (scikit-learn: f1_score, average='macro')."""
    right, said, wanted = sums
    there = said + wanted > 0
    return _mean(2 * right[there] / (said + wanted)[there])


def balanced_accuracy(sums: Array) -> float:
    """The mean over classes of recall, of those that were wanted (scikit-learn: balanced_accuracy_score)."""
    right, _, wanted = sums
    return _mean(right[wanted > 0] / wanted[wanted > 0])


def mean_iou(sums: Array) -> float:
    """The mean over classes of intersection over union, of those that were said or wanted (jaccard_score, macro)."""
    right, said, wanted = sums
    union = said + wanted - right
    return _mean(right[union > 0] / union[union > 0])


def perplexity(sums: Array) -> float:
    """The exponential of the mean negative log-likelihood. Not a number where that is not finite."""
    total, count = sums
    if not count:
        return math.nan
    with np.errstate(over="ignore"):
        found = float(np.exp(total / count))
    return found if math.isfinite(found) else math.nan


def mse(sums: Array) -> float:
    """Mean squared error, over samples and outputs."""
    return _mean(sums[1] / np.maximum(sums[0], 1)) if sums[0].any() else math.nan


def mae(sums: Array) -> float:
    """Mean absolute error, over samples and outputs."""
    return _mean(sums[2] / np.maximum(sums[0], 1)) if sums[0].any() else math.nan


def r2(sums: Array) -> float:
    """The share of the labels' variance that is explained, its mean over outputs (scikit-learn: r2_score).

    Of labels that are all equal 1 if they are met, else 0, as there. Not a number where any are not finite.
    """
    count, squared, _, total, of_squares = sums
    with np.errstate(invalid="ignore"):  # what isn't finite has no score, below
        spread = of_squares - total**2 / np.maximum(count, 1)
    # What is left of labels that are all equal is rounding.
    spread = np.where(spread > count * np.finfo(np.float64).eps * of_squares, spread, 0.0)
    explained = np.where(squared == 0, 1.0, 0.0)
    np.divide(squared, spread, out=(share := np.zeros_like(spread)), where=spread > 0)
    known = np.isfinite(squared) & np.isfinite(of_squares)
    return _mean(np.where(known, np.where(spread > 0, 1 - share, explained), np.nan)) if count.any() else math.nan


def _mean(values: Array) -> float:
    return float(values.mean()) if len(values) else math.nan


METRICS: dict[str, Score] = {
    "macro_f1": Score(classes, macro_f1),
    "balanced_accuracy": Score(classes, balanced_accuracy),
    "mean_iou": Score(classes, mean_iou),
    "perplexity": Score(surprise, perplexity),
    "mse": Score(errors, mse),
    "mae": Score(errors, mae),
    "r2": Score(errors, r2),
}
