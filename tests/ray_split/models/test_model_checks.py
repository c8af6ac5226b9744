"""Models whose copies would train something else, or whose state no checkpoint holds: one line that names the place."""

from __future__ import annotations

import itertools
import math
import random
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import ray_split as rs
from ray_split.models.registry import build
from ray_split.preparation.prepare import prepare

HERE = "tests.ray_split.models.test_model_checks"
Forward = Callable[[Any, torch.Tensor], torch.Tensor]


class Layer(nn.Module):
    """A layer whose forward and attributes a test decides."""

    def __init__(self, forward: Forward, make: Callable[[Any], Any] = lambda layer: None) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        type(self).own = forward  # type: ignore[attr-defined]
        make(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.own(x)  # type: ignore[no-any-return, attr-defined]


def layer_of(forward: Forward, make: Callable[[Any], Any] = lambda layer: None) -> nn.Module:
    return type("Odd", (Layer,), {"__module__": HERE})(forward, make)  # type: ignore[no-any-return]


def plain(self: Any, x: torch.Tensor) -> torch.Tensor:
    return self.linear(x)  # type: ignore[no-any-return]


def keep(**attributes: Any) -> Callable[[Any], None]:
    return lambda layer: vars(layer).update({name: make(layer) for name, make in attributes.items()})


class Average:
    """Called, it keeps a mean."""

    def __init__(self) -> None:
        self.value = 0.0

    def __call__(self, x: float) -> float:
        self.value = 0.9 * self.value + 0.1 * x
        return self.value


class Slots:
    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0


def averaged(self: Any, x: torch.Tensor) -> torch.Tensor:
    return self.linear(x) / (1 + self.mean(float(x.detach().abs().mean())))  # type: ignore[no-any-return]


def slotted(self: Any, x: torch.Tensor) -> torch.Tensor:
    self.slots.value = 0.9 * self.slots.value + 0.1 * float(x.detach().abs().mean())
    return self.linear(x) - self.slots.value  # type: ignore[no-any-return]


def scheduled_dropout(self: Any, x: torch.Tensor) -> torch.Tensor:
    dropped = self.drop(self.linear(x))
    if self.training:
        self.drop.p *= 0.8
    return dropped  # type: ignore[no-any-return]


def taught(self: Any, x: torch.Tensor) -> torch.Tensor:
    teacher = self.teacher[0]
    if self.training:
        with torch.no_grad():
            for own, learned in zip(teacher.parameters(), self.linear.parameters(), strict=True):
                own.lerp_(learned, 0.3)
    return self.linear(x) + teacher(x).detach()  # type: ignore[no-any-return]


class Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, factor: float) -> torch.Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        return -ctx.factor * gradients[0], None


def ramped(self: Any, x: torch.Tensor) -> torch.Tensor:
    if self.training:
        self.step += 1
    return Reversed.apply(self.linear(x), 2 / (1 + math.exp(-self.step / 4)) - 1)  # type: ignore[no-any-return]


class Noisy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        return gradients[0] + 0.05 * torch.randn_like(gradients[0])


def seldom_numpy(self: Any, x: torch.Tensor) -> torch.Tensor:
    return self.linear(x) * (float(np.random.beta(1, 1)) if torch.rand(()) < 1e-9 else 1)  # type: ignore[no-any-return]


class Helped(Layer):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scaled() * x

    def scaled(self) -> float:
        return random.random() if self.linear.bias is None else 1.0


def hooked(layer: Any) -> None:
    gain = nn.Parameter(torch.ones(8))
    layer.linear.register_parameter("gain", gain)
    layer.linear.register_forward_hook(lambda module, inputs, output: output * gain)


def views(layer: Any) -> None:
    layer.flat = nn.Parameter(torch.ones(16))
    layer.first = layer.flat[:8]


class Net(nn.Module):
    """Linear layers a, b and c; `b` may be another."""

    def __init__(self, b: nn.Module, num_classes: int = 3) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 8), b, nn.Linear(8, 8)
        self.head = nn.Linear(8, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.c(torch.relu(self.b(torch.relu(self.a(x)))))))  # type: ignore[no-any-return]


