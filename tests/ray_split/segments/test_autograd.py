"""A gradient that arrives is applied the same by autograd and by fitting to auxiliary labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ray_split.messages.message import BITS, receive, send
from ray_split.segments import autograd

CPU = torch.device("cpu")
LAYERS = {
    "linear": lambda width: nn.Linear(width, width),
    "relu": lambda width: nn.ReLU(),
    "tanh": lambda width: nn.Tanh(),
    "norm": lambda width: nn.LayerNorm(width),
    "residual": lambda width: Residual(width),
}


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.relu(self.inner(x))


class Several(nn.Module):
    """Two tensors cross, of different shapes."""

    def __init__(self, body: nn.Module, width: int) -> None:
        super().__init__()
        self.body, self.other = body, nn.Linear(width, 3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.body(x), self.other(x)


architectures = st.tuples(
    st.lists(st.sampled_from(sorted(LAYERS)), min_size=1, max_size=4),
    st.integers(1, 9),  # width
    st.integers(1, 6),  # batch
    st.floats(1e-6, 1e6),  # size of the gradient
    st.integers(0, 2**31),
)


def made(architecture: tuple, dtype: torch.dtype) -> tuple[nn.Module, torch.Tensor, list[torch.Tensor]]:
    names, width, batch, size, seed = architecture
    generator = torch.manual_seed(seed)
    module = Several(nn.Sequential(nn.Linear(width, width), *(LAYERS[n](width) for n in names)), width).to(dtype)
    inputs = torch.randn(batch, width, generator=generator, dtype=dtype)
    with torch.no_grad():
        gradients = [size * torch.randn(c.shape, generator=generator, dtype=dtype) for c in module(inputs)]
    return module, inputs, gradients


def gradients_by(how: str, module: nn.Module, inputs: torch.Tensor, arrived: list[torch.Tensor]) -> list[torch.Tensor]:
    module.zero_grad()
    leaf = inputs.clone().requires_grad_()
    autograd.backward(module(leaf), tuple(send(g) for g in arrived), CPU, how)
    found = [leaf.grad, *(parameter.grad for parameter in module.parameters())]
    return [x.clone() for x in found if x is not None]


@settings(max_examples=60, deadline=None)
@given(architectures)
def test_auxiliary_labels_give_autograds_gradients_in_double_precision(architecture: tuple) -> None:
    module, inputs, arrived = made(architecture, torch.float64)
    # c - (c - g) cancels: what is left of g is as exact as c is
    size = max(1.0, max(float(g.abs().max()) for g in arrived))
    for one, other in zip(*(gradients_by(how, module, inputs, arrived) for how in autograd.BACKPROP), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6 * min(1.0, size) * 1e-3)


@settings(max_examples=60, deadline=None)
@given(architectures)
def test_in_single_precision_each_output_gets_its_gradient_within_rounding(architecture: tuple) -> None:
    module, inputs, arrived = made(architecture, torch.float32)
    outputs = [c.detach().requires_grad_() for c in module(inputs)]
    autograd.backward(tuple(outputs), tuple(send(g) for g in arrived), CPU, "auxiliary_labels")
    for c, g in zip(outputs, arrived, strict=True):
        assert c.grad is not None
        bound = torch.finfo(torch.float32).eps * torch.maximum(c.abs(), g.abs())
        assert bool(((c.grad - g).abs() <= bound).all())


@pytest.fixture
def output() -> torch.Tensor:
    return torch.randn(4, 6, generator=torch.manual_seed(0), dtype=torch.float64).requires_grad_()


@pytest.fixture
def gradient() -> torch.Tensor:
    return torch.randn(4, 6, generator=torch.manual_seed(1), dtype=torch.float64)


def fitted(c: torch.Tensor, label: torch.Tensor, mean: bool = False) -> torch.Tensor:
    squares = (label.detach() - c) ** 2 / 2
    (squares.mean() if mean else squares.sum()).backward()
    assert c.grad is not None
    return c.grad


def test_the_label_c_minus_g_gives_g(output: torch.Tensor, gradient: torch.Tensor) -> None:
    torch.testing.assert_close(fitted(output, output - gradient), gradient)


def test_the_sign_that_the_paper_prints_gives_the_opposite(output: torch.Tensor, gradient: torch.Tensor) -> None:
    torch.testing.assert_close(fitted(output, output + gradient), -gradient)


def test_a_mean_for_the_sum_gives_the_gradient_over_the_number_of_elements(
    output: torch.Tensor, gradient: torch.Tensor
) -> None:
    torch.testing.assert_close(fitted(output, output - gradient, mean=True), gradient / 24)


@pytest.mark.parametrize("how", autograd.BACKPROP)
def test_outputs_without_gradient_or_graph_are_passed_over(how: str) -> None:
    leaf = torch.ones(2, 3, requires_grad=True)
    outputs = (leaf * 2, torch.arange(3), 5, leaf.detach())
    autograd.backward(outputs, (np.full((2, 3), 4, np.float32), None, None, np.ones((2, 3), np.float32)), CPU, how)
    assert leaf.grad is not None and leaf.grad.eq(8).all()
    autograd.backward((leaf * 2,), (None,), CPU, how)
    assert leaf.grad.eq(8).all()


@pytest.mark.parametrize("how", autograd.BACKPROP)
def test_a_bfloat16_border_crosses_as_its_bits(how: str) -> None:
    leaf = torch.randn(3, 5, generator=torch.manual_seed(0), requires_grad=True)
    crossed = send((leaf * 2).bfloat16())
    assert crossed.dtype == BITS and crossed.nbytes == 2 * 15
    assert torch.equal(receive(crossed, CPU), (leaf * 2).bfloat16())
    autograd.backward((leaf * 2).bfloat16(), send(torch.full((3, 5), 0.5, dtype=torch.bfloat16)), CPU, how)
    assert leaf.grad is not None and leaf.grad.eq(1).all()
