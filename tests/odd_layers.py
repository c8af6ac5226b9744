"""Layers that do in forward what is hard to do for many phones at once, of width 16; each as B, in a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional


class Layer(nn.Module):
    """A function of (layer, x) as a layer, with these buffers; with a weight, so that something is learned."""

    def __init__(self, function: Callable[[Any, torch.Tensor], torch.Tensor], **buffers: torch.Tensor) -> None:
        super().__init__()
        self.mix = nn.Linear(16, 16)
        self.function = function
        for name, buffer in buffers.items():
            self.register_buffer(name, buffer)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self, torch.relu(self.mix(x)))


def assigned(self, x):
    if self.training:
        self.centre = 0.9 * self.centre + 0.1 * x.detach().mean(0)
    return x - self.centre


def slowly(self, x):
    """What moves is used by the next step, and moves little."""
    y = x * (1 + self.centre)
    if self.training:
        self.centre = 0.9999 * self.centre + 0.0001 * x.detach().mean(0)
    return y


def in_place(self, x):
    if self.training:
        self.centre.mul_(0.9).add_(0.1 * x.detach().mean(0))
    return x - self.centre


def counted(self, x):
    if self.training:
        self.steps += 1
    return x / (1 + 0.1 * self.steps)


def counted_anew(self, x):
    if self.training:
        self.steps = self.steps + 1
    return x / (1 + 0.1 * self.steps)


def always_counted(self, x):
    """In eval mode too."""
    self.steps = self.steps + 1
    return x / (1 + 0.1 * self.steps)


def codebook(self, x):
    """A VQ-VAE's: moved by an exponential average (van den Oord et al. 2017, appendix A.1), and straight through."""
    code = torch.cdist(x.detach(), self.codes).argmin(1)
    if self.training:
        one_hot = functional.one_hot(code, len(self.codes)).to(x.dtype)
        self.sizes = 0.9 * self.sizes + 0.1 * one_hot.sum(0)
        self.sums = 0.9 * self.sums + 0.1 * one_hot.t() @ x.detach()
        self.codes = self.sums / self.sizes.clamp(min=1e-3)[:, None]
    return x + (self.codes[code] - x).detach()


def clamped(self, x):
    """Holds its weights in bounds, as EEG models do: by their data, and only where they are beyond."""
    if self.training:
        self.mix.weight.data = torch.renorm(self.mix.weight.data, 2, 0, 0.2)
    return functional.linear(x, self.mix.weight)


def branching(self, x):
    return x * 2 if x.mean() > 0.2 else x + 1


def item(self, x):
    return x / (1 + x.abs().max().item())


def in_place_on_input(self, x):
    x = x + 1
    x.mul_(2)
    x[:, 0] = 0
    return x


def own_gradient(self, x):
    if x.requires_grad:
        x.register_hook(lambda gradient: gradient * 3)
    return x * 2


def noisy(self, x):
    return x + 0.1 * torch.randn_like(x) if self.training else x


def functional_dropout(self, x):
    return functional.dropout(x, 0.3, self.training)


def path_dropped(self, x):
    """Stochastic depth: a sample's whole row."""
    kept = torch.empty(len(x), 1, device=x.device).bernoulli_(0.8)
    return x + x * kept / 0.8 if self.training else 2 * x


def mixed_up(self, x):
    return 0.8 * x + 0.2 * x[torch.randperm(len(x), device=x.device)] if self.training else x


def rarely(self, x):
    """Draws that seldom matter."""
    return torch.where(torch.rand_like(x) > 0.9999, 0, x) if self.training else x


def centred(self, x):
    return x - x.mean(0)


def cumulated(self, x):
    """The first sample is its own."""
    return x.cumsum(0) / 8


