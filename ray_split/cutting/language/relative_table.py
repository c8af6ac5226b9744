"""DeBERTa's table of relative positions, which every block reads (He et al. 2021, arxiv.org/abs/2006.03654).

A table that is trained is one weight in all blocks. It belongs to the segment with the first block, which sends it on
beside the hidden states; its gradient comes back as theirs does, added up in the order in which the model that was
never cut adds it up. A table of a frozen base is in each segment, and doesn't cross.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ray_split.segments.base_weight import BaseWeight

PARTS = ("rel_embeddings", "LayerNorm")
"""Of an encoder: what its table is made of."""


class Table:
    """The table of one segment's encoder: its own, or one that arrives. `low:high` of `count` are its blocks."""

    def __init__(self, encoder: nn.Module, low: int, high: int, count: int) -> None:
        parts = [part for name in PARTS if (part := getattr(encoder, name, None)) is not None]
        weights = [weight for part in parts for weight in part.parameters()]
        crosses = not all(isinstance(weight, BaseWeight) for weight in weights)
        self._own = not crosses or low == 0 < high
        self.arrives = crosses and 0 < low < count
        self.leaves = crosses and 0 < high < count
        if not self._own:
            for name in PARTS:
                setattr(encoder, name, None)

    def of(self, encoder: Any, arrived: torch.Tensor | None) -> torch.Tensor | None:
        """The table (2 * positions, features) that this segment's blocks read; None if it has no block."""
        if self._own:
            found: torch.Tensor | None = encoder.get_rel_embedding()
            return found
        return arrived


@contextmanager
def given(encoder: Any, table: torch.Tensor | None) -> Iterator[None]:
    """Within, an encoder gives its blocks this table: it would otherwise make it anew, or has none."""
    encoder.get_rel_embedding = lambda: table
    try:
        yield
    finally:
        del encoder.get_rel_embedding
