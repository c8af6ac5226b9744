"""Phones that fail as phones do: they are off, drop out in the middle of a round, or come too late for it.

A round's fates follow from the settings alone, in this order:
1. Phones are drawn: `per_round`, and `over_select` of that more, rounded up.
2. Of these, some are off (`availability`, `absent`, and remote phones that are not there): they are passed over, and
   nobody is drawn in their place.
3. Of those that are on, some drop out (`dropout`), each before a step that is drawn too, any of its steps as likely.
4. The round ends when `per_round` phones have finished, when nobody is under way any more, or at the `deadline`,
   whichever is first. Who has not finished by then is late, and has taken the steps that ended before it; so is one
   that would have dropped out after the round's end.
When a step ends is virtual time, of the round in which nobody is late: what those who come late would still have done
does delay the others. Without virtual time (no device, no link) every step takes as long as any other.
What a phone did before it failed is left out of all averages; a B that is shared has stepped on it, and stays so.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ray_split.arrays import Array
from ray_split.config.phones import Phones
from ray_split.seeds import uniform

FATES = ("finished", "dropped", "late")


class Ends(NamedTuple):
    """When phones are through with a round in which nobody is late, in seconds from its start."""

    finish: Array  # (P,) with all that it does; of one that drops out until then
    steps: Array  # (P, S) with each of its steps; beyond its last one infinity, or anything later


class Fate(NamedTuple):
    """What becomes of a round's phones. Arrays are in the order of `phones` (P,), those that were drawn and are on."""

    phones: Array
    steps: Array  # that each takes until the round goes on without it
    dropped: Array
    late: Array
    offline: int = 0  # phones that were drawn and are off
    over: float | None = None  # seconds after which the round ended, where that was decided here

    @property
    def finished(self) -> Array:
        """Whose work counts."""
        return ~(self.dropped | self.late)

    @property
    def reached(self) -> Array:
        """Who had something of the round before its end, where phones take turns: all but the late without a step."""
        return self.phones[~self.late | (self.steps > 0)]

    def finishing(self, phones: Array) -> Array:
        """Those of some of the phones whose work counts, in their order."""
        return phones[self._of(phones, self.finished)]

    def taken(self, phones: Array) -> Array:
        """The steps that some of the phones take."""
        return self._of(phones, self.steps)

    def _of(self, phones: Array, values: Array) -> Array:
        order = np.argsort(self.phones)
        found: Array = values[order[np.searchsorted(self.phones, phones, sorter=order)]]
        return found

    def row(self) -> dict[str, int]:
        """The round's figures in metrics.jsonl."""
        counts = {"offline": self.offline, "dropped": self.dropped.sum(), "late": self.late.sum()}
        return {"phones": len(self.phones), **{f"phones_{name}": int(count) for name, count in counts.items()}}

    def column(self, phones: Array) -> Array:
        """The fate of each of some phones, in words; None of those that are not the round's."""
        words = dict(zip(self.phones.tolist(), np.array(FATES)[self.dropped + 2 * self.late].tolist(), strict=True))
        return np.array([words.get(phone) for phone in phones.tolist()], object)


class Fates:
    """Decides them, by the settings and the run's seed."""

    def __init__(self, settings: Phones, seed: int, wanted: int) -> None:
        self._seed = seed
        self._availability, self._dropout = settings.availability, settings.dropout
        self._ends = settings.over_select > 0 or settings.deadline is not None  # the round, before all are through
        self._deadline = math.inf if settings.deadline is None else settings.deadline
        self._wanted = wanted

    def of(
        self, round: int, drawn: Array, planned: Array, ends: Callable[[Array], Ends], absent: Sequence[int] = ()
    ) -> Fate:
        """The fate of the phones drawn for a round, which plan to take so many steps each.

        `ends`: from the steps that those on take, late or not, to when they end. `absent`: phones that are off.
        """
        on = self._on(round, drawn) & ~np.isin(drawn, list(absent))
        phones, planned = drawn[on], planned[on]
        steps = self._until_dropout(round, phones, planned)
        fate = Fate(phones, steps, steps < planned, np.zeros(len(phones), bool), len(drawn) - len(phones))
        if not self._ends or not len(phones):
            return fate
        return cut_off(fate, ends(steps), self._deadline, self._wanted)

    def regardless(self) -> Fates:
        """The same, with rounds that last until all are through."""
        found = copy.copy(self)
        found._ends = False
        return found

    def _on(self, round: int, phones: Array) -> Array:
        if self._availability == 1:
            return np.ones(len(phones), bool)
        found: Array = uniform(self._seed, "availability", round, phones)[:, 0] < self._availability
        return found

    def _until_dropout(self, round: int, phones: Array, planned: Array) -> Array:
        if not self._dropout:
            return planned
        drops, step = uniform(self._seed, "dropout", round, phones, count=2).T
        return np.where(drops < self._dropout, (step * planned).astype(planned.dtype), planned)


def cut_off(fate: Fate, ends: Ends, deadline: float, wanted: int) -> Fate:
    """What becomes of phones in a round that ends once so many have finished, or at a deadline.

    Of phones that finish at the same time, the first in their order comes first.
    """
    coming = np.flatnonzero(~fate.dropped & (ends.finish <= deadline))
    first = coming[np.argsort(ends.finish[coming], kind="stable")][:wanted]
    over = float(ends.finish[first[-1]]) if len(first) == wanted else deadline
    in_time = np.isin(np.arange(len(fate.phones)), first)
    steps = np.where(in_time, fate.steps, np.minimum(fate.steps, (ends.steps < over).sum(axis=1)))
    late = ~in_time & (~fate.dropped | (steps < fate.steps))
    over = min(over, float(ends.finish.max()))
    return fate._replace(steps=steps, dropped=fate.dropped & ~late, late=late, over=over)


def chosen(per_round: int | float | None, count: int) -> int:
    """How many phones a round is to have: a number, a fraction (at least one phone), or all."""
    if per_round is None:
        return count
    return per_round if isinstance(per_round, int) else max(1, round(per_round * count))


def drawn(phones: Phones, count: int) -> int:
    """How many phones are drawn for a round: `over_select` more than it is to have, as far as there are so many."""
    return min(count, math.ceil(round(chosen(phones.per_round, count) * (1 + phones.over_select), 9)))


def equal_steps(steps: Array, in_turn: bool) -> Ends:
    """When steps end that all take a second: of phones abreast, or `in_turn` one phone after the other."""
    start = np.cumsum(steps) - steps if in_turn else np.zeros_like(steps)
    each = start[:, None] + np.arange(1, steps.max(initial=0) + 1, dtype=float)
    return Ends((start + steps).astype(float), each)
