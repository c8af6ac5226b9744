"""Where a call stands in the stream, which every call to an actor says first; and how training begins."""

from __future__ import annotations

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


class Turn(NamedTuple):
    """Where a call stands in the stream. `attempt` counts the tries of a round; it changes no draw."""

    round: int
    attempt: int
    phones: tuple[int, ...]  # the cohort: those that train together
    step: int
    joint: JointStep | None = None  # of a step that they share with others

    def cohorts(self) -> list[tuple[int, ...]]:
        """The phones by cohorts: of a joint batch's call there are several."""
        if self.joint is None or not self.joint.sizes:
            return [self.phones]
        places = iter(self.phones)
        return [tuple(islice(places, size)) for size in self.joint.sizes]


class Start(NamedTuple):
    """How a cohort's phones begin a round, beside the weights that `load` brings."""

    fresh_optimizer: bool = True  # else the one that came with the weights goes on
    crosses: bool = True  # the weights come to the phones from outside, and their bytes are counted
    sender: tuple[int, ...] = ()  # the phone that handed them on
    steps: tuple[int, ...] | None = None  # how many each phone takes, if not all that it planned


USUAL = Start()
