"""Data to try a task with: learnable, made from a seed, and no download.

Each returns (inputs, labels) of `samples`, of which a fifth becomes the test part.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ray_split import seeds
from ray_split.arrays import Array
from ray_split.errors import SettingsError
from ray_split.memory_limit import check_fits
from ray_split.messages.labels import IGNORED

LOUDEST = 1e18


def regression(samples: int = 2000, inputs: int = 64, noise: float = 0.1, seed: int = 0) -> tuple[Array, Array]:
    """A value (N,) of inputs (N, inputs), all of mean 0 and variance about 1: what a random network makes of them.

    Its tanh of 4 random directions, added up, with normal noise. Raises SettingsError.
    """
    _check(samples=samples, inputs=inputs, noise=noise, seed=seed)
    check_fits("data.kwargs", {"samples": samples, "inputs": inputs}, 4 * (samples + 4) * inputs)
    draw = seeds.generator(seed, "taskset", 0)
    x = draw.standard_normal((samples, inputs), dtype=np.float32)
    directions = draw.standard_normal((inputs, 4), dtype=np.float32) / np.float32(np.sqrt(inputs))
    y = np.tanh(x @ directions).sum(1) * 0.8 + noise * draw.standard_normal(samples)
    return x, y.astype(np.float32)


def segmentation(samples: int = 500, size: int = 16, noise: float = 0.3, seed: int = 0) -> tuple[Array, Array]:
    """Images (N, 1, size, size) of a bright disc and a dark square on grey, with normal noise; and which is where.

    Labels (N, size, size): 0 ground, 1 disc, 2 square, which lies above the disc. Raises SettingsError.
    """
    _check(samples=samples, size=size, noise=noise, seed=seed)
    check_fits("data.kwargs", {"samples": samples, "size": size}, (8 + 8 + 4) * samples * size**2)
    draw = seeds.generator(seed, "taskset", 1)
    rows, columns = np.mgrid[:size, :size]
    labels = np.zeros((samples, size, size), np.int64)
    for label in (1, 2):
        y, x = draw.integers(0, size, (2, samples, 1, 1))
        radius = draw.uniform(size / 8, size / 4, (samples, 1, 1))
        down, across = np.abs(rows - y), np.abs(columns - x)
        inside = down**2 + across**2 <= radius**2 if label == 1 else np.maximum(down, across) <= radius
        labels[inside] = label
    brightness = np.array([0.0, 1.0, -1.0], np.float32)
    images = brightness[labels] + noise * draw.standard_normal(labels.shape)
    return images[:, None].astype(np.float32), labels


def tokens(samples: int = 1000, length: int = 16, vocabulary: int = 32, seed: int = 0) -> tuple[Array, Array]:
    """Sentences (N, length) of tokens, and a class of 4 for each: by the token, and whether token 1 came before it.

    Sentences are half as long at least, and padded with token 0, whose label is ignored. Raises SettingsError.
    """
    _check(samples=samples, length=length, vocabulary=vocabulary, seed=seed)
    given = {"samples": samples, "length": length, "vocabulary": vocabulary}
    check_fits("data.kwargs", given, 4 * 8 * samples * length + 8 * vocabulary)
    if vocabulary < 4:
        raise SettingsError("data.kwargs", {"vocabulary": vocabulary}, "a vocabulary of 4 or more")
    draw = seeds.generator(seed, "taskset", 2)
    kind = draw.permutation(vocabulary) % 2
    found = draw.integers(2, vocabulary, (samples, length))
    found[np.arange(samples), draw.integers(0, 2 * length, samples) % length] = 1
    before = np.cumsum(found == 1, axis=1) - (found == 1) > 0
    labels = kind[found] + 2 * before
    ends = draw.integers((length + 1) // 2, length + 1, (samples, 1))
    padding = np.arange(length) >= ends
    return np.where(padding, 0, found), np.where(padding, IGNORED, labels)


def _check(**given: Any) -> None:
    """Sizes are positive whole numbers, noise and seed not below 0."""
    for name, value in given.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        right = number and (0 <= value <= LOUDEST if name == "noise" else isinstance(value, int) and value >= 0)
        if not right or (value == 0 and name not in ("noise", "seed")):
            allowed = "positive whole numbers, and noise and seed not below 0"
            raise SettingsError("data.kwargs", {name: value}, allowed)
