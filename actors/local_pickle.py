"""What crosses between actors of one process: pickled, but for tensors on a card that both sides compute on.

Those are handed over as they are: the receiver looks at the sender's memory. As nobody writes to what arrived, nobody
finds out: a segment works on a copy of its own, which is made on the card.
"""

from __future__ import annotations

import io
import pickle
from typing import Any, NamedTuple

import torch

from ray_split.messages import on_card


class Pickled(NamedTuple):
    """A value: pickled, and the tensors that are beside it."""

    content: bytes
    tensors: list[torch.Tensor]


def dump(value: Any, card: torch.device | None) -> Pickled | bytes:
    """A value to be loaded; tensors on `card` are not copied."""
    if card is None:
        return pickle.dumps(value, 5)
    tensors: list[torch.Tensor] = []
    file = io.BytesIO()
    _Pickler(file, card, tensors).dump(value)
    return Pickled(file.getvalue(), tensors)


def load(dumped: Pickled | bytes) -> Any:
    """What was dumped, a fresh copy each time, but for tensors on the card."""
    return pickle.loads(dumped) if isinstance(dumped, bytes) else _Unpickler(dumped).load()


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, card: torch.device, tensors: list[torch.Tensor]) -> None:
        super().__init__(file, 5)
        self._card, self._tensors = card, tensors

    def persistent_id(self, value: Any) -> int | None:
        """The number of a tensor that is not pickled."""
        if not isinstance(value, torch.Tensor) or not on_card.stays(value, self._card):
            return None
        self._tensors.append(value.detach())
        return len(self._tensors) - 1


class _Unpickler(pickle.Unpickler):
    def __init__(self, dumped: Pickled) -> None:
        super().__init__(io.BytesIO(dumped.content))
        self._tensors = dumped.tensors

    def persistent_load(self, number: int) -> torch.Tensor:
        """The tensor of this number."""
        return self._tensors[number]
