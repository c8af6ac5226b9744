"""Whether two computations gave the same but for rounding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ray_split.arrays import Array
from ray_split.messages.message import receive_leaf, single


class Tolerance(NamedTuple):
    """What rounding may do, as shares."""

    change: float  # of an array's largest change
    value: float  # of its largest value
    all: float  # of the largest value of all arrays: some may be nothing but rounding


def different(
    expected: Mapping[str, Any], found: Mapping[str, Any], tolerance: Tolerance, before: Mapping[str, Any] | None = None
) -> str | None:
    """The name of the first value that differs, if one does.

    An array that one of them hasn't counts as zeros; what changed is told by what was there `before`, if anything.
    """
    largest = max([_largest(_plain(x)) for x in expected.values() if isinstance(x, np.ndarray)], default=0.0)
    for name in {**expected, **found}:
        one, other = expected.get(name), found.get(name)
        if not isinstance(one, np.ndarray) and not isinstance(other, np.ndarray):
            same = one is other or (type(one) is type(other) and bool(one == other))
        else:
            old = None if before is None else before.get(name)
            same = _same(one, other, old, largest, tolerance)
        if not same:
            return name
    return None


def _same(one: Any, other: Any, before: Any, largest: float, tolerance: Tolerance) -> bool:
    a = np.zeros_like(_plain(other)) if one is None else _plain(one)
    b = np.zeros_like(a) if other is None else _plain(other)
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.dtype.kind not in "fc":
        return np.array_equal(a, b)
    with np.errstate(invalid="ignore", over="ignore"):
        changed = a if before is None else a - _plain(before)
        bound = tolerance.change * _largest(changed) + tolerance.value * _largest(a) + tolerance.all * largest
        return bool(((a == b) | (np.abs(a - b) <= bound)).all())


def _plain(array: Any) -> Array:
    plain: Array = np.asarray(array)
    if plain.dtype.names:
        plain = single(receive_leaf(plain)).numpy()
    return plain


def _largest(array: Array) -> float:
    if array.dtype.kind not in "fc" or not array.size:
        return 0.0
    sizes = np.abs(array)
    return float(sizes.max(initial=0.0, where=np.isfinite(sizes)))
