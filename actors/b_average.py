"""What becomes of a round's copies of B, as the server closes them: one B."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ray_split import config
from ray_split.arrays import Array
from ray_split.messages.state import Rows, State, places_of, with_fixed
from ray_split.segments import aggregators
from ray_split.segments.copies import Copies
from ray_split.segments.weighted_mean import added

Kept = Mapping[int, Rows]
"""Cohorts' copies themselves, by the cohorts' numbers in the round."""


class Averaging:
    """Adds copies up as they are closed; or keeps them, where the aggregator wants each."""

    def __init__(self, aggregator: config.Aggregator) -> None:
        self._aggregator = aggregator
        self.begin({})

    def begin(self, start: State) -> None:
        """A round begins, with this B."""
        self._start = start
        self._sum: State | None = None
        self._rows: dict[int, Rows] = {}

    def add(self, copies: Copies, shares: Array, number: int) -> None:
        """Take a cohort's copies, of the phones that have a share."""
        if aggregators.aggregator_of(self._aggregator).by_sums:
            self._sum = added(self._sum, copies.average(shares))
        else:
            finished = np.flatnonzero(shares)
            self._rows[number] = Rows({"b": places_of(copies.learned(), finished)}, shares[finished])

    def take_sum(self) -> State | None:
        """What was added up so far, which is then no longer here."""
        total, self._sum = self._sum, None
        return total

    def go_on(self, total: State | None) -> None:
        """Add to this from now on."""
        self._sum = total

    def take_rows(self) -> dict[int, Rows]:
        """What was kept so far, which is then no longer here."""
        rows, self._rows = self._rows, {}
        return rows

    def state(self, *others: Kept) -> State | None:
        """The one B of all copies, those that `others` kept too; None if there were none."""
        rows = {number: own for kept in (self.take_rows(), *others) for number, own in kept.items()}
        if rows:
            in_order = [rows[number] for number in sorted(rows)]
            self._sum = aggregators.combined(self._aggregator, in_order, {"b": self._start})["b"]
        return None if self._sum is None else with_fixed(self._sum, self._start)
