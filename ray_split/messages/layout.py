"""How an array lies in memory, kept where numpy would lay it out anew: in a stack of several, and in a pickle.

A sum's last bits follow from the order of its terms in memory. What a cut sends, such as the gradient of a transposed
or of a broadcast tensor, is to lie at its receiver as it would in the model that is not cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from ray_split.arrays import Array
from ray_split.messages.trees import leaf


@leaf
class Laid(NamedTuple):
    """An array, taken apart: its values in the order of memory, each once, and where they belong."""

    values: Array  # (n,)
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in elements; 0 where the values are the same all along a dimension

    def array(self) -> Array:
        """It again; shares memory with the values. Raises ValueError if they are too few."""
        last = sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        if min(self.strides, default=0) < 0 or (0 not in self.shape and last >= len(self.values)):
            raise ValueError(f"an array {self.shape} with strides {self.strides} of {len(self.values)} values")
        size = self.values.itemsize
        return as_strided(self.values, self.shape, [stride * size for stride in self.strides], writeable=False)


def is_plain(array: Array) -> bool:
    """Whether it lies as numpy lays out a new one."""
    expected = array.itemsize
    for size, stride in zip(array.shape[::-1], array.strides[::-1], strict=True):
        if stride != expected:
            return False
        expected *= size
    return True


def laid(array: Array) -> Laid:
    """An array taken apart. Where it has gaps, or its dimensions overlap, they are closed."""
    order = sorted(range(array.ndim), key=lambda i: -array.strides[i])  # sorted keeps the order of equals
    repeated = [size > 1 and not stride for size, stride in zip(array.shape, array.strides, strict=True)]
    once = array[tuple(slice(0, 1) if each else slice(None) for each in repeated)].transpose(order)
    if once.flags.c_contiguous:
        strides = [stride // array.itemsize for stride in array.strides]
    else:
        strides = without_gaps(array.shape, order, repeated)
    return Laid(np.ascontiguousarray(once).reshape(-1), array.shape, tuple(strides))


def without_gaps(shape: Sequence[int], order: Sequence[int], repeated: Sequence[bool]) -> list[int]:
    """Strides of dimensions that lie in memory in this order, the outermost first, and close together."""
    strides, step = [0] * len(shape), 1
    for i in reversed(order):
        strides[i], step = (0, step) if repeated[i] else (step, step * shape[i])
    return strides


def stack(arrays: Sequence[Array]) -> Array:
    """Arrays of one shape and type as one, with a new first dimension: each lies in it as the first of them does."""
    if is_plain(arrays[0]):
        return np.stack(arrays)
    each = [laid(array) for array in arrays]
    first = each[0]
    if any((other.shape, other.strides) != (first.shape, first.strides) for other in each):
        return np.stack(arrays)
    values = np.stack([one.values for one in each])
    return Laid(values.reshape(-1), (len(each), *first.shape), (values.shape[1], *first.strides)).array()


def alone(array: Array) -> Array:
    """A stack of this array only; shares memory with it. `array[None]` would not be plain, and dearer to pickle."""
    return array.reshape(1, *array.shape) if is_plain(array) else array[None]


def packed(value: Any) -> Any:
    """An array that a pickle would lay out anew taken apart; anything else as it is."""
    return laid(value) if isinstance(value, np.ndarray) and not is_plain(value) else value


def unpacked(value: Any) -> Any:
    """As it was before `packed`."""
    return value.array() if isinstance(value, Laid) else value
