"""Weights that a model uses at several places: cut apart, A and C may both have one, but B can't share it with them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from ray_split.arrays import Array
from ray_split.segments.base_weight import BaseWeight

_OF_A_BASE = "_of_a_base"  # an attribute of parameters without data, which have no class of ours


class SharedWeight(NamedTuple):
    """A parameter and the places in the order of execution that use it, in ascending order."""

    bytes: int
    trained: bool
    places: tuple[int, ...]

    def stays_together(self, first: Array, second: Array | None) -> Array:
        """Whether it isn't both in B and on the phone, of cuts after these places (K,). Without second ones B is last.

        A and C are on one phone, and may both have it.
        """
        places = np.array(self.places)[:, None]
        in_b = places > first
        if second is not None:
            in_b &= places <= second
        return np.asarray(~in_b.any(axis=0) | in_b.all(axis=0))

    def in_both(self, first: Array, second: Array) -> Array:
        """Whether A and C both have it (K,)."""
        return np.asarray((self.places[0] <= first) & (self.places[-1] > second))


def shared_weights(uses: Iterable[tuple[int, torch.Tensor]]) -> list[SharedWeight]:
    """Of weights and the places that use them those that several places use, but for a frozen base's."""
    found: dict[int, tuple[torch.Tensor, set[int]]] = {}
    for place, tensor in uses:
        if isinstance(tensor, nn.Parameter) and not is_base(tensor):
            found.setdefault(id(tensor), (tensor, set()))[1].add(place)
    return [
        SharedWeight(tensor.nbytes, tensor.requires_grad, tuple(sorted(places)))
        for tensor, places in found.values()
        if len(places) > 1
    ]


def stay_together(weights: Sequence[SharedWeight], first: Array, second: Array | None) -> Array:
    """Whether all these weights stay together, of cuts after these places (K,)."""
    found = np.ones(len(first), bool)
    for weight in weights:
        found &= weight.stays_together(first, second)
    return found


def mark_base(tensor: torch.Tensor) -> None:
    """Say of a parameter without data that it stands for a frozen base's."""
    setattr(tensor, _OF_A_BASE, True)


def is_base(tensor: torch.Tensor) -> bool:
    """Whether it is a frozen base's, which every segment may read."""
    return isinstance(tensor, BaseWeight) or hasattr(tensor, _OF_A_BASE)
