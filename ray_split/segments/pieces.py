"""A cohort's phones in pieces, where not all are to be computed in one go; and what comes out put together again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ray_split.messages import on_card
from ray_split.messages.message import ARRAYS, Groups, group_size, leaves, together, tree_map


class Piece(NamedTuple):
    """Neighbours low:high of a cohort, which are start:stop of the group with this number."""

    group: int
    low: int
    high: int
    start: int
    stop: int

    def of(self, groups: Sequence[Any]) -> Any:
        """Its phones' part of a message, or of labels."""
        return sliced(groups[self.group], self.start, self.stop)


def pieces_of(groups: Groups, most: int | None) -> list[Piece]:
    """The phones of each group, at most so many at once (None: any number)."""
    found, low = [], 0
    for number, group in enumerate(groups):
        phones = group_size(group)
        for start in range(0, phones, most or phones):
            stop = min(start + (most or phones), phones)
            found.append(Piece(number, low, low + stop - start, start, stop))
            low += stop - start
    return found


def sliced(tree: Any, start: int, stop: int) -> Any:
    """Some phones' part of a group's message; all of it as it is."""

    def some(x: Any) -> Any:
        if not isinstance(x, ARRAYS) or (start == 0 and stop >= len(x)):
            return x
        return x[start:stop]

    return tree_map(some, tree)


def joined(pieces: Sequence[Piece], trees: Sequence[Any]) -> Groups:
    """What the pieces of each group came to, as one message of the group."""
    groups: dict[int, list[Any]] = {}
    for piece, tree in zip(pieces, trees, strict=True):
        groups.setdefault(piece.group, []).append(tree)
    return [concatenated(parts) for parts in groups.values()]


def concatenated(trees: Sequence[Any]) -> Any:
    """The trees of the same structure along their leading dimension."""
    if len(trees) == 1:
        return trees[0]
    columns = zip(*(leaves(tree) for tree in trees), strict=True)
    values = iter([together(column, np.concatenate, on_card.concatenate) for column in columns])
    return tree_map(lambda _: next(values), trees[0])
