"""What a data set is: samples with their labels, in parts; and batches of them as the model takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ray_split import seeds
from ray_split.arrays import Array
from ray_split.data.lazy import LazyInputs

TEST_FRACTION = 0.2
PART_NAMES = {"val": "validation", "test": "test"}


class Part(NamedTuple):
    """Samples and their labels: inputs (N, ...), in memory or read when asked for, and labels (N,) or (N, ...)."""

    inputs: Array | LazyInputs
    labels: Array

    def subset(self, indices: Array) -> Part:
        """The samples at `indices`."""
        inputs = self.inputs.subset(indices) if isinstance(self.inputs, LazyInputs) else self.inputs[indices]
        return Part(inputs, self.labels[indices])


@dataclass(frozen=True)
class DataSet:
    """Training and test samples. Inputs of bytes become float32, as `inputs * scale + shift`.

    `groups`: who each training sample is from, by kind of id, such as {"writer": ids (N,)}, numbers or strings; for
    `data.partition.name natural`. `classes`: their names, in the order of their numbers; of labels that are text they
    are found, in sorted order.
    """

    train: Part
    test: Part
    num_classes: int | None = None
    scale: Array | float = 1.0
    shift: Array | float = 0.0
    groups: Mapping[str, Array] = field(default_factory=dict)
    classes: Sequence[str] | None = None


@dataclass(frozen=True)
class Parts:
    """What a run uses, always the same samples for the same data settings: train, val (may be empty) and test."""

    train: Part
    val: Part
    test: Part
    num_classes: int | None
    scale: Array | float
    shift: Array | float
    groups: Mapping[str, Array] = field(default_factory=dict)  # of the samples of train
    classes: tuple[str, ...] | None = None  # their names, where they have any
    is_one: bool = False  # whether all three parts are of one array of the user's
    is_counted: bool = False  # whether num_classes is what the labels look like, and not what somebody said

    def batch(self, part: str, indices: Array | slice) -> tuple[Array, Array]:
        """The inputs and labels at `indices` of 'train', 'val' or 'test', copied; inputs as the model takes them."""
        return self.normalised(self.inputs(part, indices)), self.labels(part, indices)

    def inputs(self, part: str, indices: Array | slice) -> Array:
        """The inputs at `indices`, copied, as they are in the data set."""
        inputs = getattr(self, part).inputs
        copied: Array = inputs[indices]
        return copied.copy() if isinstance(indices, slice) and isinstance(inputs, np.ndarray) else copied

    def labels(self, part: str, indices: Array | slice) -> Array:
        """The labels at `indices`, copied. Reads no inputs."""
        labels: Array = getattr(self, part).labels[indices]
        return labels.copy() if isinstance(indices, slice) else labels

    def normalised(self, inputs: Array) -> Array:
        """Inputs (..., *sample) as the model takes them: float16 as float32; bytes too, by scale and shift."""
        if inputs.dtype != np.uint8:
            return inputs.astype(np.float32) if inputs.dtype == np.float16 else inputs
        return (inputs.astype(np.float32) * self.scale + self.shift).astype(np.float32)


def by_mean_and_std(mean: Sequence[float], std: Sequence[float]) -> tuple[Array, Array]:
    """The scale and shift (channels, 1, 1) that normalise bytes as torchvision does: (bytes / 255 - mean) / std."""
    means, stds = (np.array(values, np.float32)[:, None, None] for values in (mean, std))
    return 1 / 255 / stds, -means / stds


def without_test_part(inputs: Array | LazyInputs, labels: Array, num_classes: int | None = None) -> DataSet:
    """A data set from samples that have no test part yet: a fifth of them, always the same, becomes it."""
    rest, test = split_off(len(inputs), TEST_FRACTION, "test_part")
    whole = Part(inputs, labels)
    return DataSet(whole.subset(rest), whole.subset(test), num_classes)


def split_off(total: int, fraction: float, purpose: str) -> tuple[Array, Array]:
    """Indices of the rest and of a fixed part; drawn without the run's seed, so all runs share it."""
    order = seeds.generator(0, purpose).permutation(total)
    size = round(total * fraction)
    return np.sort(order[size:]), np.sort(order[:size])
