"""A frame of the devices' protocol (docs/protocol.md): a JSON header and tensors. No pickle, no torch.

| 4 bytes, little-endian | length of the header |
| so many bytes | the header |
| the rest | nothing, or tensors in the safetensors format |
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ray_split.arrays import Array

VERSION = 1
LONGEST_HEADER = 1 << 20
TYPES = (np.dtype(np.float32), np.dtype(np.int64))
_LENGTH = struct.Struct("<I")


class FrameError(ValueError):
    """Bytes that are no frame of the protocol."""


class Frame(NamedTuple):
    """One message: what it says, and the tensors that it brings."""

    header: dict[str, Any]
    tensors: dict[str, Array]

    @property
    def kind(self) -> str:
        """What it is."""
        return str(self.header["kind"])


def frame(kind: str, tensors: Mapping[str, Array] | None = None, **header: Any) -> Frame:
    """A frame of this kind."""
    return Frame({"kind": kind, **header}, dict(tensors or {}))


def encode(one: Frame) -> bytes:
    """The bytes of a frame."""
    header = json.dumps(one.header, separators=(",", ":"), allow_nan=False).encode()
    arrays = {name: np.asarray(array, order="C") for name, array in one.tensors.items()}
    return b"".join((_LENGTH.pack(len(header)), header, save(arrays) if arrays else b""))


def decode(data: bytes) -> Frame:
    """The frame of some bytes. Its arrays can be written to. Raises FrameError."""
    if len(data) < _LENGTH.size:
        raise FrameError("a frame is longer than this")
    (length,) = _LENGTH.unpack_from(data)
    start = _LENGTH.size + length
    if length > LONGEST_HEADER or start > len(data):
        raise FrameError("the header is longer than the frame")
    try:
        header = json.loads(data[_LENGTH.size : start])
    except (ValueError, RecursionError) as error:
        raise FrameError("the header is not JSON") from error
    if not isinstance(header, dict) or not isinstance(header.get("kind"), str):
        raise FrameError("the header says no kind")
    return Frame(header, _tensors(data[start:]))


def _tensors(data: bytes) -> dict[str, Array]:
    if not data:
        return {}
    try:
        found: dict[str, Array] = load(data)
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise FrameError("the tensors are not in the safetensors format") from error
    for name, array in found.items():
        if array.dtype not in TYPES:
            raise FrameError(f"tensor {name[:80]!r} is of type {array.dtype}, which no tensor here is")
    return found


def payload_bytes(one: Frame) -> int:
    """Bytes of its tensors."""
    return sum(array.nbytes for array in one.tensors.values())
