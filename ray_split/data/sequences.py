"""Samples that are sequences of different lengths: a batch of them is padded to its own longest, with a mask."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from ray_split.arrays import Array


class Padded(NamedTuple):
    """A batch of sequences as models are given it, as two arguments: (..., n, ...), zeros after each one's end."""

    values: Any
    mask: Any  # (..., n, longest), whether a step is one of the sequence's own


@dataclass(frozen=True)
class Sequences:
    """N sequences: all their steps (total, ...) one after the other, and where each begins and how long it is.

    `axis`: where a sample has its steps, 0 of (length, features), 1 of (channels, length). Like an array for who takes
    batches of it: len, shape (with None for the length), dtype, and indexing, which pads.
    """

    steps: Array
    starts: Array
    lengths: Array
    axis: int = 0

    @classmethod
    def of(cls, samples: Sequence[Array], axis: int | None = None) -> Sequences:
        """Of samples (length, ...), or (channels, length) where `axis` is 1; if it isn't said, where they differ.

        Raises ValueError if they are no sequences of one kind.
        """
        if not len(samples):
            raise ValueError("there is none")
        along = axis_of(samples) if axis is None else axis
        if along is None:
            raise ValueError(
                f"of the shapes {', '.join(map(str, _shapes(samples)[:3]))}, which differ in more than length"
            )
        moved = [np.moveaxis(np.asarray(sample), along, 0) for sample in samples]
        if empty := [i for i, sample in enumerate(moved) if not len(sample)]:
            raise ValueError(f"empty in row {empty[0]}, and each must have a step")
        lengths = np.array([len(sample) for sample in moved])
        return cls(np.concatenate(moved), np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths, along)

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def shape(self) -> tuple[int | None, ...]:
        """(N, None, ...) or (N, channels, None)."""
        rest = self.steps.shape[1:]
        return (len(self), *rest[: self.axis], None, *rest[self.axis :])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of a step's numbers."""
        found: np.dtype[Any] = self.steps.dtype
        return found

    def __getitem__(self, indices: Array | slice) -> Padded:
        """The samples at `indices` (...), copied and padded to the longest of them: (..., longest, ...), and a mask."""
        lengths, starts = self.lengths[indices], self.starts[indices]
        places = np.arange(lengths.max(initial=0))
        mask = places < lengths[..., None]
        values = self.steps[np.where(mask, starts[..., None] + places, 0)]
        values[~mask] = 0
        at = mask.ndim - 1
        return Padded(np.ascontiguousarray(np.moveaxis(values, at, at + self.axis)), mask)

    def sample(self, row: int) -> Array:
        """One sequence as it was given."""
        start = self.starts[row]
        return np.moveaxis(self.steps[start : start + self.lengths[row]], 0, self.axis)

    def subset(self, indices: Array) -> Sequences:
        """The samples at `indices`; copies no steps."""
        return replace(self, starts=self.starts[indices], lengths=self.lengths[indices])

    def rows(self, steps: Array) -> Array:
        """Which of the samples have any of these steps (total,), true where it is one."""
        sums = np.concatenate([[0], np.cumsum(steps)])
        found: Array = np.flatnonzero(sums[self.starts + self.lengths] > sums[self.starts])
        return found


def axis_of(samples: Sequence[Any]) -> int | None:
    """The one axis in which samples of one or two dimensions differ, 0 if in none; None if they aren't sequences."""
    shapes = _shapes(samples)
    if {len(shape) for shape in shapes} not in ({1}, {2}):
        return None
    differing = [axis for axis, sizes in enumerate(zip(*shapes, strict=True)) if len(set(sizes)) > 1]
    return (differing or [0])[0] if len(differing) < 2 else None


def are_sequences(value: Any) -> bool:
    """Whether it is a list of arrays or tensors (or numpy's of objects) that differ in length, and in nothing else."""
    if isinstance(value, np.ndarray) and value.dtype == object and value.ndim == 1:
        value = value.tolist()
    if not isinstance(value, (list, tuple)) or not value:
        return False
    torch = sys.modules.get("torch")
    kinds = (np.ndarray,) if torch is None else (np.ndarray, torch.Tensor)
    return all(isinstance(each, kinds) for each in value) and len(_shapes(value)) > 1 and axis_of(value) is not None


def _shapes(samples: Sequence[Any]) -> list[tuple[int, ...]]:
    """The different shapes, in the order in which they come up."""
    return list(dict.fromkeys(tuple(np.shape(sample)) for sample in samples))
