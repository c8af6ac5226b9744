"""What a state is: a flat dict of numpy arrays. Without torch, for the processes that need none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ray_split.arrays import Array
from ray_split.messages import bits

State = dict[str, Array]
"""'weights/<key>', 'buffers/<key>' and 'optimizer/<parameter>/<slot>' of one segment."""

Ends = dict[str, State]
"""The states of the segments on the phone, by name: 'a' and 'c'."""


class Rows(NamedTuple):
    """Each phone's weights, for an aggregator that a sum is not enough for."""

    states: Ends  # (phones, ...)
    shares: Array  # (phones,)


class Terms(NamedTuple):
    """What an algorithm remembers of one segment, by the keys of its weights: SCAFFOLD's control variates."""

    own: State  # (phones, ...) each phone's own
    shared: State  # (...) of all phones; or what a round adds to it


Remembered = dict[str, Terms]
"""Terms of segments, by name."""


class Closed(NamedTuple):
    """What a cohort's phones leave at a round's end: their weighted sum (or rows), and what each keeps as its own."""

    phones: tuple[int, ...]
    sums: Ends
    own: Ends  # (phones, ...); empty where nothing is personal
    bytes_per_phone: int | Array  # or of each phone (phones,)
    rows: Rows | None = None  # instead of sums
    remembered: Remembered | None = None  # of an algorithm: each phone's own from now on, and the change of shared


def weights(state: Mapping[str, Array]) -> State:
    """The part of a segment's state that is in the model's state dict, under its keys."""
    return {key.removeprefix("weights/"): array for key, array in state.items() if key.startswith("weights/")}


def with_fixed(average: State, before: State) -> State:
    """An average of states, of their types, with what isn't trained, and so isn't in it, as it was before."""
    fixed = {key: array for key, array in before.items() if not key.startswith("optimizer/")}
    own = {key: bits.narrow(array, fixed[key].dtype) if key in fixed else array for key, array in average.items()}
    return {**fixed, **own}


def place_of(states: Mapping[str, Array], place: int) -> State:
    """One phone's state out of those of several (phones, ...)."""
    return {key: np.asarray(array[place]) for key, array in states.items()}


def places_of(states: State, places: Array) -> State:
    """The states of some phones out of those of several (phones, ...); of all of them as they are."""
    return {key: array if len(places) == len(array) else array[places] for key, array in states.items()}


def state_bytes(state: Mapping[str, Array]) -> int:
    """Bytes of a state's arrays."""
    return sum(array.nbytes for array in state.values())


def terms_bytes(terms: Terms | None, phones: int) -> int:
    """Bytes of all that is remembered of a segment of so many phones, each of which gets what is shared."""
    return state_bytes(terms.own) + phones * state_bytes(terms.shared) if terms is not None else 0


def kept(states: State, keep: str) -> State:
    """Of copies' states what is each phone's own: 'all', or the 'statistics' of its BatchNorm layers."""
    return states if keep == "all" else {key: array for key, array in states.items() if is_statistic(key)}


STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def is_statistic(key: str) -> bool:
    """Whether a state's key is one of a BatchNorm's running statistics."""
    return key.rpartition(".")[2] in STATISTICS
