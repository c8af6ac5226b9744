"""Data sets by name.

A data set is arrays. Images may stay bytes: they become float32 with `scale` and `shift` on the phone, per batch.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ray_split import config, seeds, tasksets
from ray_split.failure import SettingsError
from ray_split.loading import call, find
from ray_split.state import Array

TEST_FRACTION = 0.2


class Part(NamedTuple):
    """Samples and their labels: inputs (N, ...), labels (N,) or (N, ...)."""

    inputs: Array
    labels: Array


@dataclass(frozen=True)
class DataSet:
    """Training and test samples. Inputs of bytes become float32, as `inputs * scale + shift`."""

    train: Part
    test: Part
    num_classes: int | None = None
    scale: Array | float = 1.0
    shift: Array | float = 0.0


@dataclass(frozen=True)
class Parts:
    """What a run uses, always the same samples for the same data settings: train, val (may be empty) and test."""

    train: Part
    val: Part
    test: Part
    num_classes: int | None
    scale: Array | float
    shift: Array | float

    def batch(self, part: str, indices: Array | slice) -> tuple[Array, Array]:
        """The inputs and labels at `indices` of 'train', 'val' or 'test', copied; inputs as the model takes them."""
        inputs, labels = getattr(self, part)
        chosen = inputs[indices].copy() if isinstance(indices, slice) else inputs[indices]
        if chosen.dtype == np.uint8:
            chosen = (chosen.astype(np.float32) * self.scale + self.shift).astype(np.float32)
        return chosen, labels[indices].copy() if isinstance(indices, slice) else labels[indices]


def digits() -> DataSet:
    """scikit-learn's bundled digits: 1,797 real grey images of 8x8, 10 classes (Alpaydin and Kaynak 1998)."""
    # The file itself: importing scikit-learn takes seconds, with scipy and all, and gives the same numbers.
    package = importlib.util.find_spec("sklearn")
    assert package is not None and package.submodule_search_locations
    rows = np.loadtxt(Path(package.submodule_search_locations[0]) / "datasets/data/digits.csv.gz", delimiter=",")
    images = (rows[:, :64].reshape(-1, 1, 8, 8) / 16.0).astype(np.float32)
    return without_test_part(images, rows[:, 64].astype(np.int64), num_classes=10)


def cifar10(path: Path | None = None, download: bool = False) -> DataSet:
    """CIFAR-10 through torchvision, from `data.path`: 60,000 colour images of 32x32 (Krizhevsky 2009).

    `--data.kwargs '{download: true}'` fetches it first. Raises SettingsError when it isn't there.
    """
    from torchvision.datasets import CIFAR10

    if path is None:
        raise SettingsError("data.path", None, "the folder that holds cifar-10-batches-py")
    try:
        parts = [CIFAR10(path, train=train, download=download) for train in (True, False)]
    except (RuntimeError, OSError) as error:
        hint = "the folder that holds cifar-10-batches-py (or add --data.kwargs '{download: true}')"
        raise SettingsError("data.path", str(path), f"{hint}; {_first_line(error)}") from error
    mean = np.array([0.4914, 0.4822, 0.4465], np.float32)[:, None, None]
    std = np.array([0.2470, 0.2435, 0.2616], np.float32)[:, None, None]
    train, test = (
        Part(np.ascontiguousarray(p.data.transpose(0, 3, 1, 2)), np.array(p.targets, np.int64)) for p in parts
    )
    return DataSet(train, test, num_classes=10, scale=1 / 255 / std, shift=-mean / std)


