"""What is learned: the loss of a batch, and how many of it came out right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from ray_split import config
from ray_split.loading import find
from ray_split.state import Array

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

LOSSES: dict[str, Loss] = {"cross_entropy": functional.cross_entropy, "mse": functional.mse_loss}


def loss_of(settings: config.Task) -> Loss:
    """The loss function: (outputs, labels) -> the mean over the batch. Raises SettingsError."""
    return find("task.loss", settings.loss, LOSSES)


def correct(outputs: Any, labels: torch.Tensor) -> int:
    """How many samples have their highest score at their label; 0 where labels aren't classes."""
    if labels.is_floating_point():
        return 0
    return int((outputs.argmax(1) == labels).sum())


def losses_of(loss: Loss, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Each phone's own mean loss (k,), of outputs (k, n, ...) and labels (k, n, ...)."""
    # Ours can be told not to average; but of labels that cross_entropy ignores its mean knows, and ours would not.
    if len(outputs) > 1 and loss in LOSSES.values() and (labels.is_floating_point() or int(labels.min()) >= 0):
        flat = loss(outputs.flatten(0, 1), labels.flatten(0, 1), reduction="none")  # type: ignore[call-arg]
        return flat.reshape(len(outputs), -1).mean(1)
    return torch.stack([loss(own, wanted) for own, wanted in zip(outputs, labels, strict=True)])


def corrects(outputs: torch.Tensor, labels: torch.Tensor) -> Array:
    """`correct` of each phone (k,)."""
    if labels.is_floating_point():
        return np.zeros(len(labels), np.int64)
    right: Array = (outputs.argmax(2) == labels).flatten(1).sum(1).cpu().numpy()
    return right
