"""Batches of samples that are about as long (data.group_by_length), so that less padding is computed.

As the LengthGroupedSampler of transformers: an order drawn at random is cut into pieces of many batches, and each piece
is sorted by length. Here a piece has at least four batches, as phones have few samples. The batches are then put into
an order drawn at random: else each piece would begin with its longest. What doesn't fill a batch stays apart, as it
was drawn: the last batch, which data.drop_last leaves out, has samples of any length.
"""

from __future__ import annotations

import numpy as np

from ray_split import config, seeds
from ray_split.arrays import Array
from ray_split.config.user_code.by_value import spoken
from ray_split.data.types import Parts
from ray_split.errors import SettingsError

MOST, LEAST = 50, 4
"""Batches of a piece. transformers has at most 50, too, and at most a fourth of a pass."""


def lengths_of(settings: config.Config, parts: Parts) -> Array | None:
    """The lengths of the training samples (N,), if the settings want them grouped. Raises SettingsError."""
    if not settings.data.group_by_length:
        return None
    if parts.sequences is None:
        wrong = f"can't be used with {spoken(settings.data.name)}, whose samples are all of one length"
        raise SettingsError("data.group_by_length", True, "Leave it out", wrong)
    return parts.sequences.lengths


def grouped(shuffled: Array, lengths: Array, batch_size: int, entropy: list[int | Array]) -> Array:
    """Samples (phones, passes, samples) in another order within each pass, of which `lengths` (N,) says each's length.

    `entropy`: of the order of the batches, as `seeds.words` takes it.
    """
    phones, passes, samples = shuffled.shape
    batches = samples // batch_size
    if batches < 2:
        return shuffled
    full, rest = np.split(shuffled, [batches * batch_size], axis=2)
    size = batch_size * min(max(batches // LEAST, LEAST), MOST)
    pieces = np.split(full, range(size, full.shape[2], size), axis=2)
    in_batches = np.concatenate([_by_length(piece, lengths) for piece in pieces], axis=2)
    in_batches = in_batches.reshape(phones, passes, batches, batch_size)
    keys = seeds.words(entropy, np.arange(passes * batches)).reshape(phones, passes, batches, 1)
    mixed = np.take_along_axis(in_batches, keys.argsort(axis=2, kind="stable"), axis=2)
    return np.concatenate([mixed.reshape(full.shape), rest], axis=2)


def _by_length(piece: Array, lengths: Array) -> Array:
    order = lengths[piece].argsort(axis=2, kind="stable")
    return np.take_along_axis(piece, order, axis=2)
