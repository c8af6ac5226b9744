"""FedAvgM: momentum at the server.

v = momentum v + change; the weights go on by lr v. With lr 1 and momentum 0 they are the round's average.
Source: Hsu et al. 2019, https://arxiv.org/abs/1909.06335, section 4.3 (there with lr 1).
"""

from __future__ import annotations

from ray_split.algorithms.number import fraction
from ray_split.algorithms.server_optimizer import Memory, Step
from ray_split.arrays import Array


def fedavgm(change: Array, memory: Memory, lr: float, momentum: float = 0.9) -> Step:
    """A step with momentum."""
    fraction("server_optimizer.kwargs", momentum=momentum)
    v = change + momentum * memory["v"] if memory else change
    return lr * v, {"v": v}
