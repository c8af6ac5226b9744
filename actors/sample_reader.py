"""How a client reads its phones' samples: a phone whose samples can't be read, or are no good, is named."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

from ray_split import config
from ray_split.arrays import Array
from ray_split.data.batches import Batches
from ray_split.data.load import Parts
from ray_split.data.stream import Group, Stream
from ray_split.data.types import PART_NAMES, Inputs
from ray_split.errors import BadPhoneError, RunFailedError, SettingsError, told
from ray_split.messages.contract import Labels
from ray_split.messages.message_checks import check_labels
from ray_split.messages.turn import Turn

Read = list[tuple[Inputs, Array]]
"""Inputs (k, n, ...) and labels (k, n, ...) of groups of phones."""


PROGRAM = (SettingsError, MemoryError)
"""What is no phone's fault."""


class Reader:
    """The samples of a client's phones, for training and for their own evaluation. Raises BadPhoneError."""

    def __init__(self, settings: config.Config, parts: Parts, stream: Stream, labels: Labels) -> None:
        self._name, self._parts, self._stream, self._labels = settings.data.name, parts, stream, labels
        self._batches = Batches(settings, parts)

    def batches(self, turn: Turn, groups: Sequence[Group]) -> Read:
        """The batches of a step."""
        try:
            found = self._batches.of_groups(turn, groups)
        except PROGRAM:
            raise
        except Exception as error:
            steps = self._batches.of_phones(turn, groups)
            raise _whose(((draw.phone, partial(self._batches.of, draw)) for draw in steps), error) from error
        check_labels(turn.phones, self._labels, [labels for _, labels in found])
        return found

    def part(self, part: str, start: int, stop: int) -> tuple[Inputs, Array]:
        """The inputs and labels start:stop of 'val' or 'test'. Raises RunFailedError: they are no phone's."""
        try:
            return self._parts.batch(part, slice(start, stop))
        except PROGRAM:
            raise
        except Exception as error:
            raise RunFailedError(f"the {PART_NAMES[part]} part of {self._name} can't be read: {told(error)}") from error

    def held_out(self, phones: tuple[int, ...], part: str, start: int, stop: int) -> Read:
        """Of what each phone holds out for 'val' or 'test', the samples start:stop."""

        def read(some: tuple[int, ...]) -> Read:
            return [self._parts.batch("train", held) for held in self._stream.held_out(some, part, start, stop)]

        try:
            found = read(phones)
        except PROGRAM:
            raise
        except Exception as error:
            raise _whose(((phone, partial(read, (phone,))) for phone in phones), error) from error
        there = [phone for phone in phones if self._stream.held_out((phone,), part, start, stop)]
        check_labels(tuple(there), self._labels, [labels for _, labels in found])
        return found


def _whose(reads: Iterable[tuple[int, Callable[[], object]]], error: Exception) -> Exception:
    """Whose data it is that could not be read, given each phone's own reading; the error itself if all can be."""
    bad = list[int]()
    reason = ""
    for phone, read in reads:
        try:
            read()
        except Exception as own:  # noqa: BLE001  reading is the user's code, and may raise anything
            bad, reason = [*bad, phone], reason or told(own)
    return BadPhoneError(tuple(bad), f"its data can't be read: {reason}") if bad else error
