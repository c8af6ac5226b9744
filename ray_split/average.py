"""Weighted means of states, for numpy alone. Shares come normalised: (w * 7) / 7 is not w."""

from __future__ import annotations

import numpy as np

from ray_split.state import State


def scaled(state: State, share: float) -> State:
    """Weights and buffers times a phone's share of the round's samples; integers as they are."""
    return {
        key: np.asarray(array * array.dtype.type(share)) if np.issubdtype(array.dtype, np.floating) else array
        for key, array in state.items()
        if not key.startswith("optimizer/")
    }


def added(total: State | None, part: State) -> State:
    """The sum of two scaled states; of integers (BatchNorm's num_batches_tracked) the larger."""
    if total is None:
        return part
    return {
        key: np.asarray(array + part[key] if np.issubdtype(array.dtype, np.floating) else np.maximum(array, part[key]))
        for key, array in total.items()
    }
