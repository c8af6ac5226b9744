"""The buffers of a segment, as its forward may change them: in place, or by assigning others; its weights in eval mode.

A buffer that forward assigns (`self.centre = ...`) is another tensor from then on, of any shape and type, that may
share its memory with whatever it was made from. A state is copied into the buffers that were there at first.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import nn


class _Place(NamedTuple):
    owner: nn.Module
    name: str
    tensor: torch.Tensor

    def set(self, tensor: torch.Tensor) -> None:
        self.owner._buffers[self.name] = tensor


class Buffers:
    """Those of a module as it is now."""

    def __init__(self, module: nn.Module) -> None:
        self._first = list(_places(module))
        # torch's own layers change theirs in train mode alone, and in place.
        self._own = [place for place in self._first if not type(place.owner).__module__.startswith("torch.nn.")]
        self._weights = list(module.parameters())
        self._writes = True  # to weights in eval mode, as far as is known: nn.Embedding(max_norm=...) does

    def put_back(self) -> None:
        """In the place of what forward has assigned."""
        for place in self._first:
            place.set(place.tensor)

    def separate(self) -> None:
        """Let the next forward write into memory of its own: a graph that is pending may need what is in this."""
        copies: dict[int, torch.Tensor] = {}  # what has two names goes on having them
        for place in self._own:
            tensor = _of(place)
            place.set(copies.setdefault(id(tensor), tensor.clone()))

    def kept(self) -> list[torch.Tensor]:
        """Copies of them as they are now, for `as_before`."""
        return [_of(place).clone() for place in self._first]

    @contextmanager
    def as_before(self, kept: list[torch.Tensor]) -> Iterator[None]:
        """Let a forward be computed once more as it was, from such copies; afterwards they are what they are now."""
        now = [_of(place) for place in self._first]
        for place, tensor in zip(self._first, kept, strict=True):
            place.set(tensor)
        try:
            yield
        finally:
            for place, tensor in zip(self._first, now, strict=True):
                place.set(tensor)

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Whatever an evaluation does meanwhile, they are afterwards what they were, and so are the weights."""
        before = [(place._replace(tensor=_of(place)), _of(place).clone()) for place in self._own]
        versions = [place.tensor._version for place, _ in before]
        weights = [(weight, weight.detach().clone(), state_of(weight)) for weight in self._weights if self._writes]
        try:
            yield
        finally:
            written = [(weight, value) for weight, value, then in weights if state_of(weight) != then]
            self._writes = bool(written)
            for weight, value in written:
                weight.data.copy_(value)
            for (place, value), version in zip(before, versions, strict=True):
                place.set(place.tensor if place.tensor._version == version else value)


def state_of(weight: torch.Tensor) -> tuple[int, int]:
    """Another one after each write to a weight."""
    return weight.data_ptr(), weight._version


def _places(module: nn.Module) -> Iterator[_Place]:
    for owner in module.modules():
        for name, tensor in owner._buffers.items():
            if tensor is not None:
                yield _Place(owner, name, tensor)


def _of(place: _Place) -> torch.Tensor:
    tensor = place.owner._buffers[place.name]
    assert tensor is not None
    return tensor


def changing(module: nn.Module) -> set[str]:
    """The names of the buffers that may change in eval mode too: those of layers that aren't torch's own."""
    return {
        f"{prefix}.{name}".lstrip(".")
        for prefix, owner in module.named_modules()
        if not type(owner).__module__.startswith("torch.nn.")
        for name in owner._buffers
    }
