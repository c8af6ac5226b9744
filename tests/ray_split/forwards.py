"""Small models whose forward does what code in the wild does outside of the values that torch.fx follows."""

from __future__ import annotations

import collections
import itertools
import random
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional

KINDS: dict[str, type[Net]] = {}
Middle = Callable[[Any, torch.Tensor], torch.Tensor]


class Net(nn.Module):
    """Linear layers a, b, c and head, for inputs (N, 1, 8, 8) and 4 classes; `middle` comes between b and c."""

    def __init__(self) -> None:
        super().__init__()
        self.flat, self.a, self.b = nn.Flatten(), nn.Linear(64, 16), nn.Linear(16, 16)
        self.c, self.head = nn.Linear(16, 16), nn.Linear(16, 4)
        self.norm, self.drop = nn.BatchNorm1d(16), nn.Dropout(0.5)
        self.scale = nn.Parameter(torch.full((16,), 0.5))
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("centre", torch.zeros(16))
        self.register_buffer("mask", torch.linspace(0.5, 1.5, 16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.relu(self.b(torch.relu(self.a(self.flat(x)))))
        return self.head(torch.relu(self.c(self.middle(h))))

    def middle(self, h: torch.Tensor) -> torch.Tensor:
        return h


def kind(middle: Middle) -> Middle:
    """A model with this in its middle."""
    KINDS[middle.__name__] = type(middle.__name__, (Net,), {"middle": middle})
    return middle


@kind
def buffer_counts(self, h):
    if self.training:
        self.seen += 1
    return h / (1 + self.seen)


@kind
def buffer_is_assigned(self, h):
    if self.training:
        self.centre = 0.9 * self.centre + 0.1 * h.detach().mean(0)
    return h - self.centre


@kind
def buffer_is_written(self, h):
    if self.training:
        self.centre.mul_(0.9).add_(h.detach().mean(0), alpha=0.1)
    return h - self.centre


@kind
def parameter_alone(self, h):
    return h * self.scale.exp() + self._parameters["scale"].exp().sum()


@kind
def parameters_in_a_loop(self, h):
    return h + sum((p**2).sum() for p in self._parameters.values()) + functional.normalize(self.scale, dim=0)


@kind
def weights_are_clamped(self, h):
    self.c.weight.data.clamp_(-0.1, 0.1)
    return h


@kind
def eval_before_its_call(self, h):
    self.norm.eval()
    return self.drop(self.norm(h))


@kind
def made_where_it_is_called(self, h):
    return nn.Dropout(0.5)(nn.ReLU()(h))


@kind
def asserts(self, h):
    assert isinstance(h, torch.Tensor) and h.ndim == 2, "rows"
    assert 0 < h.shape[1] < 100 and not h.is_complex() and h.dtype == torch.float32
    if h.dim() != 2 or h.shape[-1] != 16:
        raise ValueError("sixteen")
    if not torch.is_tensor(h):
        raise TypeError
    return h


@kind
def asks_for_a_type_in_train_mode(self, h):
    return h * 2 if self.training and isinstance(h, torch.Tensor) else h


@kind
def made_on_the_inputs_device(self, h):
    return h + torch.arange(16, device=h.device, dtype=h.dtype) + h.new_zeros(16) + torch.zeros(h.shape[0], 16)


@kind
def made_on_a_parameters_device(self, h):
    return h + torch.arange(16, device=self.scale.device) + self.scale.expand(h.shape[0], -1)


@kind
def written_by_index(self, h):
    h = h.clone()
    h[:, 0] = 0
    return h


class FrozenNorm(Net):
    """train() overridden, which also freezes."""

    def train(self, mode: bool = True) -> FrozenNorm:
        super().train(mode)
        self.norm.eval()
        self.a.requires_grad_(False)
        return self

    def middle(self, h):
        return self.drop(self.norm(h))


class _Frozen(nn.Sequential):
    def train(self, mode: bool = True) -> _Frozen:
        super().train(mode)
        self[1].eval()
        return self


class InnerFrozen(Net):
    """The same in a module that the cut b.1 opens."""

    def __init__(self) -> None:
        super().__init__()
        self.b = _Frozen(nn.Linear(16, 16), nn.BatchNorm1d(16))


class OwnEval(Net):
    """Dropout stays on: eval() overridden."""

    def eval(self) -> OwnEval:
        super().eval()
        self.drop.train()
        return self

    def middle(self, h):
        return self.drop(h)


class Mask(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.linspace(0.5, 1.5, 16))

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        return h * self.table


class MaskOnBothSides(Net):
    """Constant buffers on both sides: one used by forward, one in a layer that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.rope = Mask()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.rope(torch.relu(self.a(self.flat(x))) * self.mask)
        h = self.rope(torch.relu(self.b(h)) * self.mask.exp())
        return self.head(self.rope(self.c(h) * self.mask))


class DeviceAfterTheCut(Net):
    """The raw input's device and type, long after it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.relu(self.b(torch.relu(self.a(self.flat(x)))))
        return self.head(torch.relu(self.c(h + torch.arange(16, device=x.device, dtype=x.dtype))))


class Pair(NamedTuple):
    h: torch.Tensor
    early: torch.Tensor


class _Pairs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 16)

    def forward(self, h: torch.Tensor) -> Pair:
        return Pair(self.layer(h), h)


class NamedTupleCrosses(Net):
    def __init__(self) -> None:
        super().__init__()
        self.b = _Pairs()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = self.b(torch.relu(self.a(self.flat(x))))
        return self.head(torch.relu(self.c(found.h + found.early)))


class PlainList(Net):
    """Layers in a plain list, which train() and eval() don't reach."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = [nn.ReLU(), nn.Dropout(0.5)]

    def middle(self, h):
        return self.plain[1](self.plain[0](h))


class Parametrized(Net):
    def __init__(self) -> None:
        super().__init__()
        nn.utils.parametrizations.weight_norm(self.c)
        nn.utils.parametrizations.spectral_norm(self.b)


RIGHT = {
    **KINDS,
    **{
        each.__name__: each
        for each in (
            FrozenNorm, InnerFrozen, OwnEval, MaskOnBothSides, DeviceAfterTheCut, NamedTupleCrosses, PlainList,
            Parametrized,
        )
    },
}  # fmt: skip


class Keeping(nn.Module):
    """A layer with state in a plain place, as `how` says."""

    total: ClassVar = [0]

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.steps, self.table = how, 0, None
        self.draw, self.own, self.numbers = random.Random(0), np.random.default_rng(0), itertools.count(1)
        self.generator = torch.Generator().manual_seed(0)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        return getattr(self, self.how)(h)

    def counts(self, h):
        self.steps += 1
        return h / self.steps

    def draws(self, h):
        return h * self.draw.random()

    def draws_numpy(self, h):
        return h * float(self.own.random())

    def draws_torch(self, h):
        return h * torch.rand((), generator=self.generator)

    def next_number(self, h):
        return h / next(self.numbers)

    def of_the_class(self, h):
        self.total[0] += 1
        return h / self.total[0]

    def of_the_module(self, h):
        ALL[0] += 1
        return h / ALL[0]

    def first_mean(self, h):
        if self.table is None:
            self.table = h.detach().mean()
        return h - self.table

    def first_mean_in_eval_mode(self, h):
        return h if self.training else self.first_mean(h)

    def python(self, h):
        return h * random.random()

    def numpy(self, h):
        return h * np.random.rand()

    def caches(self, h):
        if self.table is None:
            self.table = torch.arange(16.0)
        return h + self.table

    def only_counts(self, h):
        self.steps += 1
        return h

    def stashes(self, h):
        self.table = h
        return h


ALL = collections.deque([0])


class WithLayer(Net):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def middle(self, h):
        return self.layer(h)


def checked(self, x):
    """Of a model_of: pytest rewrites the asserts of its own files."""
    first = self.a(x)
    assert first.shape[0] < 4, "at most three"
    return self.c(self.b(first))
