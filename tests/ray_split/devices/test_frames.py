"""Frames of the devices' protocol: what goes in comes out, and what is none is refused."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_split.devices.frames import Frame, FrameError, decode, encode, frame, payload_bytes


def test_a_frame_is_four_bytes_a_header_and_tensors() -> None:
    values = {"x": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.array(7)}
    data = encode(frame("forward", values, id=3))
    (length,) = struct.unpack("<I", data[:4])
    assert json.loads(data[4 : 4 + length]) == {"kind": "forward", "id": 3}
    found = decode(data)
    assert (found.kind, found.header["id"], payload_bytes(found)) == ("forward", 3, 6 * 4 + 8)
    assert {name: (a.shape, a.tolist()) for name, a in found.tensors.items()} == {
        "x": ((2, 3), [[0, 1, 2], [3, 4, 5]]),
        "n": ((), 7),
    }


def test_what_lies_otherwise_in_memory_crosses_row_by_row() -> None:
    value = np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(2, 0, 1)[::2]
    assert np.array_equal(decode(encode(frame("x", {"v": value}))).tensors["v"], value)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "longer than this"),
        (b"\xff\xff\xff\xff{}", "longer than the frame"),
        (struct.pack("<I", 2) + b"{]", "not JSON"),
        (struct.pack("<I", 2) + b"[]", "no kind"),
        (struct.pack("<I", 12) + b'{"kind": 12}', "no kind"),
        (encode(frame("x")) + b"no tensors", "safetensors"),
        (encode(frame("x", {"v": np.zeros(2)})), "of type float64"),
        (encode(frame("x", {"v": np.zeros(2, np.float32)}))[:-1], "safetensors"),
    ],
    ids=str,
)
def test_what_is_no_frame_is_told_why(data: bytes, told: str) -> None:
    with pytest.raises(FrameError, match=told):
        decode(data)


RIGHT = encode(frame("loss", {"gradient": np.ones((2, 3), np.float32)}, id=5, loss=0.5, correct=1))


@settings(max_examples=500, deadline=None)
@given(data=st.one_of(st.binary(max_size=300), st.builds(
    lambda place, cut, new: RIGHT[:place] + new + RIGHT[place + cut :],
    st.integers(0, len(RIGHT)), st.integers(0, 40), st.binary(max_size=40),
)))  # fmt: skip
def test_five_hundred_malformed_frames_are_frames_or_refused(data: bytes) -> None:
    try:
        found = decode(data)
    except FrameError:
        return
    assert isinstance(found, Frame) and isinstance(found.kind, str)
