"""mixup: a phone's samples mixed in pairs, and their labels as much. On the phone, where labels are.

Source: Zhang et al. 2018, https://arxiv.org/abs/1710.09412: of a batch x, y, in an order drawn anew x', y', and of
lambda drawn from Beta(alpha, alpha), the batch lambda x + (1 - lambda) x', and lambda y + (1 - lambda) y'. Classes are
mixed as shares of each class, of which torch's cross-entropy is lambda CE(y) + (1 - lambda) CE(y').
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ray_split import config, seeds
from ray_split.arrays import Array
from ray_split.data.types import Parts
from ray_split.errors import SettingsError
from ray_split.messages.labels import IGNORED


class Mixup:
    """Mixes the batches of a run's phones; each draw has a seed of its own."""

    def __init__(self, alpha: float, settings: config.Config, parts: Parts) -> None:
        """Raises SettingsError for samples or labels that can't be mixed."""
        self._alpha, self._seed = alpha, settings.run.seed
        self._classes = settings.model.num_classes or parts.num_classes
        inputs, labels = parts.train
        if parts.sequences is not None:
            raise SettingsError("data.mixup", alpha, "Leave it out", "sequences of different lengths can't be mixed")
        if inputs.dtype.kind not in "f" and inputs.dtype != np.uint8:
            raise SettingsError(
                "data.mixup",
                alpha,
                "Remove data.mixup",
                f"can't be used with {settings.data.name}, whose inputs are {inputs.dtype}",
            )
        if labels.dtype.kind != "f" and (labels.ndim > 1 or self._classes is None):
            raise SettingsError(
                "data.mixup",
                alpha,
                "Remove data.mixup",
                f"can't be used with {settings.data.name}, whose labels are not one class each",
            )
        if labels.dtype.kind != "f" and (labels == IGNORED).any():
            raise SettingsError(
                "data.mixup",
                alpha,
                "Remove data.mixup",
                f"can't be used with {settings.data.name}, where some labels are ignored ({IGNORED})",
            )

    def __call__(self, round: int, phones: Array, step: int, inputs: Any, labels: Array) -> tuple[Array, Array]:
        """Inputs (k, n, ...) and labels (k, n, ...) of a step, mixed; of classes (k, n) their shares (k, n, C)."""
        wanted = labels if labels.dtype.kind == "f" else np.eye(self._classes or 0, dtype=np.float32)[labels]
        mixed = [
            self._mixed(round, phone, step, x, y) for phone, x, y in zip(phones.tolist(), inputs, wanted, strict=True)
        ]
        found, targets = zip(*mixed, strict=True)
        return np.stack(found), np.stack(targets)

    def _mixed(self, round: int, phone: int, step: int, inputs: Array, labels: Array) -> tuple[Array, Array]:
        share, order = draw(self._seed, self._alpha, round, phone, step, len(inputs))
        return _between(share, inputs, inputs[order]), _between(share, labels, labels[order])


def draw(seed: int, alpha: float, round: int, phone: int, step: int, samples: int) -> tuple[float, Array]:
    """Lambda, and the order (n,) of the samples that a phone's batch is mixed with."""
    drawn = seeds.generator(seed, "mixup", round, phone, step)
    return float(drawn.beta(alpha, alpha)), drawn.permutation(samples)


def _between(share: float, first: Array, second: Array) -> Array:
    kind = first.dtype.type
    return np.asarray(kind(share) * first + kind(1 - share) * second)
