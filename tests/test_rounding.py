"""The check of weights that differ by rounding: lets through what another CPU does, and no fault."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests import rounding
from tests.rounding import assert_close, carried


def at_a_kink() -> dict[str, Any]:
    """The gradient of a ReLU that is at zero but for rounding, which is there or not; and that of a smooth function."""
    model = nn.Linear(2, 1, bias=False)
    model.weight.data.copy_(torch.tensor([[1.0, -1.0]]))
    value = rounding.in_precision(model)(rounding.of_batch(np.ones((1, 2), np.float32)))
    (kink,) = torch.autograd.grad(torch.relu(value).sum(), model.weight, retain_graph=True)
    (smooth,) = torch.autograd.grad(torch.exp(value).sum(), model.weight)
    return {"kink": kink * 1e-5, "smooth": smooth.clone()}


def test_what_rounding_carries_is_more_at_a_kink() -> None:
    found = carried(at_a_kink)
    assert found["kink"] == pytest.approx(1e-5)
    assert 0 < found["smooth"] < 4e-6


def test_either_side_of_a_kink_is_right_and_a_fault_is_not() -> None:
    expected = at_a_kink()
    for change in (0.0, 1e-5, -1e-5):
        assert_close(at_a_kink, {**expected, "kink": expected["kink"] + change})
    for key in expected:
        with pytest.raises(AssertionError, match=f"{key} differs by 0.00099"):
            assert_close(at_a_kink, {**expected, key: expected[key] + 1e-3})
    with pytest.raises(AssertionError, match="smooth differs by"):
        assert_close(at_a_kink, {**expected, "smooth": expected["smooth"] + 1e-5})
    with pytest.raises(AssertionError, match="smooth differs by inf"):
        assert_close(at_a_kink, {**expected, "smooth": expected["smooth"] * torch.nan})
