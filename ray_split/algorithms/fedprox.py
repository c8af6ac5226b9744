"""FedProx: a phone's loss has mu / 2 |w - start|^2 beside it, which keeps its weights near those of the round's start.

So its gradient has mu (w - start) beside it. With mu 0 it is federated averaging. Phones that take fewer steps than
others, which the paper wants for slow ones, are `phones.deadline` and `local_steps`, with any algorithm.
Source: Li et al. 2020, https://arxiv.org/abs/1812.06127, algorithm 2.
"""

from __future__ import annotations

from ray_split.algorithms.algorithm import Tensors
from ray_split.algorithms.number import not_negative


def fedprox(gradients: Tensors, weights: Tensors, start: Tensors, mu: float = 0.01) -> Tensors:
    """The gradients of the loss with the proximal term."""
    not_negative("algorithm.kwargs", mu=mu)
    return {name: gradient + mu * (weights[name] - start[name]) for name, gradient in gradients.items()}
