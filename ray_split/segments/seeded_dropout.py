"""Dropout whose masks are each phone's own, under vmap too: what a loop over the phones would draw."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class SeededDropout(nn.Module):
    """nn.Dropout with one generator for each phone; the same masks as nn.Dropout after torch.manual_seed."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.generators: list[torch.Generator] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Of a tensor of one phone, batched by vmap or not."""
        if not self.training or self.p == 0:
            return x
        mask: torch.Tensor = _Mask.apply(x, self)
        return x * mask

    def mask(self, like: torch.Tensor, phone: int) -> torch.Tensor:
        """The next mask of a phone; from torch's own generator where the phones have none."""
        if self.p == 1:  # of which nn.Dropout draws nothing
            return torch.zeros_like(like)
        generator = self.generators[phone] if self.generators else None
        return torch.empty_like(like).bernoulli_(1 - self.p, generator=generator).div_(1 - self.p)


class _Mask(torch.autograd.Function):
    @staticmethod
    def forward(x: torch.Tensor, dropout: SeededDropout) -> torch.Tensor:
        return dropout.mask(x, 0)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: torch.Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx: Any, _: torch.Tensor) -> tuple[None, None]:
        return None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: torch.Tensor, dropout: SeededDropout) -> tuple[torch.Tensor, int]:
        phones = x.movedim(in_dims[0], 0)  # masks are drawn in the order of memory, so each as its phone lies there
        return torch.stack([dropout.mask(phone, i) for i, phone in enumerate(phones)]), 0


def replace_dropout(module: nn.Module) -> nn.Module:
    """Put a SeededDropout in the place of every nn.Dropout; in place."""
    if type(module) is nn.Dropout:
        return SeededDropout(module.p).train(module.training)
    for name, child in list(module.named_children()):
        if (replaced := replace_dropout(child)) is not child:
            setattr(module, name, replaced)
    return module
