"""How a client reads its phones' samples: a phone whose samples can't be read, or are no good, is named."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import torch

from actors.resources.gpu import device_of
from ray_split import config
from ray_split.arrays import Array
from ray_split.data.batches import Batches
from ray_split.data.batches_ahead import BatchesAhead, decoders_of, next_in_turn
from ray_split.data.load import Parts
from ray_split.data.stream import Group, Stream
from ray_split.data.types import PART_NAMES, Inputs
from ray_split.errors import BadPhoneError, RunFailedError, SettingsError, told
from ray_split.messages.contract import Labels
from ray_split.messages.message import tree_map
from ray_split.messages.message_checks import check_labels
from ray_split.messages.staging import pinned
from ray_split.messages.turn import Turn
from ray_split.schedules import schedule_of

Steps = Callable[[], Sequence[Sequence[Group]]]
"""The groups of each of a cohort's steps."""

Read = list[tuple[Inputs, Array]]
"""Inputs (k, n, ...) and labels (k, n, ...) of groups of phones."""


PROGRAM = (SettingsError, MemoryError)
"""What is no phone's fault."""


class Reader:
    """The samples of a client's phones, for training and for their own evaluation. Raises BadPhoneError."""

    def __init__(self, settings: config.Config, parts: Parts, stream: Stream, labels: Labels) -> None:
        self._name, self._parts, self._stream, self._labels = settings.data.name, parts, stream, labels
        self._batches = Batches(settings, parts)
        decoders = decoders_of(settings.data.decoders, parts.train.inputs)
        self._ahead = BatchesAhead(decoders) if decoders else None
        on_gpu = device_of(settings.cluster.client_gpus, torch.cuda.is_available()) == "cuda"
        self._pins = on_gpu and self._batches.is_whole_beside
        in_turn = schedule_of(settings.schedule).order == "in_turn"
        self._clients = int(settings.cluster.client_actors) if in_turn and self._ahead else 0

    def batches(self, turn: Turn, groups: Sequence[Group]) -> Read:
        """The batches of a step."""
        try:
            found = self._made(turn, groups)
        except PROGRAM:
            raise
        except Exception as error:
            steps = self._batches.of_phones(turn, groups)
            raise _whose(((draw.phone, partial(self._batches.of, draw)) for draw in steps), error) from error
        check_labels(turn.phones, self._labels, [labels for _, labels in found])
        return found

    def _made(self, turn: Turn, groups: Sequence[Group]) -> Read:
        if self._ahead is None:
            return self._batches.of_groups(turn, groups)
        return self._batches.finished(turn, groups, self._ahead.take(turn, partial(self._begun, turn, groups)))

    def _begun(self, turn: Turn, groups: Sequence[Group]) -> Read:
        begun = self._batches.begun(turn, groups)
        return [(tree_map(pinned, inputs), labels) for inputs, labels in begun] if self._pins else begun

    def prepare(self, turn: Turn, steps: Steps) -> None:
        """Let threads begin with the cohort's batches from the turn's on, where they may; `steps` are all of its.

        Where phones train one after the other, with those of the next one too.
        """
        if self._ahead is None:
            return
        stop = turn.step + self._ahead.depth
        self._begin(turn, steps(), stop)
        if self._clients and stop > len(steps()) and (then := next_in_turn(self._stream, turn, self._clients)):
            self._begin(then, self._stream.cohort_batches(then.round, then.phones), stop - len(steps()))

    def _begin(self, turn: Turn, steps: Sequence[Sequence[Group]], stop: int) -> None:
        assert self._ahead is not None
        for step in range(turn.step, min(stop, len(steps))):
            at = turn._replace(step=step)
            self._ahead.begin(at, partial(self._begun, at, steps[step]))

    def drop(self, phones: tuple[int, ...] | None = None) -> None:
        """What was made ahead for these phones, or for all, is of no use."""
        if self._ahead is not None:
            self._ahead.drop(phones)

    def end(self) -> None:
        """Let its threads end."""
        if self._ahead is not None:
            self._ahead.end()

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
