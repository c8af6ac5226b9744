"""SCAFFOLD: control variates, which take from a phone's gradient what is its own, and add what is everybody's.

A phone steps along gradient - own + shared. At its round's end own becomes own - shared + (start - weights) / (K lr)
(option II), after K steps: the mean of the gradients that it had. shared is the mean of all phones' own, weighted by
their samples as the weights' average is; with equally many it is the paper's.
A phone that never finished a round has zeros. Plain SGD alone: (start - weights) / (K lr) is the mean of the gradients
only where each step is lr times one. The paper's global step size is `server_optimizer` fedavgm, with momentum 0.
Source: Karimireddy et al. 2020, https://arxiv.org/abs/1910.06378, algorithm 1.
"""

from __future__ import annotations

import numpy as np

from ray_split.algorithms.algorithm import Tensors
from ray_split.arrays import Array


def scaffold(gradients: Tensors, weights: Tensors, start: Tensors, own: Tensors, shared: Tensors) -> Tensors:
    """The gradients with the control variates."""
    return {name: gradient - own[name] + shared[name] for name, gradient in gradients.items()}


def remember(own: Array, shared: Array, start: Array, weights: Array, length: Array) -> Array:
    """The phones' control variates after their round; of one that took no step, as they were."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(length > 0, own - shared + (start - weights) / length, own)
