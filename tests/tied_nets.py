"""Models whose A and C share a weight: an autoencoder that decodes with the weights that it encodes with."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional

FEATURES, WIDTH = 5, 6
CUTS = ["a_act", "b_act"]


class TiedAutoencoder(nn.Module):
    """C multiplies by A's weight, transposed. `uses`: how often A itself uses it. `own`: whether C has a bias."""

    def __init__(self, num_classes: int | None = None, uses: int = 1, own: bool = True, inner: bool = False) -> None:
        super().__init__()
        self.a = nn.Linear(FEATURES, WIDTH)
        self.a_act, self.b_act = nn.Tanh(), nn.Tanh()
        self.b = nn.Linear(WIDTH, WIDTH)
        self.out = nn.Parameter(torch.zeros(FEATURES)) if own else None
        self.uses, self.inner = uses, inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.a(x)
        for _ in range(self.uses - 1):
            h = self.a(functional.linear(torch.tanh(h), self.a.weight.t()))
        h = self.b(self.a_act(h))
        if self.inner:
            h = functional.linear(functional.linear(h, self.a.weight.t()), self.a.weight)
        found = functional.linear(self.b_act(h), self.a.weight.t())
        return found if self.out is None else found + self.out


class HeadFirst(nn.Module):
    """A model that registers its head before its embedding: the head's name is the first that the weight has."""

    def __init__(self, num_classes: int | None = None) -> None:
        super().__init__()
        self.head = nn.Linear(WIDTH, FEATURES, bias=False)
        self.embed = nn.Embedding(FEATURES, WIDTH)
        self.embed.weight = self.head.weight
        self.a_act, self.b_act = nn.LayerNorm(WIDTH), nn.Tanh()
        self.b = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.a_act(self.embed(x.abs().argmax(1)))
        return self.head(self.b_act(self.b(h)))


class HeadApart(HeadFirst):
    """The same with a head of its own."""

    def __init__(self, num_classes: int | None = None) -> None:
        super().__init__()
        self.head.weight = nn.Parameter(self.head.weight.detach().clone())


def points() -> tuple[np.ndarray, np.ndarray]:
    """Real numbers, and which of them is the largest."""
    found = np.random.default_rng(5).normal(size=(48, FEATURES)).astype(np.float32)
    return found, found.argmax(1)
