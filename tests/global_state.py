"""State outside of a model, in another module than its own."""

from __future__ import annotations

import torch

COUNT = 0
CALLS = 0


def scaled(x: torch.Tensor) -> torch.Tensor:
    """Another result at each call."""
    global CALLS
    CALLS += 1
    return x * (1 + CALLS / 8)
