"""FedAdam: v = beta_2 v + (1 - beta_2) change^2, a moving average; the rest is in adaptive.py.

Source: Reddi et al. 2021, https://arxiv.org/abs/2003.00295, algorithm 2; its beta_1, beta_2 and tau are the defaults.
"""

from __future__ import annotations

from ray_split.algorithms import adaptive
from ray_split.algorithms.number import fraction
from ray_split.algorithms.server_optimizer import Memory, Step
from ray_split.arrays import Array


def fedadam(
    change: Array, memory: Memory, lr: float, beta_1: float = 0.9, beta_2: float = 0.99, tau: float = 1e-3
) -> Step:
    """A step of Adam at the server."""
    fraction("server_optimizer.kwargs", beta_2=beta_2)
    return adaptive.step(change, memory, lr, beta_1, tau, lambda v, square: beta_2 * v + (1 - beta_2) * square)
