"""What phones may send, by what the cut promises: the structure of a message, its types, and its shapes by batch size.

Shapes: k phones with equally large batches of n samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ray_split.arrays import Array
from ray_split.config.phones import BEYOND_TRAINING
from ray_split.messages.labels import IGNORED
from ray_split.messages.message import leaves, norms_of, tree_map
from ray_split.messages.trees import leaf, structure


class Linear(NamedTuple):
    """A whole number as it depends on the batch size."""

    fixed: int
    per_sample: int

    def at(self, n: int) -> int:
        """The number for batches of `n`."""
        return self.fixed + self.per_sample * n

    @classmethod
    def through(cls, few: int, n_few: int, many: int, n_many: int) -> Linear:
        """What is `few` for batches of `n_few`, and `many` for those of `n_many`; of one size, it and no other."""
        if n_few == n_many:
            return cls(many, 0)
        each, rest = divmod(many - few, n_many - n_few)
        if rest:
            raise ValueError(f"{few} for {n_few} samples and {many} for {n_many}: it does not grow with the batch")
        return cls(few - each * n_few, each)


class Between(NamedTuple):
    """A whole number that isn't the same for all batches of a size: it follows from how long their sequences are."""

    least: int
    most: int

    def allows(self, number: int) -> bool:
        """Whether it is one of these."""
        return self.least <= number <= self.most


@leaf
@dataclass(frozen=True)
class Leaf:
    """One array of a message for a phone, or a value that isn't one."""

    dtype: np.dtype[Any] | None = None  # of an array
    shape: tuple[Linear | Between, ...] = ()
    bounded: bool = True  # whether its norm is: not of a mask that is honestly -inf
    value: Any = None  # what isn't an array: a Linear (or Between) for whole numbers
    varies: bool = False  # what isn't an array, and is another for another batch size: any of its type

    def at(self, n: int) -> Any:
        """For batches of `n`: the shape of the array, or the value; a Between of it where it is none alone."""
        if self.dtype is not None:
            return tuple(_at(size, n) for size in self.shape)
        return _at(self.value, n)


def _at(value: Any, n: int) -> Any:
    return value.at(n) if isinstance(value, Linear) else value


Promise = Any
"""A tree as the message's, with a Leaf for each leaf of it."""


@dataclass(frozen=True)
class Labels:
    """The labels of one sample: type, shape, and where they are classes how many there are."""

    dtype: np.dtype[Any]
    shape: tuple[int | Between, ...]
    classes: int | None = None
    finite: bool = False  # whether values must be: a loss of the user's may have a use for those that aren't

    def out_of_range(self, labels: Array) -> bool:
        """Whether any is no class, and not one that is ignored either."""
        if self.classes is None:
            return False
        return bool(((labels < 0) & (labels != IGNORED)).any() or (labels >= self.classes).any())


@dataclass(frozen=True)
class Contract:
    """Everything that a run's phones may send."""

    activation: Promise
    labels: Labels
    smallest: int  # of the batches
    largest: int
    learned: Mapping[str, frozenset[str]] = field(default_factory=dict)  # by segment: the keys of what is averaged
    bounded: frozenset[str] = frozenset()  # the keys of what has a bounded norm: not of constants such as masks
    slots: frozenset[str] = frozenset()  # of the optimizer, for each weight
    numbers: Mapping[str, np.dtype[Any]] = field(default_factory=dict)  # those that are one for the whole weight
    tied: Mapping[str, str] = field(default_factory=dict)  # names in C of weights of A's, and their names there
    apart: bool = False  # whether phones' batches are of different lengths, and each is a group of its own


def promise(few: Any, n_few: int, many: Any, n_many: int) -> Promise:
    """The promise that two messages, of batches of `n_few` and `n_many` samples, both keep. Raises ValueError."""
    if structure(few) != structure(many):
        raise ValueError("another structure for another batch size")
    each = iter([_leaf(a, n_few, b, n_many) for a, b in zip(leaves(few), leaves(many), strict=True)])
    return tree_map(lambda _: next(each), many)


def widened(shorter: Promise, longer: Promise) -> Promise:
    """The promise that messages of sequences keep that are as short and as long as any. Raises ValueError."""
    if structure(shorter) != structure(longer):
        raise ValueError("another structure for shorter sequences")
    both = zip(leaves(shorter), leaves(longer), strict=True)
    each = iter([_between(*pair) for pair in both])
    return tree_map(lambda _: next(each), longer)


def _between(short: Leaf, long: Leaf) -> Leaf:
    if len(short.shape) != len(long.shape) or short.dtype != long.dtype:
        raise ValueError("another shape or type for shorter sequences")
    shape = tuple(_either(*sizes) for sizes in zip(short.shape, long.shape, strict=True))
    value = _either(short.value, long.value) if isinstance(long.value, Linear) else long.value
    varies = long.varies or (short.value != long.value and not isinstance(long.value, Linear))
    return Leaf(long.dtype, shape, short.bounded and long.bounded, value, varies)


def _either(short: Any, long: Any) -> Any:
    if short == long:
        return long
    if short.per_sample or long.per_sample:
        raise ValueError("it grows with the batch and with the length of its sequences")
    return Between(min(short.fixed, long.fixed), max(short.fixed, long.fixed))


def _leaf(few: Any, n_few: int, many: Any, n_many: int) -> Leaf:
    if isinstance(many, np.ndarray):
        if few.ndim != many.ndim:
            raise ValueError(f"shapes {few.shape} and {many.shape}")
        sizes = zip(few.shape, many.shape, strict=True)
        shape = tuple(Linear.through(a, n_few, b, n_many) for a, b in sizes)
        return Leaf(many.dtype, shape, bool((norms_of(many[None]) <= BEYOND_TRAINING).all()))
    if type(many) is int:
        return Leaf(value=Linear.through(few, n_few, many, n_many))
    return Leaf(value=many, varies=bool(few != many))
