"""A phone's adapters, of its own rank: the first of the largest ones, which the fed server has in their order.

Shapes: K phones; r the largest rank.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ray_split.arrays import Array
from ray_split.messages.state import State
from ray_split.segments.adapters.pairs import pairs


def of_ranks(ranks: Array, state: State, own: State) -> State:
    """What is each phone's own (K, ...), with its adapters: the state's, or its own, without what its rank lacks."""
    found = dict(own)
    for a, b in pairs(state):
        for key, axis in ((a, 1), (b, 2)):
            found[key] = _cut(own.get(key, np.broadcast_to(state[key], (len(ranks), *state[key].shape))), ranks, axis)
    return found


def _cut(each: Array, ranks: Array, axis: int) -> Array:
    """Zeros in the places along an axis that are beyond each phone's rank."""
    there = np.arange(each.shape[axis]) < ranks[:, None]
    shape = [len(ranks), *[1] * (each.ndim - 1)]
    shape[axis] = each.shape[axis]
    return np.where(there.reshape(shape), each, each.dtype.type(0))


def lacking(ranks: Array, state: Mapping[str, Array]) -> Array:
    """By how many bytes (K,) a phone's state of these ranks is smaller than one of the largest."""
    per_rank, most = 0, 0
    for a, b in pairs(state):
        most = len(state[a])
        per_rank += (state[a].nbytes + state[b].nbytes) // most
    return np.asarray(per_rank * (most - ranks))
