"""Segments under torch.compile, autocast and channels_last; how large they pickle."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ray_split import config
from ray_split.cutting.cut import cut
from ray_split.messages.message import BITS, send
from ray_split.models import library
from ray_split.segments.looped_copies import LoopedCopies
from ray_split.segments.segment import Segment, call
from tests.nets import Residual
from tests.tiers import thorough

CUTS = ("blocks.0.first", "blocks.1.first")
SGD = config.Optimizer(lr=0.1)


def images(count: int = 4) -> torch.Tensor:
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def outputs(modules: list[nn.Module]) -> Any:
    value: Any = images()
    for module in modules:
        value = call(module, value)
    return value


@pytest.mark.thorough
def test_compiled_segments_compute_the_same() -> None:
    torch.manual_seed(0)
    model = Residual()
    modules = list(cut(model, CUTS).modules().values())
    compiled = [torch.compile(copy.deepcopy(module), backend="aot_eager", fullgraph=True) for module in modules]
    loss, expected = outputs(compiled).square().sum(), outputs(modules).square().sum()
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    for module, other in zip(modules, compiled, strict=True):
        for one, two in zip(module.parameters(), other.parameters(), strict=True):
            assert one.grad is not None
            torch.testing.assert_close(one.grad, two.grad)


class Cast(nn.Module):
    """A segment under autocast, as a user wraps it: what leaves it is bfloat16."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return self.module(*inputs)


@pytest.mark.parametrize("backprop", ["autograd", "auxiliary_labels"])
def test_under_autocast_the_border_is_bfloat16_and_costs_half(backprop: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 6), nn.Linear(6, 5), nn.Linear(5, 3))
    a, b = (Cast(module) for module in cut(model, ["0"]).modules().values())
    plain = cut(model, ["0"])
    copies = []
    for module in (a, b):
        made = LoopedCopies(lambda m=module: _segment(m, backprop))
        made.load(Segment(copy.deepcopy(module), SGD).state(), 2)
        copies.append(made)
    x = np.random.default_rng(0).standard_normal((2, 4, 8)).astype(np.float32)
    activation = copies[0].forward([x], [1, 2], differentiable=False)
    assert activation[0][0].dtype == BITS and activation[0][0].nbytes == 2 * 4 * 6 * 2
    hidden = copies[1].forward(activation, [1, 2])
    gradient = copies[1].backward([send(torch.ones(2, 4, 3).bfloat16())])
    assert gradient[0][0].dtype == BITS
    copies[0].backward(gradient)
    expected = plain.b(*plain.a(torch.from_numpy(x)))
    got = torch.from_numpy(hidden[0].view(np.int16)).view(torch.bfloat16).float()
    torch.testing.assert_close(got, expected.detach(), rtol=0.05, atol=0.05)
    before = copies[0].average(np.ones(2) / 2)["weights/module.0.weight"]
    copies[0].step()
    expected.sum(dim=(1, 2)).mean().backward()
    moved = before - copies[0].average(np.ones(2) / 2)["weights/module.0.weight"]
    assert plain.a.get_submodule("0").weight.grad is not None
    np.testing.assert_allclose(moved / 0.1, plain.a.get_submodule("0").weight.grad, rtol=0.05, atol=0.1)


def _segment(module: nn.Module, backprop: str) -> Segment:
    return Segment(copy.deepcopy(module), SGD, backprop=backprop)


def test_channels_last_survives_the_border() -> None:
    torch.manual_seed(0)
    model = library.lookup("resnet18").build(num_classes=10).eval()  # type: ignore[union-attr]
    images = torch.randn(2, 3, 64, 64)
    parts = [m.to(memory_format=torch.channels_last) for m in cut(model, ["maxpool", "layer4"]).modules().values()]
    segments = [Segment(part, SGD) for part in parts]
    value: Any = send(images.contiguous(memory_format=torch.channels_last))
    for segment in segments:
        value = send(segment.evaluate(value))
        if segment is not segments[-1]:
            assert value[0].strides[1] == 4  # channels lie side by side
    torch.testing.assert_close(torch.from_numpy(value), model(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["resnet50", *thorough("densenet121", "vit_b_16", "inception_v3")])
def test_a_pickled_segment_adds_little_to_its_parameters(name: str) -> None:
    with torch.device("meta"):
        model = library.lookup(name).build(num_classes=10)  # type: ignore[union-attr]
    cuts = library.cuts_of(model)
    assert cuts is not None
    whole = sum(len(pickled(child)) for child in model.children())
    parts = cut(model, cuts).modules().values()
    # Tensors on the meta device have no content: what is left is the structure.
    assert sum(len(pickled(part)) for part in parts) < 1.3 * whole + 40_000
    for part in parts:
        again = pickle.loads(pickled(part))
        assert [name for name, _ in again.named_parameters()] == [name for name, _ in part.named_parameters()]


def pickled(module: nn.Module) -> bytes:
    file = io.BytesIO()
    pickle.Pickler(file, 5).dump(module)
    return file.getvalue()
