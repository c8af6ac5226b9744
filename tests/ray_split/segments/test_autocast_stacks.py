"""Why what is under autocast is not stacked. Where this fails, torch does it now: preparation may stack it."""

from __future__ import annotations

import torch
from torch.func import vmap
from torch.nn import functional


def test_vmap_leaves_autocast_out_of_layers_with_biases() -> None:
    x, weights, biases = torch.randn(3, 8, 5), torch.randn(3, 5, 5), torch.randn(3, 5)
    with torch.autocast("cpu", torch.bfloat16):
        looped = functional.linear(x[0], weights[0], biases[0])
        stacked = vmap(functional.linear)(x, weights, biases)
    assert (looped.dtype, stacked.dtype) == (torch.bfloat16, torch.float32)
