"""Data sets by name, and how their training samples are dealt to the phones.

A data set is arrays. Images may stay bytes: they become float32 with `scale` and `shift` on the phone, per batch.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ray_split import config, seeds
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


DATA_SETS: dict[str, Callable[..., Any]] = {"digits": digits, "cifar10": cifar10}


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


@dataclass(frozen=True)
class Partition:
    """Which training samples each phone has: phone p's are indices[offsets[p]:offsets[p + 1]]."""

    indices: Array
    offsets: Array

    def of(self, phone: int) -> Array:
        """The training indices of one phone."""
        return self.indices[self.offsets[phone] : self.offsets[phone + 1]]

    def __len__(self) -> int:
        return len(self.offsets) - 1


def iid(labels: Array, count: int, seed: int) -> Partition:
    """Equal shares of a random order: every sample once, sizes differ by one at most."""
    order = seeds.generator(seed, "partition").permutation(len(labels))
    sizes = np.full(count, len(labels) // count)
    sizes[: len(labels) % count] += 1
    return Partition(order, np.concatenate([[0], np.cumsum(sizes)]))


PARTITIONS: dict[str, Callable[..., Partition]] = {"iid": iid}


def partition(settings: config.Config, labels: Array) -> Partition:
    """Deal the training samples to the phones. Raises SettingsError, also when there are more phones than samples."""
    function = find("data.partition.name", settings.data.partition.name, PARTITIONS)
    if settings.phones.count > len(labels):
        allowed = f"at most the {len(labels)} training samples, so that every phone has one"
        raise SettingsError("phones.count", settings.phones.count, allowed)
    dealt: Partition = function(labels, settings.phones.count, settings.run.seed)
    return dealt
