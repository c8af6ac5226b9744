"""What is learned: the loss of a batch, and how many of it came out right."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional

from ray_split import config
from ray_split.loading import find
from ray_split.state import Array

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

LOSSES: dict[str, Loss] = {"cross_entropy": functional.cross_entropy, "mse": functional.mse_loss}


class Task:
    """The loss and the figures that the settings name. Raises SettingsError.

    Shapes: n samples of one phone, k neighbours of a cohort with equally many.
    """

    def __init__(self, settings: config.Task) -> None:
        self._loss: Loss = find("task.loss", settings.loss, LOSSES)

    def loss(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The mean over the batch (n, ...)."""
        return self._loss(outputs, labels)

    def losses(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Each phone's own mean loss (k,), of outputs (k, n, ...) and labels (k, n, ...)."""
        # Ours can be told not to average; but of labels that cross_entropy ignores its mean knows, and ours would not.
        known = self._loss in LOSSES.values() and (labels.is_floating_point() or int(labels.min()) >= 0)
        if len(outputs) > 1 and known:
            flat = self._loss(outputs.flatten(0, 1), labels.flatten(0, 1), reduction="none")  # type: ignore[call-arg]
            return flat.reshape(len(outputs), -1).mean(1)
        return torch.stack([self.loss(own, wanted) for own, wanted in zip(outputs, labels, strict=True)])

    def correct(self, outputs: torch.Tensor, labels: torch.Tensor) -> int:
        """How many samples (n, ...) have their highest score at their label; 0 where labels aren't classes."""
        if labels.is_floating_point():
            return 0
        return int((outputs.argmax(1) == labels).sum())

    def corrects(self, outputs: torch.Tensor, labels: torch.Tensor) -> Array:
        """`correct` of each phone (k,)."""
        if labels.is_floating_point():
            return np.zeros(len(labels), np.int64)
        right: Array = (outputs.argmax(2) == labels).flatten(1).sum(1).cpu().numpy()
        return right
