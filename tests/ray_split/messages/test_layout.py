"""Arrays keep how they lie in memory: in a stack, in a pickle, and as a tensor's copy."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch

from ray_split.messages import layout
from ray_split.messages.message import Message, receive, row, send, stack

TENSORS = {
    "transposed": torch.randn(4, 6, 5).transpose(1, 2),
    "time first": torch.randn(4, 6, 5).permute(2, 0, 1),
    "channels last": torch.randn(3, 4, 5, 5).to(memory_format=torch.channels_last),
    "channels last, of one pixel": torch.randn(2, 8, 1, 1).to(memory_format=torch.channels_last),
    "the same for all": torch.randn(1, 4, 1).expand(3, 4, 5),
    "one value": torch.tensor(1.0).expand(3, 3),
    "bfloat16": torch.randn(4, 6, 5, dtype=torch.bfloat16).transpose(1, 2),
    "conjugated": torch.randn(4, 3, dtype=torch.complex64).t().conj(),
    "plain": torch.randn(3, 4),
    "without dimensions": torch.tensor(1.5),
}
WITH_GAPS = {
    "a slice": torch.randn(4, 8)[:, :3],
    "windows": torch.randn(9).unfold(0, 3, 1),
    "empty": torch.zeros(0, 3).t(),
}


def pickled(array: Any) -> Any:
    return pickle.loads(pickle.dumps(Message([{"x": [array]}], 1.5), protocol=5)).groups[0]["x"][0]


@pytest.mark.parametrize("name", TENSORS)
def test_a_pickle_a_stack_and_a_copy_keep_it(name: str) -> None:
    array = send(TENSORS[name])
    for kept in (pickled(array), row(stack([array, array, array]), 1), pickled(stack([array, array]))[0]):
        assert (kept.tobytes(), kept.strides, kept.dtype) == (array.tobytes(), array.strides, array.dtype)
    copied = receive(array, torch.device("cpu"))
    assert torch.equal(copied, TENSORS[name])
    assert copied.stride() == TENSORS[name].stride()


@pytest.mark.parametrize("name", WITH_GAPS)
def test_gaps_are_closed(name: str) -> None:
    array = send(WITH_GAPS[name])
    assert pickled(array).tobytes() == array.tobytes()
    assert pickled(array).flags.c_contiguous


def test_a_copy_repeats_nothing_in_memory() -> None:
    assert receive(send(TENSORS["the same for all"]), torch.device("cpu")).untyped_storage().nbytes() == 16


def test_arrays_that_lie_otherwise_are_stacked_as_numpy_does() -> None:
    one, other = np.arange(6.0).reshape(2, 3), np.arange(6.0).reshape(3, 2).T
    assert layout.stack([other, one]).tolist() == [other.tolist(), one.tolist()]


def test_values_that_are_too_few_are_refused() -> None:
    with pytest.raises(ValueError, match="of 3 values"):
        layout.Laid(np.zeros(3), (2, 2), (2, 1)).array()
