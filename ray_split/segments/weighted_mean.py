"""Weighted means of states, for numpy alone. Shares come normalised: (w * 7) / 7 is not w."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ray_split.arrays import Array
from ray_split.messages import bits
from ray_split.messages.state import State


def scaled(state: State, share: float) -> State:
    """Weights and buffers times a phone's share of the round's samples; integers as they are."""
    return {key: _times(array, share) for key, array in state.items() if not key.startswith("optimizer/")}


def _times(array: Array, share: float) -> Array:
    if not bits.is_inexact(array.dtype):
        return array
    array = bits.wide(array)
    return np.asarray(array * array.real.dtype.type(share))


def added(total: State | None, part: State) -> State:
    """The sum of two scaled states; of integers (BatchNorm's num_batches_tracked) the larger."""
    if total is None:
        return part
    return {
        key: np.asarray(array + part[key] if bits.is_inexact(array.dtype) else np.maximum(array, part[key]))
        for key, array in total.items()
    }


def averaged(states: Sequence[State], shares: Sequence[float]) -> State:
    """The mean of whole states, with their optimizers (of replicas' B, not of phones); of integers, and of optimizers'
    step counters, the largest.

    What is the same in all stays so, to the last bit. A slot that an optimizer does not have yet counts as zeros; a
    number that it remembers of a whole weight is that of the state whose optimizer has stepped the weight most often.
    """
    keys = {key: array for state in states for key, array in state.items()}
    each = {key: [state.get(key, np.zeros_like(like)) for state in states] for key, like in keys.items()}
    return {
        key: _of_most_steps(key, states) if _is_number(key, keys) else _averaged(key, arrays, shares)
        for key, arrays in each.items()
    }


def _is_number(key: str, like: State) -> bool:
    """Whether an optimizer remembers it of a weight as a whole, beside the number of steps."""
    name, _, slot = key.removeprefix("optimizer/").rpartition("/")
    if not key.startswith("optimizer/") or slot == "step":
        return False
    weight = like.get(f"weights/{name}")
    return slot in OF_STEPS or (like[key].shape == () and weight is not None and weight.shape != ())


OF_STEPS = ("mu_product",)
"""Numbers that follow from how many steps there were: not to be told by their shape where a weight is a number too."""


def _of_most_steps(key: str, states: Sequence[State]) -> Array:
    prefix = key.rpartition("/")[0]
    return max((state for state in states if key in state), key=lambda state: float(state.get(f"{prefix}/step", 0)))[
        key
    ]


def _averaged(key: str, arrays: Sequence[Array], shares: Sequence[float]) -> Array:
    first, *others = arrays
    if all(np.array_equal(first, other) for other in others):
        return first
    counts = key.startswith("optimizer/") and key.endswith("/step")
    if counts or not bits.is_inexact(first.dtype):
        return np.asarray(np.maximum.reduce(arrays))
    total = np.zeros_like(first, bits.counts_in(first.dtype))
    for array, share in zip(arrays, shares, strict=True):
        total = np.asarray(total + _times(array, share))
    return bits.narrow(total, first.dtype)
