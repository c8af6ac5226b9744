"""Hostile phones, to measure what they do: their gradients are multiplied by a number. Which ones, the seed decides."""

from __future__ import annotations

import numpy as np

from ray_split import config, seeds
from ray_split.arrays import Array


def hostile(settings: config.Config) -> tuple[int, ...]:
    """The hostile phones. More of them are the same ones, and others."""
    phones = settings.phones
    count = phones.hostile if isinstance(phones.hostile, int) else round(phones.hostile * phones.count)
    order = seeds.generator(settings.run.seed, "hostile").permutation(phones.count)
    return tuple(sorted(order[:count].tolist()))


def scales(settings: config.Config) -> Array | None:
    """What each phone multiplies its gradients by, (phones,); none if nobody is hostile."""
    chosen = hostile(settings)
    if not chosen:
        return None
    found = np.ones(settings.phones.count)
    found[list(chosen)] = settings.phones.hostile_scale
    return found
