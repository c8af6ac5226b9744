"""MOON: a phone's representation is drawn to that of the round's start, and away from that of its own model before.

Beside a batch's loss stands mu times the mean over its samples of
-log(exp(sim(z, z_start) / T) / (exp(sim(z, z_start) / T) + exp(sim(z, z_before) / T))), where z is what the model's
last segment is given by the phone's model as it is, z_start by the model at the round's start, and z_before by the
phone's own at the end of the last round that it finished; sim is the cosine. The latter two are in eval mode, and
have no gradient. A phone that has finished none yet has the round's start for both: then there is nothing to draw it.
Source: Li et al. 2021, https://arxiv.org/abs/2103.16257, algorithm 1; `mu` and `temperature` are theirs.
"""

from __future__ import annotations

from typing import Any

from ray_split.algorithms.number import not_negative, positive
from ray_split.arrays import Array

EPSILON = 1e-8
"""What a norm is at least, as in torch's cosine_similarity."""


def contrast(z: Any, of_start: Any, of_before: Any, mu: float = 1.0, temperature: float = 0.5) -> Any:
    """What stands beside each phone's loss (K,), of representations (K, n, D): tensors."""
    from torch import logaddexp, zeros_like
    from torch.nn.functional import normalize

    not_negative("algorithm.kwargs", mu=mu)
    positive("algorithm.kwargs", temperature=temperature)
    own, start, before = (normalize(each, dim=-1, eps=EPSILON) for each in (z, of_start, of_before))
    # The difference of the cosines. Where both models are the same, its gradient is 0 to the last bit.
    further = (own * (before - start)).sum(-1) / temperature
    return mu * logaddexp(further, zeros_like(further)).mean(-1)


def remember(own: Array, shared: Array, start: Array, weights: Array, length: Array, **kwargs: float) -> Array:
    """A phone's model as it is at its round's end."""
    return weights
