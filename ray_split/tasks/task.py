"""What is learned: the loss of a batch, how much of it came out right, and the scores of validation and test.

Outputs are what the model returns: a tensor; or, from a model with auxiliary heads, a tuple of tensors with the main
one first, or a dict in which it is called 'out'. A head may be None. Of a dict with 'logits', as transformers' models
return it, these are the main head's, and nothing else is a head.
Shapes: n samples of one phone, k neighbours of a cohort with equally many.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ray_split import config
from ray_split.arrays import Array
from ray_split.config.user_code.plugins import find
from ray_split.errors import SettingsError
from ray_split.messages.message import leaves, row, tree_map
from ray_split.messages.report import NONFINITE
from ray_split.tasks.losses import LOSSES, CrossEntropy, Distance, Loss, MultiLabel, Ours
from ray_split.tasks.metrics import METRICS, Score

OwnLoss = Callable[[Any, torch.Tensor], torch.Tensor]
OwnScore = Callable[[Any, torch.Tensor], Any]
OURS = (CrossEntropy, Distance, MultiLabel)
ALWAYS = ("loss", "accuracy", "nonfinite")  # told of every run


class Task:
    """The loss and the scores that the settings name. Raises SettingsError.

    A loss or score of the user's is called with one batch's outputs, as they are, and gives its mean.
    """

    def __init__(self, settings: config.Task, mixed: bool = False) -> None:
        """`mixed`: training labels are the shares of classes that mixup makes of them."""
        self._loss = _loss_of(settings, mixed)
        self._scores = _scores_of(settings)
        self._auxiliary_weight = settings.auxiliary_weight

    def loss(self, outputs: Any, labels: torch.Tensor) -> torch.Tensor:
        """The mean over the batch (n, ...): the main head's, and the auxiliary heads' times auxiliary_weight."""
        if isinstance(self._loss, OURS):
            return self._of_heads(self._loss.mean, outputs, labels)
        return self._loss(outputs, labels)

    def losses(self, outputs: Any, labels: torch.Tensor, several: bool = False) -> torch.Tensor:
        """Each phone's own mean loss (k,), of outputs (k, n, ...) and labels (k, n, ...).

        `several`: added up as that of several phones is, in another order than torch's own mean: of one phone, which
        is computed apart from those beside whom it belongs.
        """
        if isinstance(self._loss, OURS) and (several or len(labels) > 1):
            return self._of_heads(self._loss.means, outputs, labels)
        return torch.stack([self.loss(row(outputs, i), own) for i, own in enumerate(labels)])

    def _of_heads(self, loss: OwnLoss, outputs: Any, labels: torch.Tensor) -> torch.Tensor:
        main, *auxiliary = heads(outputs)
        value = loss(main, labels)
        if auxiliary:
            value = value + self._auxiliary_weight * sum(loss(head, labels) for head in auxiliary)
        return value

    def correct(self, outputs: Any, labels: torch.Tensor) -> float:
        """How many samples (n, ...) have their highest score at their label; a sample with several labels counts by
        the share that do. Not a number where labels aren't classes.
        """
        found: float = self._right(outputs, labels).sum().item()
        return found

    def corrects(self, outputs: Any, labels: torch.Tensor) -> Array:
        """`correct` of each phone (k,)."""
        right = self._right(flat(outputs), labels.flatten(0, 1))
        found: Array = right.reshape(labels.shape[:2]).sum(1).cpu().numpy()
        return found

    def _right(self, outputs: Any, labels: torch.Tensor) -> torch.Tensor:
        ours = self._ours(outputs, labels)
        if ours is None:
            return torch.full((len(labels),), math.nan, dtype=torch.float64)
        return ours.right(heads(outputs)[0], labels)

    def _ours(self, outputs: Any, labels: torch.Tensor) -> Loss | None:
        """How to read what the model returned; None where a loss of the user's leaves it open."""
        if isinstance(self._loss, OURS):
            return self._loss
        return None if main_head(outputs) is None else _read_as(heads(outputs)[0], labels)

    def own_scores(self) -> dict[str, OwnScore]:
        """The metrics that are functions of the user's, by name."""
        return {name: score for name, score in self._scores.items() if not isinstance(score, Score)}

    def tallies(self, outputs: Any, labels: torch.Tensor) -> dict[str, Array]:
        """What the scores need of a batch (n, ...), to be added to that of other batches. Raises ValueError."""
        found = {NONFINITE: np.array([int(self._broken(outputs, labels).sum()), len(labels)])}
        for name, score in self._scores.items():
            key = _key(name, score)
            if isinstance(score, Score) and key not in found:
                found[key] = score.tally(*self._pairs(outputs, labels))
            elif not isinstance(score, Score):
                found[key] = np.array([float(score(outputs, labels)) * len(labels), len(labels)])
        return found

    def _broken(self, outputs: Any, labels: torch.Tensor) -> torch.Tensor:
        """Of which samples (n,) nothing can be read: of outputs of another kind those with any that is no number."""
        ours, main = self._ours(outputs, labels), main_head(outputs)
        if ours is not None and main is not None and main.dim() and len(main) == len(labels):
            return ours.broken(main, labels)
        found = torch.zeros(len(labels), dtype=torch.bool, device=labels.device)
        for leaf in leaves(outputs):
            if isinstance(leaf, torch.Tensor) and leaf.dim() and len(leaf) == len(labels):
                found |= leaf.reshape(len(leaf), math.prod(leaf.shape[1:])).isnan().any(1)
        return found

    def _pairs(self, outputs: Any, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        ours = self._ours(outputs, labels)
        if ours is None:
            raise ValueError("a score of classes or values, and of this loss the outputs are neither")
        return ours.pairs(heads(outputs)[0], labels)

    def figures(self, tallies: Mapping[str, Array]) -> dict[str, float | None]:
        """The scores by name, of tallies added up; None of no samples."""
        return {name: _figure(score, tallies.get(_key(name, score))) for name, score in self._scores.items()}


def _key(name: str, score: Score | OwnScore) -> str:
    """What a score's tally is called; several scores of ours have the same."""
    return score.tally.__name__ if isinstance(score, Score) else f"own:{name}"


def _figure(score: Score | OwnScore, sums: Array | None) -> float | None:
    if sums is None:
        return None
    value = score.figure(sums) if isinstance(score, Score) else float(sums[0] / sums[1])
    return None if math.isnan(value) else value


def heads(outputs: Any) -> list[torch.Tensor]:
    """The main head's output, and the auxiliary ones' that there are. Raises TypeError if there is no main one."""
    main = main_head(outputs)
    if main is None:
        raise TypeError(
            "a model returns a tensor, a tuple of tensors with the main one first, or a dict with 'out' or 'logits'"
        )
    others: Any = ()
    if isinstance(outputs, Mapping):  # hidden states, attentions and the like stand beside 'logits'
        others = [value for name, value in outputs.items() if name != "out"] if "out" in outputs else []
    elif isinstance(outputs, (tuple, list)):
        others = outputs[1:]
    return [main, *(value for value in others if value is not None)]


def main_head(outputs: Any) -> torch.Tensor | None:
    """The main head's output; None if there is none."""
    if isinstance(outputs, Mapping):
        outputs = outputs["out"] if "out" in outputs else outputs.get("logits")
    elif isinstance(outputs, (tuple, list)):
        outputs = next(iter(outputs), None)
    return outputs if isinstance(outputs, torch.Tensor) else None


def flat(outputs: Any) -> Any:
    """Outputs (k, n, ...) as those of k * n samples."""
    return tree_map(lambda x: x.flatten(0, min(1, x.dim() - 1)) if isinstance(x, torch.Tensor) else x, outputs)


def _read_as(outputs: torch.Tensor, labels: torch.Tensor) -> Loss | None:
    """How outputs look by their shape, as torch's losses have it."""
    if labels.is_floating_point():
        return LOSSES["mse"]
    fits = outputs.dim() == labels.dim() + 1 and outputs.movedim(1, -1).shape[:-1] == labels.shape
    return LOSSES["cross_entropy"] if fits else None


def _loss_of(settings: config.Task, mixed: bool) -> Ours | OwnLoss:
    found, weights = find("task.loss", settings.loss, LOSSES), settings.class_weights
    if not isinstance(found, CrossEntropy):
        known = " or ".join(name for name, loss in LOSSES.items() if isinstance(loss, CrossEntropy))
        if weights is not None:
            wrong = f"can't be used with task.loss {settings.loss}"
            raise SettingsError(
                "task.class_weights", weights, f"Remove task.class_weights, or set task.loss to {known}", wrong
            )
        if settings.label_smoothing:
            wrong = f"can't be used with task.loss {settings.loss}"
            allowed = f"Remove task.label_smoothing, or set task.loss to {known}"
            raise SettingsError("task.label_smoothing", settings.label_smoothing, allowed, wrong)
        return found
    if weights == "balanced":
        raise SettingsError(
            "task.class_weights", weights, "a list with a weight for each class (prepare makes one of balanced)"
        )
    own = None if weights is None else tuple(weights)
    return replace(found, weights=own, smoothing=settings.label_smoothing, mixed=mixed and found.classes == 1)


def _scores_of(settings: config.Task) -> dict[str, Score | OwnScore]:
    wanted, labels = settings.metrics or [], settings.metric_names
    if told := [label for label in labels if label in ALWAYS]:
        raise SettingsError(
            "task.metrics",
            wanted,
            f"Remove {told[0]} from the list",
            f"can't contain {told[0]}, which is always computed",
        )
    if len(set(labels)) < len(labels):
        raise SettingsError("task.metrics", wanted, "a list of different names")
    return {label: find("task.metrics", name, METRICS) for label, name in zip(labels, wanted, strict=True)}
