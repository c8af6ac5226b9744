"""The norm of a step's whole gradient, over all segments, as torch.nn.utils.clip_grad_norm_ has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
from torch import nn

from ray_split.arrays import Array
from ray_split.messages.message import as_bits, receive_leaf

T = TypeVar("T")


def order_of(model: nn.Module) -> list[str]:
    """The names of a model's parameters in their order, of one that has several all: a segment may call it by any."""
    places: dict[int, int] = {}
    named = dict(model.named_parameters(remove_duplicate=False))
    return sorted(named, key=lambda name: places.setdefault(id(named[name]), len(places)))


def total_norm(norms: Mapping[str, Array], order: Sequence[str]) -> Array:
    """Each phone's (k,), from those of its parameters' gradients (k,) by name; `order` is the untouched model's.

    To the bits of torch's: it takes the norm of the norms, in the parameters' order.
    """
    each = [receive_leaf(norms[name]) for name in order if name in norms]
    if not each:
        return as_bits(torch.zeros(1))
    phones = [torch.linalg.vector_norm(torch.stack([norm[i] for norm in each])) for i in range(len(each[0]))]
    return as_bits(torch.stack(phones)).copy()


def needed(norm: T | None) -> T:
    """Raises ValueError where there is none."""
    if norm is None:
        raise ValueError("gradients are clipped by the norm of all segments', and this step isn't told it")
    return norm
