"""Layers of generated models, which are kept whole: each with something that layers in the wild have."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn


class Pair(NamedTuple):
    """What a layer returns."""

    first: torch.Tensor
    second: torch.Tensor


class Paired(nn.Linear):
    """Returns a named tuple."""

    def __init__(self) -> None:
        super().__init__(8, 8)

    def forward(self, h: torch.Tensor) -> Pair:
        return Pair(h, super().forward(h))


class Keyed(Paired):
    """Returns a dict."""

    def forward(self, h: torch.Tensor) -> dict[str, torch.Tensor]:  # type: ignore[override]
        return super().forward(h)._asdict()


class Nesting(Paired):
    """Returns a structure in a structure."""

    def forward(self, h: torch.Tensor) -> Any:
        pair = super().forward(h)
        return pair.first, (pair.second, {"x": pair.second.sigmoid()})


class Spectrum(nn.Linear):
    """To complex numbers."""

    def __init__(self) -> None:
        super().__init__(8, 8)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        return torch.fft.rfft(super().forward(h))


class Back(nn.Linear):
    """And back."""

    def __init__(self) -> None:
        super().__init__(8, 8)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return super().forward(torch.fft.irfft(z, n=8))


class Filter(nn.Module):
    """Its weights are complex."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.complex(torch.rand(5), torch.rand(5)))

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        return torch.fft.irfft(torch.fft.rfft(h) * self.weight, n=8)


class Centred(nn.Module):
    """Keeps a running centre by assigning its buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(8))

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.centre = 0.9 * self.centre + 0.1 * h.detach().mean((0, 1))
        return h - self.centre


class Counter(nn.Module):
    """Counts its steps in place, in a buffer."""

    def __init__(self, persistent: bool = True) -> None:
        super().__init__()
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64), persistent=persistent)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.steps += 1
        return h / (1 + 0.1 * self.steps)


class Seen(nn.Module):
    """Counts in a plain attribute, which no state has."""

    seen = 0

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        self.seen += 1
        return h / (1 + 0.1 * self.seen)


class Last(nn.Module):
    """Keeps what it saw last in a plain attribute."""

    last: torch.Tensor | None = None

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        before, self.last = self.last, h.detach().mean()
        return h if before is None else h + before


class Noise(nn.Module):
    """Draws from torch's generator."""

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        return h + 0.1 * torch.rand(h.shape, dtype=torch.float32) if self.training else h


class Frozen(nn.Module):
    """Keeps its BatchNorm in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def train(self, mode: bool = True) -> Frozen:
        super().train(mode)
        self.norm.eval()
        return self

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        return self.norm(h)


class Block(nn.Module):
    """Two layers and a skip; a model may be cut after the first."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        return h + self.second(torch.tanh(self.first(h)))


class Attention(nn.Module):
    """Scaled dot-product attention of heads."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        q, k, v = (part.unflatten(-1, (2, 4)).transpose(1, 2) for part in self.qkv(h).chunk(3, -1))
        return self.out(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


LARGEST = 0.003


def clipped(gradient: torch.Tensor) -> torch.Tensor:
    """A parameter's hook."""
    return gradient.clamp(-LARGEST, LARGEST)


def clip(parameter: torch.Tensor) -> None:
    """A hook after the gradient is there."""
    assert parameter.grad is not None
    parameter.grad.clamp_(-LARGEST, LARGEST)


class Counting(nn.Linear):
    """A hook that keeps something in its layer."""

    def __init__(self) -> None:
        super().__init__(8, 8)
        self.calls = 0
        self.weight.register_hook(self._count)

    def _count(self, gradient: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return gradient / self.calls
