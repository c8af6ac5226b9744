"""What phones remember of a round that is over, of those who finish it. numpy alone. Shapes: K phones that finish."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ray_split import config
from ray_split.algorithms import algorithm_of
from ray_split.arrays import Array
from ray_split.messages import bits
from ray_split.messages.state import State, Terms


def after_round(
    settings: config.Config, terms: Terms, start: State, weights: State, shares: Array, length: Array
) -> Terms:
    """What each of the phones remembers now, and what that adds to what is shared, by their `shares` (K,).

    `terms` are those that they began with, `start` the state at the round's start (...), `weights` theirs now (K, ...),
    `length` (K,) the sum of the learning rates of the steps that they took.
    """
    algorithm = algorithm_of(settings.algorithm)
    assert algorithm is not None and algorithm.remember is not None
    own, change, nothing = {}, {}, np.zeros(())
    for key, before in terms.own.items():
        each = length.reshape(-1, *[1] * (before.ndim - 1))
        arrays = (before, terms.shared.get(key, nothing), bits.wide(start[key]), bits.wide(weights[key]), each)
        own[key] = np.asarray(algorithm.remember(*arrays, **settings.algorithm.kwargs), before.dtype)
        if algorithm.shares:
            change[key] = _added_up(own[key] - before, shares)
    return Terms(own, change)


def of_places(terms: Terms, places: Array) -> Terms:
    """The terms of some of the phones."""
    return terms._replace(own={key: array[places] for key, array in terms.own.items()})


def zeros(keys: Mapping[str, Array]) -> State:
    """What is remembered before there is anything: of weights in half precision it is in single."""
    return {key: np.zeros(array.shape, bits.counts_in(array.dtype)) for key, array in keys.items()}


def _added_up(rows: Array, shares: Array) -> Array:
    """Phone by phone, in their order."""
    total: Any = np.zeros(rows.shape[1:], rows.dtype)
    for row, share in zip(rows, shares, strict=True):
        total = total + row * rows.dtype.type(share)
    return np.asarray(total)
