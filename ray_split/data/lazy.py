"""Samples that are read when a batch is made, and are never in memory together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ray_split.arrays import Array

BYTES = np.dtype(np.uint8)


@dataclass(frozen=True)
class LazyInputs:
    """Like an array (N, *sample_shape) for who takes batches of it: len, shape, dtype, and indexing, which reads.

    `read` makes one sample from its row of `keys` (N, ...). It is called in the clients, so it is pickled, and should
    carry no samples; keys go through the object store, once for each node.
    """

    read: Callable[[Any], Array]
    keys: Array
    sample_shape: tuple[int, ...]
    dtype: np.dtype[Any] = BYTES

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
        return LazyInputs(self.read, self.keys[indices], self.sample_shape, self.dtype)


def _shown(key: Any) -> str:
    """A sample's key, which may be one of numpy's numbers."""
    return repr(key.item() if isinstance(key, np.generic) else key)
