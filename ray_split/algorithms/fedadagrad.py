"""FedAdagrad: v = v + change^2, which only grows; the rest is in adaptive.py. Without momentum, as Adagrad is.

Source: Reddi et al. 2021, https://arxiv.org/abs/2003.00295, algorithm 2; its beta_1 (0) and tau are the defaults.
"""

from __future__ import annotations

from ray_split.algorithms import adaptive
from ray_split.algorithms.server_optimizer import Memory, Step
from ray_split.arrays import Array


def fedadagrad(change: Array, memory: Memory, lr: float, beta_1: float = 0.0, tau: float = 1e-3) -> Step:
    """A step of Adagrad at the server."""
    return adaptive.step(change, memory, lr, beta_1, tau, lambda v, square: v + square)
