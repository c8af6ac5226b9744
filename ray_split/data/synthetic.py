"""Data sets that are made from a seed: of any size and shape, and no download."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from ray_split import seeds
from ray_split.arrays import Array
from ray_split.data.lazy import LazyInputs
from ray_split.data.types import DataSet, Part
from ray_split.errors import SettingsError
from ray_split.memory_limit import check_fits

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
    _check(samples, shape, num_classes, seed, noise, users)
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
    _check(samples, shape, num_classes, seed)
    if len(shape) != 3:
        raise SettingsError("data.kwargs", {"shape": shape}, "a shape of (channels, height, width)")
    total = samples + _test_samples(samples)
    check_fits("data.kwargs", {"samples": samples, "shape": shape}, KEY_BYTES * total + prod(shape))
    labels = seeds.generator(seed, "fake_images").integers(0, num_classes, total)
    keys = np.stack([np.arange(total), labels], axis=1)
    images = LazyInputs(FakeImage(tuple(shape), seed), keys, tuple(shape))
    everything = Part(images, labels)
    train, test = (everything.subset(at) for at in np.split(np.arange(total), [samples]))
    return DataSet(train, test, num_classes, scale=1 / 127.5, shift=-1.0)


def _test_samples(samples: int) -> int:
    return max(1, samples // 6)


def _check(samples: Any, shape: Any, num_classes: Any, seed: Any, noise: Any = 0, users: Any = None) -> None:
    sizes = [samples, num_classes, *(shape if isinstance(shape, (list, tuple)) else [None])]
    right = all(whole(size) and size > 0 for size in sizes) and whole(seed) and seed >= 0
    if not right or not isinstance(noise, (int, float)) or not 0 <= noise <= LOUDEST:
        given = {"samples": samples, "shape": shape, "num_classes": num_classes, "noise": noise, "seed": seed}
        allowed = "positive whole numbers (shape a list of them), and noise and seed not below 0"
        raise SettingsError("data.kwargs", given, allowed)
    if users is not None and not (whole(users) and 0 < users <= samples):
        raise SettingsError("data.kwargs", {"users": users}, f"users: 1 to as many as there are samples, {samples}")


def whole(value: Any) -> bool:
    """Whether a setting is a whole number, and not yes or no."""
    return isinstance(value, int) and not isinstance(value, bool)