class Spectral(nn.Module):
    """A complex weight, as neural operators have it."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(16, 16)
        self.filter = nn.Parameter(torch.randn(9, dtype=torch.complex64) * 0.3 + 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.fft.irfft(torch.fft.rfft(torch.relu(self.mix(x))) * self.filter, n=16)


def _with(layer: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(16, 16), layer)


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "assigned": lambda: Layer(assigned, centre=torch.zeros(16)),
    "slowly": lambda: Layer(slowly, centre=torch.zeros(16)),
    "in_place": lambda: Layer(in_place, centre=torch.zeros(16)),
    "counted": lambda: Layer(counted, steps=torch.tensor(0)),
    "counted_anew": lambda: Layer(counted_anew, steps=torch.tensor(0.0)),
    "always_counted": lambda: Layer(always_counted, steps=torch.tensor(0)),
    "codebook": lambda: Layer(codebook, codes=torch.randn(4, 16) / 4, sizes=torch.ones(4), sums=torch.randn(4, 16) / 4),
    "clamped": lambda: Layer(clamped),
    "branching": lambda: Layer(branching),
    "item": lambda: Layer(item),
    "in_place_on_input": lambda: Layer(in_place_on_input),
    "own_gradient": lambda: Layer(own_gradient),
    "noisy": lambda: Layer(noisy),
    "functional_dropout": lambda: Layer(functional_dropout),
    "path_dropped": lambda: Layer(path_dropped),
    "mixed_up": lambda: Layer(mixed_up),
    "rarely": lambda: Layer(rarely),
    "centred": lambda: Layer(centred),
    "cumulated": lambda: Layer(cumulated),
    "spectral": Spectral,
    "dropout": lambda: _with(nn.Sequential(nn.Dropout(0.2), nn.Dropout(0.3))),
    "dropout_and_noise": lambda: nn.Sequential(nn.Dropout(0.2), Layer(noisy), nn.Dropout(0.3)),
    "dropout2d": lambda: _with(
        nn.Sequential(nn.Dropout(0.2), nn.Unflatten(1, (4, 2, 2)), nn.Dropout2d(0.3), nn.Flatten())
    ),
    "alpha_dropout": lambda: _with(nn.AlphaDropout(0.3)),
    "rrelu": lambda: _with(nn.RReLU()),
    "inplace_dropout": lambda: _with(nn.Dropout(0.3, inplace=True)),
    "spectral_norm": lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(16, 16)),
    "instance_norm": lambda: nn.Sequential(nn.Unflatten(1, (4, 4)), nn.InstanceNorm1d(4), nn.Flatten()),
    "tracked_norm": lambda: nn.Sequential(
        nn.Unflatten(1, (4, 4)), nn.InstanceNorm1d(4, track_running_stats=True), nn.Flatten()
    ),
    "batch_norm": lambda: nn.BatchNorm1d(16),
}  # fmt: skip


class Skipped(nn.Module):
    """A weight that only large batches use."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.scale = nn.Linear(16, 16), nn.Parameter(torch.ones(16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.mix(x) * self.scale if len(x) == 8 else self.mix(x)


class Warmed(nn.Module):
    """A teacher that follows after three steps."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.teacher = nn.Linear(16, 16), nn.Linear(16, 16).requires_grad_(False)
        self.register_buffer("steps", torch.tensor(0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.steps += 1
            if self.steps > 3:
                with torch.no_grad():
                    self.teacher.weight.lerp_(self.mix.weight, 0.3)
        return self.mix(x) + self.teacher(x)


def of_small_batches(self, x):
    """What torch.func.vmap can't do, in the last batch alone."""
    return self.mix(x) * (1 + 0.1 * float(x.mean())) if len(x) < 8 else self.mix(x)


class Table(nn.Module):
    """An embedding; with max_norm it is made smaller where it is looked up, in eval mode too."""

    def __init__(self, **kwargs) -> None:
        super().__init__()
        self.table = nn.Embedding(512, 16, **kwargs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.table((x.abs().sum(1) * 997).long() % 512)


class BoundedBag(nn.Module):
    """torch.func.vmap looks its rows up where each phone has a table, and not in one that all share."""

    def __init__(self) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(64, 16, max_norm=0.5, mode="sum")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.bag((x[:, :4].abs() * 37).long() % 64)


RARE: dict[str, Callable[[], nn.Module]] = {
    "skipped": Skipped, "warmed": Warmed, "of_small_batches": lambda: Layer(of_small_batches),
    "bounded": lambda: Table(max_norm=0.5), "sparse": lambda: Table(sparse=True),
    "bounded_bag": BoundedBag,
}  # fmt: skip


def model(layer: str, num_classes: int = 4, place: str = "b") -> nn.Module:
    """A layer of these as A's last, B's only or C's first; cuts a,b."""
    parts: dict[str, nn.Module] = {
        "a": nn.Sequential(nn.Flatten(), nn.Linear(64, 16)), "b": nn.Sequential(nn.Linear(16, 16), nn.ReLU()),
        "c": nn.Linear(16, num_classes),
    }  # fmt: skip
    if place == "a":
        parts["a"].append((LAYERS | RARE)[layer]())
    elif place == "b":
        parts["b"] = (LAYERS | RARE)[layer]()
    else:
        parts["c"] = nn.Sequential((LAYERS | RARE)[layer](), nn.Linear(16, num_classes))
    found = nn.Sequential()
    for name, part in parts.items():
        found.add_module(name, part)
    return found
