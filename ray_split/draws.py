"""The stream of a run: which phone trains on which samples, when. A pure function of the settings.

for draw in rs.stream(config):          # a reference loop that replays the run
    model_step(train.inputs[draw.indices], train.labels[draw.indices])
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ray_split import config, data, seeds
from ray_split.state import Array


class Turn(NamedTuple):
    """Where a call stands in the stream. `attempt` counts the tries of a round; it changes no draw."""

    round: int
    attempt: int
    phone: int
    step: int


class Draw(NamedTuple):
    """One local step: in `round`, the phone that comes `order`-th takes its step `step` on these training indices."""

    round: int
    order: int
    phone: int
    step: int
    indices: Array


class Stream:
    """Every draw of a run. Holds the partition and nothing that grows with rounds."""

    def __init__(self, settings: config.Config, partition: data.Partition) -> None:
        self.seed = settings.run.seed
        self.partition = partition
        self.batch_size = settings.data.batch_size
        self.local_steps = settings.phones.local_steps
        self.local_epochs = settings.phones.local_epochs or 1
        self._cached = functools.lru_cache(maxsize=4)(self._batches)

    def __reduce__(self) -> tuple[object, ...]:
        state = {k: v for k, v in self.__dict__.items() if k != "_cached"}
        return _rebuild, (state,)

    def phones(self, round: int) -> list[int]:
        """The phones of a round, in their order."""
        return [int(p) for p in seeds.generator(self.seed, "phones", round).permutation(len(self.partition))]

    def samples(self, phone: int) -> int:
        """How many samples the phone holds."""
        return len(self.partition.of(phone))

    def steps(self, phone: int) -> int:
        """How many local steps the phone takes in a round."""
        return self.local_steps or self.local_epochs * -(-self.samples(phone) // self.batch_size)

    def batches(self, round: int, phone: int) -> list[Array]:
        """The training indices of each local step of a phone: a new order every pass, the last batch may be short."""
        return self._cached(round, phone)

    def _batches(self, round: int, phone: int) -> list[Array]:
        draw = seeds.generator(self.seed, "batches", round, phone)
        own, steps = self.partition.of(phone), self.steps(phone)
        batches: list[Array] = []
        while len(batches) < steps:
            order = draw.permutation(own)
            batches += np.split(order, range(self.batch_size, len(order), self.batch_size))
        return batches[:steps]

    def forward_seed(self, turn: Turn, segment: str) -> int:
        """The seed of a segment's forward: Dropout and whatever else draws from torch's generator."""
        return seeds.forward_seed(self.seed, turn.round, turn.phone, turn.step, segment)

    def draws(self, round: int) -> Iterator[Draw]:
        """A round's local steps, phone after phone, as sequential takes them."""
        for order, phone in enumerate(self.phones(round)):
            for step, indices in enumerate(self.batches(round, phone)):
                yield Draw(round, order, phone, step, indices)


def _rebuild(state: dict[str, object]) -> Stream:
    made = Stream.__new__(Stream)
    made.__dict__.update(state)
    made._cached = functools.lru_cache(maxsize=4)(made._batches)
    return made


def stream(settings: config.Config) -> Iterator[Draw]:
    """All local steps of a run, in order; indices are of `ray_split.load_data(config.data).train`.

    Raises SettingsError.
    """
    labels = data.load(settings.data).train.labels
    steps = Stream(settings, data.partition(settings, labels))
    for round in range(settings.run.rounds):
        yield from steps.draws(round)
