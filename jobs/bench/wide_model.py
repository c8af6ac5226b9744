"""A model that computes little and sends much: for the object store's sake."""

from __future__ import annotations

from torch import nn


def wide(num_classes: int = 10) -> nn.Module:
    """Cut at 1 and 2, what crosses is 4096 numbers a sample, twice."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 4096), nn.ReLU(), nn.Linear(4096, num_classes))
