"""Where a call stands in the stream, which every call to an actor says first; and how training begins."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple


class JointStep(NamedTuple):
    """How the batches of several phones weigh in a step that they share."""

    largest: int  # of a phone's batches in the step
    samples: int  # in all of them
    sizes: tuple[int, ...] = ()  # phones in each of a call's cohorts, where it brings several

    @property
    def factor(self) -> float:
        """Times this, what was weighted by batch size over `largest` is weighted by batch size over all samples."""
        return self.largest / self.samples


class Accumulation(NamedTuple):
    """Of how many batches a phone's gradients are accumulated, before its optimizers step once."""

    batches: int  # fewer in the last step of a phone's round, if its batches don't divide by it
    planned: tuple[int, ...]  # the batches that each of the turn's phones plans for the round

    def updates(self, taken: Sequence[int]) -> list[int]:
        """How often the optimizers of phones step that take so many batches: not on those of a step that is cut off."""
        return [
            -(-own // self.batches) if own == whole else own // self.batches
            for own, whole in zip(taken, self.planned, strict=True)
        ]


class Turn(NamedTuple):
    """Where a call stands in the stream. `attempt` counts the tries of a round; it changes no draw."""

    round: int
    attempt: int
    phones: tuple[int, ...]  # the cohort: those that train together
    step: int
    joint: JointStep | None = None  # of a step that they share with others
    before: int = 0  # updates of the run before the round's, or its phone's, first: for schedules of learning rates
    accumulation: Accumulation | None = None  # where it takes several batches, each with a turn, to make an update

    def cohorts(self) -> list[tuple[int, ...]]:
        """The phones by cohorts: of a joint batch's call there are several."""
        if self.joint is None or not self.joint.sizes:
            return [self.phones]
        places = iter(self.phones)
        return [tuple(islice(places, size)) for size in self.joint.sizes]

    @property
    def update(self) -> int:
        """How often the phones' optimizers have stepped in the round before."""
        return self.step // self.accumulation.batches if self.accumulation else self.step

    @property
    def begins_update(self) -> bool:
        """Whether the batch is the first one whose gradients are accumulated."""
        return self.accumulation is None or not self.step % self.accumulation.batches

    @property
    def updates_any(self) -> bool:
        """Whether it is the last one, of any of the phones: then their optimizers step."""
        if self.accumulation is None:
            return True
        batches, planned = self.accumulation
        return not (self.step + 1) % batches or self.step + 1 in planned

    def updating(self, count: int) -> list[int]:
        """The places of those that step, among the first `count` phones."""
        if self.accumulation is None or not (self.step + 1) % self.accumulation.batches:
            return list(range(count))
        return [place for place in range(count) if self.accumulation.planned[place] == self.step + 1]

    def parts(self, count: int) -> list[int] | None:
        """Of how many batches each of the first phones' gradients are the mean; None if none are accumulated."""
        if self.accumulation is None:
            return None
        batches, planned = self.accumulation
        begun = self.update * batches
        return [min(batches, own - begun) for own in planned[:count]]


class Start(NamedTuple):
    """How a cohort's phones begin a round, beside the weights that `load` brings."""

    fresh_optimizer: bool = True  # else the one that came with the weights goes on
    crosses: bool = True  # the weights come to the phones from outside, and their bytes are counted
    sender: tuple[int, ...] = ()  # the phone that handed them on
    steps: tuple[int, ...] | None = None  # how many each phone takes, if not all that it planned
    trains: bool = False  # batches may be made ahead: the first forward is at step 0


USUAL = Start()
