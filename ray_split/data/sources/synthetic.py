"""Data sets that are made from a seed: of any size and shape, learnable, and no download.

Those of the other tasks are (inputs, labels) of `samples`, of which a fifth becomes the test part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from ray_split import seeds
from ray_split.arrays import Array
from ray_split.data.types import DataSet, LazyInputs, Part
from ray_split.errors import SettingsError, shown
from ray_split.memory_limit import check_fits
from ray_split.messages.labels import IGNORED

USERS_SHIFT = 0.5  # standard deviation of what is a user's own, beside the patterns' 1
COARSE = 8  # pixels of a fake image's pattern
LOUDEST = 1e18
KEY_BYTES = 40  # of a fake image that is not made yet: its key and label, and what they are made from


def synthetic(
    samples: int = 60_000,
    shape: Sequence[int] = (1, 8, 8),
    num_classes: int = 10,
    noise: float = 1.0,
    seed: int = 0,
    users: int | None = None,
) -> DataSet:
    """Learnable arrays: each class is a random pattern.

    A sample is its class's pattern, of values of variance 1, plus normal noise. `samples` are the training samples,
    a sixth as many more are the test samples. With `users` each sample is from one of so many users, who have equally
    many, and their own shift is added to all of them; the groups are named 'user'. Raises SettingsError.
    """
    _check(samples=samples, shape=shape, num_classes=num_classes, noise=noise, seed=seed)
    if users is not None and not (whole(users) and 0 < users <= samples):
        raise SettingsError(
            "data.kwargs",
            {"users": users},
            "",
            f"users must be from 1 to {samples} (as many as samples), not {shown(users)}",
        )
    kept = samples + _test_samples(samples) + num_classes + (users or 0)
    check_fits("data.kwargs", {"samples": samples, "shape": shape, "num_classes": num_classes}, 4 * kept * prod(shape))
    draw = seeds.generator(seed, "synthetic")
    patterns = draw.standard_normal((num_classes, *shape), dtype=np.float32)

    def part(count: int) -> Part:
        labels = draw.integers(0, num_classes, count)
        inputs = draw.standard_normal((count, *shape), dtype=np.float32)
        inputs *= np.float32(noise)
        inputs += patterns[labels]
        return Part(inputs, labels)

    train, test = part(samples), part(_test_samples(samples))
    if users is None:
        return DataSet(train, test, num_classes)
    return DataSet(train, test, num_classes, groups={"user": _shifted(train, test, users, seed)})


def _shifted(train: Part, test: Part, users: int, seed: int) -> Array:
    """Add each user's shift to their samples, in place; the user of each training sample."""
    draw = seeds.generator(seed, "synthetic", 1)
    shifts = USERS_SHIFT * draw.standard_normal((users, *train.inputs.shape[1:]), dtype=np.float32)
    owners = [draw.permutation(np.arange(len(part.labels)) % users) for part in (train, test)]
    for part, owner in zip((train, test), owners, strict=True):
        assert isinstance(part.inputs, np.ndarray)
        part.inputs[...] += shifts[owner]
    return owners[0]


@dataclass(frozen=True)
class FakeImage:
    """Makes the image of a key (index, label): half of it noise, half its class's coarse pattern. Bytes."""

    shape: tuple[int, ...]
    seed: int

    def __call__(self, key: Array) -> Array:
        index, label = (int(number) for number in key)
        channels, height, width = self.shape
        pattern = seeds.generator(self.seed, "fake_images", 0, label).integers(
            0, 128, (channels, COARSE, COARSE), np.uint8
        )
        rows, columns = (np.arange(side) * COARSE // side for side in (height, width))
        image = seeds.generator(self.seed, "fake_images", 1, index).integers(0, 128, self.shape, np.uint8)
        image += pattern[:, rows][:, :, columns]
        return image


def fake_images(
    samples: int = 1000, shape: Sequence[int] = (3, 224, 224), num_classes: int = 10, seed: int = 0
) -> DataSet:
    """Learnable images of bytes, each made when it is asked for: any number of any size takes no memory.

    Of (channels, height, width); the labels are drawn evenly, `samples` are the training samples, a sixth as many more
    are the test samples, and the model is given values from -1 to 1. As torchvision's FakeData. Raises SettingsError.
    """
    _check(samples=samples, shape=shape, num_classes=num_classes, seed=seed)
    if len(shape) != 3:
        raise SettingsError("data.kwargs", {"shape": shape}, "a shape [channels, height, width]")
    total = samples + _test_samples(samples)
    check_fits("data.kwargs", {"samples": samples, "shape": shape}, KEY_BYTES * total + prod(shape))
    labels = seeds.generator(seed, "fake_images").integers(0, num_classes, total)
    keys = np.stack([np.arange(total), labels], axis=1)
    images = LazyInputs(FakeImage(tuple(shape), seed), keys, tuple(shape), thread_safe=True)
    everything = Part(images, labels)
    train, test = (everything.subset(at) for at in np.split(np.arange(total), [samples]))
    return DataSet(train, test, num_classes, scale=1 / 127.5, shift=-1.0)


def _test_samples(samples: int) -> int:
    return max(1, samples // 6)


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
        raise SettingsError("data.kwargs", {"vocabulary": vocabulary}, "a vocabulary of at least 4")
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
    """Sizes are positive whole numbers, a shape has some of them, noise and seed are not below 0. SettingsError."""
    for name, value in given.items():
        if not _is_right(name, value):
            raise SettingsError(
                "data.kwargs", {name: value}, "", f"{name} must be {_allowed(name)}, not {shown(value)}"
            )


def _allowed(name: str) -> str:
    kinds = {
        "shape": "a list of whole numbers, each at least 1",
        "noise": "a number of at least 0",
        "seed": "a whole number of at least 0",
    }
    return kinds.get(name, "a whole number of at least 1")


def _is_right(name: str, value: Any) -> bool:
    if name == "noise":
        return isinstance(value, (int, float)) and 0 <= value <= LOUDEST
    if name == "shape":
        return isinstance(value, (list, tuple)) and all(whole(side) and side > 0 for side in value)
    return whole(value) and value >= (0 if name == "seed" else 1)


def whole(value: Any) -> bool:
    """Whether a setting is a whole number, and not yes or no."""
    return isinstance(value, int) and not isinstance(value, bool)
