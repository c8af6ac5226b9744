"""A segment told as layers, and made of them again, computes what the untouched model does, to the bit."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import nn

import ray_split as rs
from ray_split.cutting.cut import cut
from ray_split.devices.layers import MODULES, LayerError, describe, hash_of
from ray_split.devices.modules import KINDS, LayeredModule


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.norm(self.conv(x)) + x)


class Images(nn.Module):
    """Every layer of images that devices know."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Sequential(
            nn.Conv2d(1, 4, 3, 2, 1, groups=1), nn.GELU(), nn.MaxPool2d(2, 1, 1, ceil_mode=True), Residual(), Residual()
        )
        self.b = nn.Sequential(nn.AvgPool2d(2, 1, count_include_pad=False), nn.Sigmoid(), nn.AdaptiveAvgPool2d(2))
        self.c = nn.Sequential(nn.Flatten(), nn.LayerNorm(16), nn.Dropout(0.3), nn.Linear(16, 5), nn.Tanh())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.c(self.b(self.a(x)))
        return found


class Words(nn.Module):
    """Layers of series."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Embedding(9, 6, padding_idx=0), nn.Conv1d(7, 4, 3, dilation=2), nn.BatchNorm1d(4))
        self.b = nn.Sequential(nn.MaxPool1d(2, 1), nn.AvgPool1d(1, 1))
        self.c = nn.Sequential(nn.AdaptiveAvgPool1d(2), nn.GELU(approximate="tanh"), nn.Flatten(), nn.Linear(8, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.c(self.b(self.a(x)))
        return found


INPUTS: dict[type[nn.Module], Any] = {
    Images: torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0)),
    Words: torch.randint(0, 9, (3, 7), generator=torch.Generator().manual_seed(0)),
}


def again(segment: nn.Module) -> LayeredModule:
    """The segment, made of what is told of it as JSON."""
    told = json.loads(json.dumps(describe(segment)))
    made = LayeredModule(told, {name: tuple(x.shape) for name, x in segment.state_dict().items()})
    made.load_state_dict(segment.state_dict())
    return made


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("training", [True, False])
def test_three_segments_of_layers_are_the_untouched_model_bit_for_bit(kind: type[nn.Module], training: bool) -> None:
    torch.manual_seed(0)
    model, x = kind(), INPUTS[kind]
    segments = [again(each) for each in cut(model, ["a", "b"], x).modules().values()]
    for module in (model, *segments):
        module.train(training)
    torch.manual_seed(1)
    expected = model(x)
    torch.manual_seed(1)
    found = x
    for segment in segments:
        found = segment(found)
    assert torch.equal(found, expected)
    expected.square().sum().backward()
    found.square().sum().backward()
    gradients = {name: p.grad for segment in segments for name, p in segment.named_parameters()}
    for name, parameter in model.named_parameters():
        assert torch.equal(gradients[name], parameter.grad), name
    buffers = {name: b for segment in segments for name, b in segment.named_buffers()}
    assert all(torch.equal(buffers[name], buffer) for name, buffer in model.named_buffers())


@pytest.mark.parametrize(("name", "cuts", "shape"), [
    ("digits_cnn", ["block1", "hidden"], (2, 1, 8, 8)),
    ("mlp", ["layers.0", "layers.1"], (2, 1, 8, 8)),
    ("resnet18", ["layer1", "layer4"], (2, 3, 64, 64)),
    ("mobilenet_v3_small", ["features.0", "features.12"], (2, 3, 32, 32)),
])  # fmt: skip
def test_models_of_the_library_are_told_or_refused_by_the_layers_name(
    name: str, cuts: list[str], shape: tuple[int, ...]
) -> None:
    from ray_split.models import registry

    model = registry.build(rs.Config(model={"name": name, "num_classes": 10, "cuts": cuts}).model, 0)
    segment = cut(model, cuts).modules()["a"]
    if name.startswith("mobilenet"):
        with pytest.raises(LayerError, match=r"layer features\.0\.2 is a Hardswish"):
            describe(segment)
        return
    x = torch.randn(shape)
    (expected,) = segment.train()(x)
    assert torch.equal(again(segment).train()(x), expected)


def test_every_layer_that_is_told_can_be_made() -> None:
    torch.manual_seed(0)
    told = [layer["kind"] for kind, x in INPUTS.items() for each in cut(kind(), ["a", "b"], x).modules().values()
            for layer in describe(each)["layers"]]  # fmt: skip
    assert set(told) == {*KINDS, "add"}
    assert len(MODULES) == len(KINDS) + 1  # BatchNorm has two classes


class Twice(nn.Module):
    """Calls one layer twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.last(self.middle(torch.relu(self.first(torch.tanh(self.first(x))))))
        return found


def test_a_layer_that_is_called_twice_is_one_layer() -> None:
    model, x = Twice(), torch.randn(3, 4)
    # Cut after what comes of the second call: the first is within A.
    segment = cut(model, ["middle"], x).modules()["a"]
    made = again(segment)
    assert torch.equal(made(x), segment(x)[0])
    assert len(list(made.parameters())) == 4


class Odd(nn.Module):
    def __init__(self, scale: float | None) -> None:
        super().__init__()
        self.scale = scale
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 2)
        self.recurrent = nn.LSTM(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x) * self.scale if self.scale else self.recurrent(self.first(x))[0]
        found: torch.Tensor = self.last(torch.relu(x))
        return found


@pytest.mark.parametrize(
    ("scale", "told"), [(2.0, "devices can't compute mul"), (None, "layer odd.recurrent is a LSTM")]
)
def test_what_devices_can_not_compute_is_named(scale: float | None, told: str) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.odd, self.head = Odd(scale), nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.head(self.odd(x))
            return found

    with pytest.raises(LayerError, match=told):
        describe(cut(Model(), ["odd"], torch.randn(3, 4)).modules()["a"])


def test_layers_have_a_hash_that_follows_from_what_they_are() -> None:
    torch.manual_seed(0)
    one = describe(cut(Images(), ["a", "b"], INPUTS[Images]).modules()["a"])
    torch.manual_seed(1)
    same = describe(cut(Images(), ["a", "b"], INPUTS[Images]).modules()["a"])
    assert hash_of({"a": one}) == hash_of({"a": same})
    assert hash_of({"a": {**one, "output": "x"}}) != hash_of({"a": one})
