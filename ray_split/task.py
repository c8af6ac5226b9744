"""What is learned: the loss of a batch, and how many of it came out right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from ray_split import config
from ray_split.loading import find

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
