"""FedDyn: each phone's loss gets a linear and a quadratic term, so that all phones' best weights become the same.

A phone minimises loss - <own, w> + alpha / 2 |w - start|^2; so its gradient is gradient - own + alpha (w - start). At
its round's end own becomes own - alpha (weights - start): its loss's gradient there, if it came to a minimum. The
server has h, which becomes h - alpha part (average - start); the next weights are average - h / alpha. What is kept
here is h / alpha, so that nothing is divided by alpha.
`part` is 1 / m times the number of phones in the paper, where all weigh the same; here phones weigh by their samples,
as in the average, and it is the share that those who finished the round have of all.
Source: Acar et al. 2021, https://arxiv.org/abs/2111.04263, algorithm 1.
"""

from __future__ import annotations

from ray_split.algorithms.algorithm import Tensors
from ray_split.algorithms.number import not_negative
from ray_split.algorithms.server_optimizer import Memory, Step
from ray_split.arrays import Array


def feddyn(
    gradients: Tensors, weights: Tensors, start: Tensors, own: Tensors, shared: Tensors, alpha: float = 0.01
) -> Tensors:
    """The gradients of the loss with both terms."""
    not_negative("algorithm.kwargs", alpha=alpha)
    return {n: gradient - own[n] + alpha * (weights[n] - start[n]) for n, gradient in gradients.items()}


def remember(own: Array, shared: Array, start: Array, weights: Array, length: Array, alpha: float = 0.01) -> Array:
    """The phones' linear terms after their round."""
    return own - alpha * (weights - start)


def follow(change: Array, memory: Memory, part: float, alpha: float = 0.01) -> Step:
    """The step from a round's start to average - h / alpha, and h / alpha."""
    h = (memory["h"] if memory else 0.0) - part * change
    return change - h, {"h": h}
