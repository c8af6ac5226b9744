"""What stays on a card is laid out, counted and checked as the arrays would be. Here the card is the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import ray_split as rs
from ray_split.errors import BadPhoneError
from ray_split.messages.message import Message, as_bits, norms_of, num_bytes, send, stack, times, type_of
from ray_split.messages.message_checks import Checks
from ray_split.preparation.prepare import prepare
from ray_split.segments.pieces import concatenated

CPU = torch.device("cpu")
TENSORS = {
    "plain": torch.randn(3, 4),
    "transposed": torch.randn(4, 6, 5).transpose(1, 2),
    "time first": torch.randn(4, 6, 5).permute(2, 0, 1),
    "channels last": torch.randn(3, 4, 5, 5).to(memory_format=torch.channels_last),
    "channels last, of one pixel": torch.randn(2, 8, 1, 1).to(memory_format=torch.channels_last),
    "the same for all": torch.randn(1, 4, 1).expand(3, 4, 5),
    "a slice": torch.randn(4, 8)[:, :3],
    "bfloat16": torch.randn(4, 6, 5, dtype=torch.bfloat16).transpose(1, 2),
    "float16": torch.randn(3, 4).half(),
    "complex": torch.randn(4, 3, dtype=torch.complex64).t().conj(),
}


def assert_equal(there: torch.Tensor, array: np.ndarray) -> None:
    found = as_bits(there)
    assert (found.tobytes(), found.shape, found.dtype) == (array.tobytes(), array.shape, array.dtype)
    assert found[0].strides == array[0].strides  # a dimension of one phone may have any stride


@pytest.mark.parametrize("name", TENSORS)
def test_phones_are_stacked_and_scaled_as_arrays_are_and_lie_so(name: str) -> None:
    tensors = [TENSORS[name], TENSORS[name] * 2, TENSORS[name] * 3]
    there, here = [send(tensor, CPU) for tensor in tensors], [send(tensor) for tensor in tensors]
    assert all(isinstance(tensor, torch.Tensor) for tensor in there)
    scale = np.array([0.3, 1.0, 7.0])
    for count in (1, 3):
        stacked, as_array = stack(there[:count]), stack(here[:count])
        assert_equal(stacked, as_array)
        assert num_bytes(stacked) == num_bytes(as_array) and type_of(stacked) == as_array.dtype
        scaled, as_scaled = as_bits(times(stacked, scale[:count])), times(as_array, scale[:count])
        assert (scaled.tobytes(), scaled.shape, scaled.dtype) == (as_scaled.tobytes(), as_scaled.shape, as_scaled.dtype)
        np.testing.assert_allclose(norms_of(stacked), norms_of(as_array), rtol=1e-6)


@pytest.mark.parametrize("name", ["plain", "transposed", "channels last", "bfloat16"])
def test_pieces_are_put_together_as_arrays_are(name: str) -> None:
    tensors = [TENSORS[name], TENSORS[name][:2] * 2]
    assert_equal(concatenated([send(t, CPU) for t in tensors]), concatenated([send(t) for t in tensors]))


def test_tensors_that_lie_otherwise_are_stacked_plainly() -> None:
    one, other = torch.arange(6.0).reshape(2, 3).t(), torch.arange(6.0).reshape(3, 2)
    assert_equal(stack([one, other]), np.stack([one.numpy(), other.numpy()]))


@pytest.fixture(scope="module")
def contract() -> Any:
    settings = rs.Config(
        model={"name": "tests.nets:three_linear"},
        phones={"count": 2, "cohort": 2},
        schedule={"name": "splitfed_v1"},
        cluster={"backend": "inprocess"},
        run={"storage_path": "unused", "name": "x"},
        data={"name": "synthetic", "kwargs": {"samples": 40, "shape": [4], "num_classes": 3}, "batch_size": 6},
    )
    return prepare(settings).contract


def activation(contract: Any, values: torch.Tensor | None = None) -> Message:
    sizes = (contract.largest, contract.largest)
    ones = torch.ones(2, *contract.activation.at(contract.largest))
    return Message([ones if values is None else values], 0.0, sizes)


BOUNDS = rs.Config().phones.max_norm


def test_a_tensor_on_the_card_is_checked_as_an_array_is(contract: Any) -> None:
    checks, right = Checks(contract, BOUNDS, labels=False, staying=CPU), activation(contract)
    checks.activation((0, 1), right)
    values = right.groups[0]
    wrong = {
        "has shape": values[:, :, :1],
        "is of float64, not float32": values.double(),
        "is not finite": torch.cat([values[:1], values[1:] * torch.inf]),
    }
    for said, sent in wrong.items():
        with pytest.raises(BadPhoneError, match=said) as raised:
            checks.activation((0, 1), activation(contract, sent))
        assert raised.value.phones == ((1,) if "finite" in said else (0, 1))
    checks.expect((0, 1), right.sizes or (), [values])
    with pytest.raises(BadPhoneError, match="its gradient of hidden has shape"):
        checks.gradient((0, 1), activation(contract, values[:, :, :1]))
    checks.gradient((0, 1), right)


def test_where_nothing_stays_on_a_card_a_tensor_is_refused(contract: Any) -> None:
    checks = Checks(contract, BOUNDS, labels=False)
    with pytest.raises(BadPhoneError, match="has a Tensor where an array is expected"):
        checks.activation((0, 1), activation(contract))
