"""The batches that phones train on: the stream's samples, augmented if the settings ask for it, normalised, mixed.

Clients take their batches here, and so can who replays a run:

batches = rs.Batches(config, rs.load_data(config.data))
for draw in rs.stream(config):
    inputs, labels = batches.of(draw)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ray_split import config, seeds
from ray_split.arrays import Array
from ray_split.data.augmentations import Augmentation
from ray_split.data.mixup import Mixup
from ray_split.data.stream import Draw, Group
from ray_split.data.types import Inputs, Parts
from ray_split.messages.message import row
from ray_split.messages.turn import Turn


def _image(parts: Parts) -> tuple[int, ...]:
    """A sample's shape; sequences are no images, whatever theirs is."""
    shape = parts.train.inputs.shape[1:]
    return tuple(size for size in shape if size is not None)


class Batches:
    """Training batches of a run; a pure function of the settings, however phones are put together."""

    def __init__(self, settings: config.Config, parts: Parts) -> None:
        """Raises SettingsError if the augmentation, or mixup, is none for these samples."""
        self._seed, self._parts = settings.run.seed, parts
        name = settings.data.augment
        self._augment = Augmentation(name, _image(parts)) if name is not None else None
        self._mixup = None if settings.data.mixup is None else Mixup(settings.data.mixup, settings, parts)

    def of(self, draw: Draw) -> tuple[Inputs, Array]:
        """The inputs (n, ...) and labels (n, ...) of one batch, of mixed classes (n, C).

        Of sequences the inputs are Padded: (values, mask).

        Raises SettingsError if augmenting fails.
        """
        inputs, labels = self._batch(draw.round, np.array([draw.phone]), draw.step, *self._raw(draw.indices[None]))
        return row(inputs, 0), labels[0]

    def of_groups(self, turn: Turn, groups: Sequence[Group]) -> list[tuple[Inputs, Array]]:
        """The inputs (k, n, ...) and labels (k, n, ...) of each group of the turn's first phones, in their order."""
        return self._changed(turn, groups, [self._raw(group) for group in groups])

    def begun(self, turn: Turn, groups: Sequence[Group]) -> list[tuple[Any, Array]]:
        """As much of `of_groups` as a thread may do while others draw from torch; `finished` does the rest."""
        read = [self._raw(group) for group in groups]
        return self._changed(turn, groups, read, beside=True) if self.is_whole_beside else read

    def finished(
        self, turn: Turn, groups: Sequence[Group], begun: list[tuple[Any, Array]]
    ) -> list[tuple[Inputs, Array]]:
        """The batches of `of_groups`."""
        return begun if self.is_whole_beside else self._changed(turn, groups, begun)

    @property
    def is_whole_beside(self) -> bool:
        """Whether `begun` leaves nothing to do."""
        return self._augment is None or self._augment.may_be_beside

    def _changed(
        self, turn: Turn, groups: Sequence[Group], read: Sequence[tuple[Any, Array]], beside: bool = False
    ) -> list[tuple[Inputs, Array]]:
        borders = np.cumsum([len(group) for group in groups])
        each = np.split(np.array(turn.phones[: borders[-1]]), borders[:-1])
        pairs = zip(each, read, strict=True)
        return [self._batch(turn.round, phones, turn.step, *own, beside) for phones, own in pairs]

    def of_phones(self, turn: Turn, groups: Sequence[Group]) -> Iterator[Draw]:
        """Each phone's step of its own."""
        phones = iter(turn.phones)
        for group in groups:
            yield from (Draw(turn.round, 0, next(phones), turn.step, indices) for indices in group)

    def example(self, indices: Array) -> tuple[Inputs, Array]:
        """A batch of these samples, to try a model with. Raises SettingsError if augmenting them twice differs."""
        if self._augment is not None:
            inputs, labels = self._raw(indices[None])
            self._augment.check(inputs, labels, self._seeds(0, np.array([0]), 0, len(indices)))
        return self.of(Draw(0, 0, 0, 0, indices))

    def _batch(
        self, round: int, phones: Array, step: int, inputs: Any, labels: Array, beside: bool = False
    ) -> tuple[Inputs, Array]:
        if self._augment is not None:
            drawn = self._seeds(round, phones, step, labels.shape[1])
            inputs, labels = self._augment(inputs, labels, drawn, beside)
        inputs = self._parts.normalised(inputs)
        return (inputs, labels) if self._mixup is None else self._mixup(round, phones, step, inputs, labels)

    def _raw(self, group: Group) -> tuple[Any, Array]:
        return self._parts.inputs("train", group), self._parts.labels("train", group)

    def _seeds(self, round: int, phones: Array, step: int, samples: int) -> Array:
        """The seeds (phones, samples) of a step's augmentation."""
        entropy: list[int | Array] = [self._seed, seeds.PURPOSES["augment"], round, phones, step]
        return seeds.words(entropy, np.arange(samples))
