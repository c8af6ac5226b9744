"""Which weights of a state are an adapter's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

MARKS = (".lora_A.", ".lora_embedding_A.")


class Pair(NamedTuple):
    """The keys of an adapter's two factors, whose product B A is added to a layer's weight."""

    a: str  # (r, ...)
    b: str  # (..., r)


def pairs(keys: Iterable[str]) -> Iterator[Pair]:
    """The adapters that have their weights among these keys of a state, or of a model."""
    for key in keys:
        if any(mark in key for mark in MARKS) and not key.startswith("optimizer/"):
            yield Pair(key, key.replace(".lora_A.", ".lora_B.").replace(".lora_embedding_A.", ".lora_embedding_B."))
