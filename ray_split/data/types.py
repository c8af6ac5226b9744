"""What a data set is: samples, in memory or read when asked for, with their labels, in parts; and batches of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from ray_split import seeds
from ray_split.arrays import Array
from ray_split.data.sequences import Padded, Sequences

TEST_FRACTION = 0.2
PART_NAMES = {"val": "validation", "test": "test"}
BYTES = np.dtype(np.uint8)


@dataclass(frozen=True)
class LazyInputs:
    """Samples that are read when a batch is made, and are never in memory together.

    Like an array (N, *sample_shape) for who takes batches of it: len, shape, dtype, and indexing, which reads.

    `read` makes one sample from its row of `keys` (N, ...). It is called in the clients, so it is pickled, and should
    carry no samples; keys go through the object store, once for each node. `thread_safe`: whether threads may call it,
    beside each other: see data.decoders.
    """

    read: Callable[[Any], Array]
    keys: Array
    sample_shape: tuple[int, ...]
    dtype: np.dtype[Any] = BYTES
    thread_safe: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "keys", np.asarray(self.keys))
        shape = (self.sample_shape,) if isinstance(self.sample_shape, int) else tuple(self.sample_shape)
        object.__setattr__(self, "sample_shape", shape)
        try:
            kind = np.dtype(self.dtype)
        except TypeError:
            raise TypeError(f"the dtype of LazyInputs is one of numpy's, not {self.dtype!r}") from None
        object.__setattr__(self, "dtype", kind.newbyteorder("="))

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, *sample_shape)."""
        return (len(self.keys), *self.sample_shape)

    def __getitem__(self, indices: Array | slice | int) -> Array:
        """The samples at `indices`, of any shape: a new array (*indices.shape, *sample_shape).

        Raises what `read` raises, and ValueError if a sample isn't finite, or of another shape or type than told.
        """
        chosen = np.asarray(self.keys[indices])
        leading = chosen.shape[: chosen.ndim + 1 - self.keys.ndim]
        samples = np.empty((*leading, *self.sample_shape), self.dtype)
        rows = samples.reshape(-1, *self.sample_shape)
        for row, key in zip(rows, chosen.reshape(-1, *self.keys.shape[1:]), strict=True):
            row[...] = self._sample(key)
        return samples

    def _sample(self, key: Any) -> Array:
        sample = np.asarray(self.read(key))
        if sample.shape != self.sample_shape or sample.dtype.newbyteorder("=") != self.dtype:
            expected = f"{self.sample_shape} of {self.dtype}"
            raise ValueError(f"sample {_shown(key)} is {sample.shape} of {sample.dtype}, not {expected}")
        if sample.dtype.kind == "f" and not np.isfinite(sample).all():
            raise ValueError(f"sample {_shown(key)} is not finite: it has {sample[~np.isfinite(sample)][0]}")
        return sample

    def subset(self, indices: Array) -> LazyInputs:
        """The samples at `indices`, as lazy; reads none."""
        return replace(self, keys=self.keys[indices])


def _shown(key: Any) -> str:
    """A sample's key, which may be one of numpy's numbers."""
    return repr(key.item() if isinstance(key, np.generic) else key)


Inputs = Array | Padded
"""A batch as models are given it, (n, ...) or of several phones (k, n, ...)."""


class Part(NamedTuple):
    """Samples and their labels: inputs (N, ...), in memory or read when asked for, and labels (N,) or (N, ...)."""

    inputs: Array | LazyInputs | Sequences
    labels: Array

    def subset(self, indices: Array) -> Part:
        """The samples at `indices`."""
        inputs = self.inputs[indices] if isinstance(self.inputs, np.ndarray) else self.inputs.subset(indices)
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
    has_labels_by_step: bool = False  # of sequences of different lengths: labels (N, longest), a label for each step

    @property
    def sequences(self) -> Sequences | None:
        """The inputs to train on, where they are sequences of different lengths: batches of them are Padded."""
        return self.train.inputs if isinstance(self.train.inputs, Sequences) else None

    def batch(self, part: str, indices: Array | slice) -> tuple[Inputs, Array]:
        """The inputs and labels at `indices` of 'train', 'val' or 'test', copied; inputs as the model takes them."""
        return self.normalised(self.inputs(part, indices)), self.labels(part, indices)

    def inputs(self, part: str, indices: Array | slice) -> Inputs:
        """The inputs at `indices`, copied, as they are in the data set."""
        inputs = getattr(self, part).inputs
        copied: Any = inputs[indices]
        found: Inputs = copied.copy() if isinstance(indices, slice) and isinstance(inputs, np.ndarray) else copied
        return found

    def labels(self, part: str, indices: Array | slice) -> Array:
        """The labels at `indices`, copied; those of steps as many as the longest of these samples has.

        Reads no inputs.
        """
        labels: Array = getattr(self, part).labels[indices]
        if self.has_labels_by_step:
            return labels[..., : getattr(self, part).inputs.lengths[indices].max(initial=0)].copy()
        return labels.copy() if isinstance(indices, slice) else labels

    def normalised(self, inputs: Inputs) -> Inputs:
        """Inputs (..., *sample) as the model takes them: float16 as float32; bytes too, by scale and shift."""
        if isinstance(inputs, Padded):  # as they are: what of sequences would be changed here is when they are loaded
            return inputs
        if inputs.dtype != np.uint8:
            return inputs.astype(np.float32) if inputs.dtype == np.float16 else inputs
        return (inputs.astype(np.float32) * self.scale + self.shift).astype(np.float32)


def by_mean_and_std(mean: Sequence[float], std: Sequence[float]) -> tuple[Array, Array]:
    """The scale and shift (channels, 1, 1) that normalise bytes as torchvision does: (bytes / 255 - mean) / std."""
    means, stds = (np.array(values, np.float32)[:, None, None] for values in (mean, std))
    return 1 / 255 / stds, -means / stds


def without_test_part(inputs: Array | LazyInputs | Sequences, labels: Array, num_classes: int | None = None) -> DataSet:
    """A data set from samples that have no test part yet: a fifth of them, always the same, becomes it."""
    rest, test = split_off(len(inputs), TEST_FRACTION, "test_part")
    whole = Part(inputs, labels)
    return DataSet(whole.subset(rest), whole.subset(test), num_classes)


def split_off(total: int, fraction: float, purpose: str) -> tuple[Array, Array]:
    """Indices of the rest and of a fixed part; drawn without the run's seed, so all runs share it."""
    order = seeds.generator(0, purpose).permutation(total)
    size = round(total * fraction)
    return np.sort(order[size:]), np.sort(order[:size])
