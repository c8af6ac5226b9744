"""Gradients of stacked copies, added up over several batches: as torch adds them up in a parameter's grad.

Shapes: K phones of a cohort.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from ray_split.arrays import Array

Tensors = Mapping[str, torch.Tensor]


class Whole(NamedTuple):
    """Neighbours low:high that step, and of their weights those that have a gradient (k, ...)."""

    low: int
    high: int
    gradients: dict[str, torch.Tensor]


class Accumulated:
    """Sums of gradients since each phone's last step. A batch's neighbours may be others than the next one's."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._sums: dict[str, torch.Tensor] = {}  # (K, ...)
        self._there: dict[str, Array] = {}  # (K,) whether a phone has any

    def add(self, low: int, high: int, weights: Tensors) -> None:
        """Add the gradients of neighbours' weights (k, ...)."""
        for name, weight in weights.items():
            if weight.grad is None:
                continue
            if name not in self._sums:
                self._sums[name] = weight.new_zeros((self._count, *weight.shape[1:]))
                self._there[name] = np.zeros(self._count, bool)
            total, there = self._sums[name][low:high], self._there[name][low:high]
            # What is the first is copied: with a sum that begins with 0, -0 would be 0.
            added = torch.from_numpy(there).to(total.device).reshape(-1, *[1] * (total.dim() - 1))
            total.copy_(torch.where(added, total + weight.grad, weight.grad))
            there[:] = True

    def take(self, places: Sequence[int]) -> list[Whole]:
        """The sums of these phones, which begin anew; neighbours with gradients of the same weights are together."""
        found = []
        for low, high in self._runs(places):
            names = [name for name, there in self._there.items() if there[low]]
            found.append(Whole(low, high, {name: self._sums[name][low:high] for name in names}))
        for there in self._there.values():
            there[list(places)] = False
        return found

    def _runs(self, places: Sequence[int]) -> list[tuple[int, int]]:
        runs: list[tuple[int, int]] = []
        for place in places:
            if (
                runs
                and runs[-1][1] == place
                and all(there[place] == there[place - 1] for there in self._there.values())
            ):
                runs[-1] = runs[-1][0], place + 1
            else:
                runs.append((place, place + 1))
        return runs
