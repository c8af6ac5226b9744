"""Arrays as safetensors and back, those of numbers that numpy has no type for too (bits.py). numpy alone, no torch."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from safetensors import TensorSpec, deserialize, serialize

from ray_split.arrays import Array
from ray_split.messages.bits import TYPES, name_of
from ray_split.messages.state import State

NAMES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "C64": "complex64", "BOOL": "bool",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8",
    "F8_E4M3": "float8_e4m3fn", "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2": "float8_e5m2",
    "F8_E5M2FNUZ": "float8_e5m2fnuz", "F8_E8M0": "float8_e8m0fnu",
}  # fmt: skip
"""What the format calls a type, and what torch does. It has no complex128 and no complex32."""


def dump(arrays: Mapping[str, Array]) -> bytes:
    """The content of a file of these arrays. Raises ValueError for types that the format has not."""
    packed = {key: np.asarray(array, array.dtype.newbyteorder("<"), order="C") for key, array in arrays.items()}
    return bytes(serialize({key: _told(array) for key, array in packed.items()}))


def _told(array: Array) -> TensorSpec:
    name = name_of(array.dtype) or array.dtype.name
    return TensorSpec(dtype=name, shape=array.shape, data_ptr=array.ctypes.data, data_len=array.nbytes)


def load(content: bytes) -> State:
    """The arrays in a file. Raises ValueError or KeyError if it is none, or of types unknown here."""
    found = {}
    for key, told in deserialize(content):  # type: ignore[no-untyped-call]
        name = NAMES[told["dtype"]]
        found[key] = np.frombuffer(told["data"], TYPES.get(name, name)).reshape(told["shape"])
    return found
