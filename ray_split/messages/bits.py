"""Numbers that numpy has no type for: arrays of their bits, of a type whose one field is called as torch calls it.

Weights of bfloat16 cross and are kept so. What is computed with them here, and with float16 (averages, norms), is
computed in single precision: a running sum of a thousand small shares would stop growing in half of it. numpy alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Type = np.dtype[Any]

INTEGERS = {
    "bfloat16": np.int16,
    "complex32": np.int32,
    **dict.fromkeys(("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"), np.uint8),
}
TYPES: dict[str, Type] = {name: np.dtype([(name, integer)]) for name, integer in INTEGERS.items()}
BFLOAT16 = TYPES["bfloat16"]
QUIET_NAN = 0x7FC0


def name_of(dtype: Type) -> str | None:
    """How torch calls the numbers that these are the bits of; None of numpy's own types."""
    return dtype.names[0] if dtype.names else None


def counts_in(dtype: Type) -> Type:
    """The type that sums of such numbers are made in, and sent in."""
    return np.dtype(np.float32) if dtype == BFLOAT16 or dtype == np.float16 else dtype


def is_inexact(dtype: Type) -> bool:
    """Whether they are numbers with a fraction, complex ones too."""
    return dtype == BFLOAT16 or dtype.kind in "fc"


def wide(array: Array) -> Array:
    """Numbers of half precision in single precision; others as they are."""
    if array.dtype == BFLOAT16:
        return np.asarray(array.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32) if array.dtype == np.float16 else array


def narrow(array: Array, dtype: Type) -> Array:
    """An array as `dtype`, rounded to the nearest as torch does; as it is where it is of that."""
    if array.dtype == dtype:
        return array
    if dtype != BFLOAT16:
        return array.astype(dtype)
    single = np.ascontiguousarray(array, np.float32).reshape(array.shape)
    bits = single.view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(single), QUIET_NAN, rounded).astype(np.uint16).view(BFLOAT16)


def squares(rows: Array) -> Array:
    """The sum of the squares (k,) of each row of numbers (k, n), in single precision or their own if that is more."""
    if rows.dtype.kind == "c":
        return squares(rows.real) + squares(rows.imag)
    rows = wide(rows)
    with np.errstate(over="ignore", invalid="ignore"):
        found: Array = np.einsum("ij,ij->i", rows, rows)
    return found


def as_real(array: Array) -> Array:
    """Complex numbers (...) as their two parts (..., 2), those of half precision in single; others as they are."""
    return np.stack([array.real, array.imag], -1) if array.dtype.kind == "c" else wide(array)


def of_real(array: Array, dtype: Type) -> Array:
    """What `as_real` made, as `dtype`."""
    if dtype.kind != "c":
        return narrow(array, dtype)
    return np.asarray(array[..., 0] + 1j * array[..., 1], dtype)
