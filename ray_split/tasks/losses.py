"""Losses by name: what they make of a model's outputs and the labels, for a phone, for a cohort, and for scores.

Shapes: n samples of one phone, k neighbours of a cohort with equally many, C classes.
To add one: an entry of LOSSES. What a loss needs to be is told by `Loss`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch.nn import functional

from ray_split.messages.labels import IGNORED


class Loss(Protocol):
    """A loss, and how its outputs are read. Raises ValueError for labels that it isn't made for."""

    def mean(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The mean over the batch (n, ...)."""

    def means(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Each phone's own mean (k,), of outputs (k, n, ...) and labels (k, n, ...)."""

    def right(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Of each sample (n,) what share is right: bool, or float64; not a number where nothing can be right."""

    def broken(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Of each sample (n,) whether nothing can be read from its outputs, as they are not finite."""

    def pairs(self, outputs: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What scores compare, of what counts: class scores (m, C) and classes (m,) or truths (m, C); or two values."""


@dataclass(frozen=True)
class CrossEntropy:
    """Cross-entropy of class scores, of which dimension `classes` of the outputs (n, ...) has one for each class.

    With `weights`, one for each class, the mean divides by the sum of the labels' weights, as torch's does. Of a batch
    whose labels are all ignored it is 0, where torch has no number. `smoothing` is torch's label_smoothing. If they are
    `mixed`, labels in training are floats (n, C), the share of each class.
    """

    classes: int
    weights: tuple[float, ...] | None = None
    smoothing: float = 0.0
    mixed: bool = False

    def mean(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """As Loss.mean."""
        if self._are_mixed(outputs, labels):
            return self._of_torch(outputs, labels.to(outputs.dtype))
        scores, wanted = self._as_torch_wants(outputs, labels)
        if bool((wanted == IGNORED).all()):
            return scores.sum() * 0.0
        return self._of_torch(scores, wanted)

    def _of_torch(self, scores: torch.Tensor, wanted: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
        weight, smoothing = self._weight(scores), self.smoothing
        return functional.cross_entropy(scores, wanted, weight, reduction=reduction, label_smoothing=smoothing)

    def _are_mixed(self, outputs: torch.Tensor, labels: torch.Tensor) -> bool:
        return self.mixed and labels.is_floating_point() and outputs.shape == labels.shape

    def means(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """As Loss.means."""
        flat, own = outputs.flatten(0, 1), labels.flatten(0, 1)
        if self._are_mixed(flat, own):
            return self._of_torch(flat, own.to(flat.dtype), "none").reshape(len(outputs), -1).mean(1)
        scores, wanted = self._as_torch_wants(flat, own)
        weight = self._weight(scores)
        values = self._of_torch(scores, wanted, "none")
        counted = (wanted != IGNORED).to(values.dtype)
        if weight is not None:
            counted = counted * weight[wanted.clamp(min=0)]
        counts = counted.reshape(len(outputs), -1).sum(1)
        return values.reshape(len(outputs), -1).sum(1) / counts.where(counts > 0, 1.0)

    def right(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """As Loss.right: of a sample with several labels the share of those that are not ignored; of mixed ones its."""
        highest, said = outputs.max(self.classes)
        if self._are_mixed(outputs, labels):
            return labels.gather(1, said[:, None])[:, 0].double() * highest.isfinite()
        right = (said == labels) & highest.isfinite()
        if right.dim() == 1:
            return right
        counted = (labels != IGNORED).flatten(1).sum(1)
        return right.flatten(1).sum(1).double() / counted.clamp(min=1)

    def broken(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """As Loss.broken, where any label of a sample counts whose scores say no class."""
        said = outputs.amax(self.classes).isfinite() | (labels == IGNORED)
        return ~_all(said)

    def pairs(self, outputs: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """As Loss.pairs, without what is ignored."""
        scores, wanted = outputs.movedim(self.classes, -1).flatten(0, -2), labels.flatten()
        return scores[wanted != IGNORED], wanted[wanted != IGNORED]

    def _as_torch_wants(self, outputs: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if labels.is_floating_point():
            raise ValueError("its labels are classes, whole numbers")
        if self.classes == 1:
            return outputs, labels
        if outputs.shape[:-1] != labels.shape:
            raise ValueError("its outputs have the labels' dimensions, and then the classes")
        return outputs.flatten(0, -2), labels.flatten()

    def _weight(self, scores: torch.Tensor) -> torch.Tensor | None:
        if self.weights is None:
            return None
        return torch.tensor(self.weights, dtype=scores.dtype, device=scores.device)


@dataclass(frozen=True)
class Distance:
    """A loss between values. Outputs (n, ..., 1) are taken as (n, ...) where the labels have no such dimension."""

    function: Callable[..., torch.Tensor]

    def mean(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """As Loss.mean."""
        return self.function(*_alike(outputs, labels))

    def means(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """As Loss.means."""
        return self.function(*_alike(outputs, labels), reduction="none").flatten(1).mean(1)

    def right(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """As Loss.right: nothing."""
        return torch.full((len(labels),), math.nan, dtype=torch.float64)

    def broken(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """As Loss.broken."""
        return ~_all(outputs.isfinite())

    def pairs(self, outputs: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """As Loss.pairs."""
        values, wanted = _alike(outputs, labels)
        return values.reshape(len(values), -1), wanted.reshape(len(wanted), -1)


@dataclass(frozen=True)
class MultiLabel:
    """Binary cross-entropy of scores (n, C), of which any number may be true: labels (n, C) of 0 and 1, as floats."""

    def mean(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """As Loss.mean, over all classes of all samples."""
        return functional.binary_cross_entropy_with_logits(*_alike(outputs, labels))

    def means(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """As Loss.means."""
        values = functional.binary_cross_entropy_with_logits(*_alike(outputs, labels), reduction="none")
        return values.flatten(1).mean(1)

    def right(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """As Loss.right: the share of a sample's classes that are said (a score above 0) just where they are true."""
        scores, wanted = _alike(outputs, labels)
        right = ((scores > 0) == (wanted > 0)) & scores.isfinite()
        return right.reshape(len(right), -1).double().mean(1)

    def broken(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """As Loss.broken."""
        return ~_all(outputs.isfinite())

    def pairs(self, outputs: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """As Loss.pairs: scores (n, C), and which classes are true, as whole numbers (n, C)."""
        scores, wanted = _alike(outputs, labels)
        return scores.reshape(len(scores), -1), wanted.reshape(len(wanted), -1).long()


def _all(flags: torch.Tensor) -> torch.Tensor:
    """Whether all of a sample's (n, ...) are."""
    return flags.flatten(1).all(1) if flags.dim() > 1 else flags


def _alike(outputs: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs and labels of the same shape: torch would broadcast (n, 1) and (n,) to (n, n). Raises ValueError."""
    if not labels.is_floating_point():
        raise ValueError("its labels are values, floats; whole numbers are classes")
    if outputs.dim() == labels.dim() + 1 and outputs.shape[-1] == 1:
        outputs = outputs.squeeze(-1)
    if outputs.shape != labels.shape:
        raise ValueError("its outputs and labels have the same shape, but for a last dimension of 1")
    return outputs, labels


Ours = CrossEntropy | Distance | MultiLabel
LOSSES: dict[str, Ours] = {
    "cross_entropy": CrossEntropy(classes=1),
    "token_cross_entropy": CrossEntropy(classes=-1),
    "binary_cross_entropy": MultiLabel(),
    "mse": Distance(functional.mse_loss),
    "l1": Distance(functional.l1_loss),
    "huber": Distance(functional.huber_loss),
}
