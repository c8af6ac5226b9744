"""What a state is: a flat dict of numpy arrays. Without torch, for the processes that need none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
State = dict[str, Array]
"""'weights/<key>', 'buffers/<key>' and 'optimizer/<parameter>/<slot>' of one segment."""

Ends = dict[str, State]
"""The states of the segments on the phone, by name: 'a' and 'c'."""


def weights(state: Mapping[str, Array]) -> State:
    """The part of a segment's state that is in the model's state dict, under its keys."""
    return {key.removeprefix("weights/"): array for key, array in state.items() if key.startswith("weights/")}


def state_bytes(state: Mapping[str, Array]) -> int:
    """Bytes of a state's arrays."""
    return sum(array.nbytes for array in state.values())