def synthetic(
    samples: int = 60_000, shape: Sequence[int] = (1, 8, 8), num_classes: int = 10, noise: float = 1.0, seed: int = 0
) -> DataSet:
    """Learnable data of any size and shape, made from a seed, and no download: each class is a random pattern.

    A sample is its class's pattern, of values of variance 1, plus normal noise. `samples` are the training samples,
    a sixth as many more are the test samples. Raises SettingsError.
    """
    sizes = [samples, num_classes, *(shape if isinstance(shape, (list, tuple)) else [None])]
    right = all(_whole(size) and size > 0 for size in sizes) and _whole(seed) and seed >= 0
    if not right or not isinstance(noise, (int, float)) or not noise >= 0:
        given = {"samples": samples, "shape": shape, "num_classes": num_classes, "noise": noise, "seed": seed}
        allowed = "positive whole numbers (shape a list of them), and noise and seed not below 0"
        raise SettingsError("data.kwargs", given, allowed)
    draw = seeds.generator(seed, "synthetic")
    patterns = draw.standard_normal((num_classes, *shape), dtype=np.float32)

    def part(count: int) -> Part:
        labels = draw.integers(0, num_classes, count)
        inputs = draw.standard_normal((count, *shape), dtype=np.float32)
        inputs *= np.float32(noise)
        inputs += patterns[labels]
        return Part(inputs, labels)

    return DataSet(part(samples), part(max(1, samples // 6)), num_classes)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


DATA_SETS: dict[str, Callable[..., Any]] = {
    "digits": digits,
    "cifar10": cifar10,
    "synthetic": synthetic,
    "synthetic_regression": tasksets.regression,
    "synthetic_segmentation": tasksets.segmentation,
    "synthetic_tokens": tasksets.tokens,
}


def without_test_part(inputs: Array, labels: Array, num_classes: int | None = None) -> DataSet:
    """A data set from samples that have no test part yet: a fifth of them, always the same, becomes it."""
    rest, test = _split_off(len(inputs), TEST_FRACTION, "test_part")
    return DataSet(Part(inputs[rest], labels[rest]), Part(inputs[test], labels[test]), num_classes)


def load(settings: config.Data) -> Parts:
    """The data set that the settings name, in its three parts. Raises SettingsError."""
    if settings.path is not None and not settings.path.expanduser().exists():
        raise SettingsError("data.path", str(settings.path), "a folder that exists")
    function = find("data.name", settings.name, DATA_SETS)
    found = call("data", function, settings.kwargs, path=settings.path and settings.path.expanduser())
    data = _checked(settings.name, found)
    rest, val = _split_off(len(data.train.inputs), settings.val_fraction, "val_part")
    return Parts(
        train=Part(data.train.inputs[rest], data.train.labels[rest]),
        val=Part(data.train.inputs[val], data.train.labels[val]),
        test=data.test,
        num_classes=data.num_classes,
        scale=data.scale,
        shift=data.shift,
    )


def _checked(name: str, found: Any) -> DataSet:
    if isinstance(found, DataSet):
        data = found
    elif isinstance(found, tuple) and len(found) == 2:
        inputs, labels = np.asarray(found[0]), np.asarray(found[1])
        _check_lengths(name, Part(inputs, labels))
        data = without_test_part(inputs, labels)
    else:
        raise SettingsError("data.name", name, "a function that returns (inputs, labels) or a ray_split.DataSet")
    for part in (data.train, data.test):
        _check_lengths(name, part)
    return _plain(data)


def _check_lengths(name: str, part: Part) -> None:
    if len(part.inputs) != len(part.labels) or not len(part.inputs):
        lengths = f"{len(part.inputs)} inputs and {len(part.labels)} labels"
        raise SettingsError("data.name", name, f"a data set with a label for every input, not {lengths}")


def _plain(data: DataSet) -> DataSet:
    """Doubles as float32, integer labels as int64 classes, counted where the data set doesn't say."""
    train, test = (Part(_single(p.inputs), _labels(p.labels)) for p in (data.train, data.test))
    classes = data.num_classes
    if classes is None and train.labels.dtype == np.int64:
        classes = int(max(train.labels.max(), test.labels.max())) + 1
    return DataSet(train, test, classes, data.scale, data.shift)


def _single(array: Array) -> Array:
    return array.astype(np.float32) if array.dtype == np.float64 else array


def _labels(array: Array) -> Array:
    return array.astype(np.int64) if np.issubdtype(array.dtype, np.integer) else _single(array)


def _split_off(total: int, fraction: float, purpose: str) -> tuple[Array, Array]:
    """Indices of the rest and of a fixed part; drawn without the run's seed, so all runs share it."""
    order = seeds.generator(0, purpose).permutation(total)
    size = round(total * fraction)
    return np.sort(order[size:]), np.sort(order[:size])


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