class Choosing(Net):
    """What crosses after a depends on the samples' values."""

    def __init__(self, what: str) -> None:
        super().__init__(nn.Linear(8, 8))
        self.a = layer_of(getattr(type(self), what))
        self.a.linear = nn.Linear(4, 8)

    def large(self, x: torch.Tensor) -> Any:
        return self.linear(x), (x[:, 0] > 0.7).nonzero()

    def mean(self, x: torch.Tensor) -> Any:
        return self.linear(x), x.mean() if x.mean() > 0 else None

    def packed(self, x: torch.Tensor) -> Any:
        return self.linear(x), nn.utils.rnn.pack_sequence(list(self.linear(x)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h, _ = self.a(x)
        return self.head(torch.relu(self.c(torch.relu(self.b(h)))))  # type: ignore[no-any-return]


def tied_by_memory() -> nn.Module:
    net = Net(nn.Linear(8, 8))
    net.c.weight.data = net.b.weight.data  # type: ignore[union-attr, assignment]
    return net


def refers_across() -> nn.Module:
    net = Net(layer_of(lambda self, x: self.linear(x) + x * self.other[0].bias.detach()))
    net.b.other = [net.a]  # type: ignore[assignment]
    return net


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "a lambda over its layer": (
        lambda: layer_of(lambda self, x: self.f(x), keep(f=lambda layer: lambda x: layer.linear(x))),
        "b.f holds a function or weak reference to b",
    ),
    "a weak reference": (
        lambda: layer_of(plain, keep(me=weakref.ref)), "b.me holds a function or weak reference to b",
    ),
    "a hook over a parameter": (lambda: layer_of(plain, hooked), "b.linear.a hook holds a function"),
    "a view of a parameter": (
        lambda: layer_of(lambda self, x: self.linear(x) * self.first, views), "b.flat and b.first share their memory",
    ),
    "memory of two parameters": (tied_by_memory, "b.weight and c.weight share their memory"),
    "a layer on the other side": (refers_across, "b.other refers to a, but these cuts put the two into different"),
    "an object that is called": (lambda: layer_of(averaged, keep(mean=lambda _: Average())), ".mean"),
    "an object of slots": (lambda: layer_of(slotted, keep(slots=lambda _: Slots())), ".slots"),
    "a rate that changes": (
        lambda: layer_of(scheduled_dropout, lambda layer: layer.add_module("drop", nn.Dropout(0.5))),
        "b.drop (Dropout).p",
    ),
    "a teacher in a list": (lambda: layer_of(taught, keep(teacher=lambda _: [nn.Linear(8, 8)])), ".teacher"),
    "a count of the backward's": (lambda: layer_of(ramped, keep(step=lambda _: 0)), ".step"),
    "a cycle": (
        lambda: layer_of(plain, keep(factors=lambda _: itertools.cycle([1, 2]))),
        "b (Odd).factors is an iterator, whose position can't be saved",
    ),
    "a lock": (
        lambda: layer_of(plain, keep(lock=lambda _: threading.Lock())),
        "b (Odd).lock can't be copied, but every phone trains a copy: cannot pickle",
    ),
    "noise in backward": (
        lambda: layer_of(lambda self, x: Noisy.apply(self.linear(x))), "backward draws random numbers from torch",
    ),
    "numpy, seldom": (lambda: layer_of(seldom_numpy), "which a run can't repeat"),
    "Python's random, in a method": (lambda: Helped(plain), "Helped draws random numbers from Python's random ("),
    "a sparse buffer": (
        lambda: layer_of(plain, lambda layer: layer.register_buffer("eye", torch.eye(8).to_sparse())),
        "b.eye is a sparse tensor",
    ),
    "a shape that follows from the samples": (
        lambda: Choosing("large"),
        "because the shape of its output depends on samples' values",
    ),
    "what crosses sometimes": (lambda: Choosing("mean"), "because the shape of its output depends on samples' values"),
    "a message that looks at its fields": (lambda: Choosing("packed"), "a tuple crosses there, which can't be sent"),
}  # fmt: skip


def made(kind: str, num_classes: int = 3) -> nn.Module:
    found = {**{name: make for name, (make, _) in REFUSED.items()}, **RIGHT}[kind]()
    return found if isinstance(found, Net) else Net(found, num_classes)


def settings_of(path: Path, kind: str, **sections: Any) -> rs.Config:
    return rs.Config(
        model={"name": f"{HERE}:made", "kwargs": {"kind": kind}, "cuts": "a,b"},
        data={"name": "synthetic", "kwargs": {"samples": 120, "shape": [4], "num_classes": 3}, "batch_size": 8},
        phones={"count": 3, **sections.pop("phones", {})}, cluster={"backend": "inprocess"},
        run={"storage_path": str(path), "name": "run", **sections.pop("run", {})}, **sections,
    )  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_it_is_refused_in_a_line_before_anything_starts(tmp_path: Path, kind: str) -> None:
    with pytest.raises(rs.SettingsError) as error:
        prepare(settings_of(tmp_path, kind))
    assert REFUSED[kind][1] in str(error.value) and "\n" not in str(error.value)


def drawn_by_numpy() -> nn.Module:
    def make(layer: Any) -> None:
        layer.scale = nn.Parameter(torch.tensor(np.random.randn(8) + random.random(), dtype=torch.float32))

    return layer_of(lambda self, x: self.linear(x) * self.scale, make)


RIGHT: dict[str, Callable[[], nn.Module]] = {
    "drawn by numpy": drawn_by_numpy,
    "an expanded buffer": lambda: layer_of(
        lambda self, x: self.linear(x) + self.place,
        lambda layer: layer.register_buffer("place", torch.ones(1).expand(8)),
    ),
    "an LSTM": lambda: layer_of(
        lambda self, x: self.lstm(x[:, None])[0][:, 0], lambda layer: layer.add_module("lstm", nn.LSTM(8, 8))
    ),
    "old spectral norm": lambda: nn.utils.spectral_norm(nn.Linear(8, 8)),
    "old weight norm": lambda: nn.utils.weight_norm(nn.Linear(8, 8)),
    "a bound method": lambda: layer_of(lambda self, x: self.f(x), keep(f=lambda layer: layer.linear.forward)),
    "a random state of its own": lambda: layer_of(plain, keep(draw=lambda _: np.random.default_rng(0))),
}


@pytest.mark.parametrize("kind", RIGHT)
def test_what_looks_odd_and_is_right_is_taken(tmp_path: Path, kind: str) -> None:
    prepare(settings_of(tmp_path, kind))


def test_first_weights_that_numpy_draws_follow_from_the_seed_and_its_generator_goes_on(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, "drawn by numpy").model.model_copy(update={"num_classes": 3})
    before = np.random.get_state()[1], random.getstate()
    one, other, third = build(settings, 1), build(settings, 1), build(settings, 2)
    assert torch.equal(one.b.scale, other.b.scale) and not torch.equal(one.b.scale, third.b.scale)
    assert np.array_equal(before[0], np.random.get_state()[1]) and before[1] == random.getstate()
