"""What FedAdagrad, FedYogi and FedAdam share: m follows the change, v its square; a step is lr m / (sqrt(v) + tau).

m = beta_1 m + (1 - beta_1) change, from 0; v from tau squared (the least that the paper begins with). There is no
correction for the zeros that m begins with.
Source: Reddi et al. 2021, https://arxiv.org/abs/2003.00295, algorithm 2.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ray_split.algorithms.number import fraction, positive
from ray_split.algorithms.server_optimizer import Memory, Step
from ray_split.arrays import Array

LR = 0.03


def step(
    change: Array, memory: Memory, lr: float, beta_1: float, tau: float, follow: Callable[[Array, Array], Array]
) -> Step:
    """The step, and m and v. `follow` makes a new v of the one before and the change's square."""
    fraction("server_optimizer.kwargs", beta_1=beta_1)
    positive("server_optimizer.kwargs", tau=tau)
    m = (1 - beta_1) * change + (beta_1 * memory["m"] if memory else 0.0)
    v = follow(memory["v"] if memory else np.full_like(change, tau**2), np.square(change))
    return lr * m / (np.sqrt(v) + tau), {"m": m, "v": v}
