"""What a run's summary needs of its rounds so far, without keeping them."""

from __future__ import annotations

from collections import Counter
from typing import Any

from ray_split.messages.report import best_round

PARTS = ("phone", "server", "communication", "waiting")  # of virtual time
FAILED = ("phones_offline", "phones_dropped", "phones_late")
ADDED = ("round_seconds", "samples", "phones", "bytes_up", "bytes_down", *FAILED)
VIRTUAL = ("virtual_seconds", *(f"virtual_{part}_seconds" for part in PARTS))  # where there is virtual time


class Totals:
    """Sums over the rounds, the last one's row, and the best one's."""

    def __init__(self) -> None:
        self.rounds = 0
        self.last: dict[str, Any] = {}
        self.best: dict[str, Any] | None = None
        self.sums: Counter[str] = Counter()

    def add(self, row: dict[str, Any]) -> None:
        """One more round."""
        self.rounds += 1
        self.last, self.best = row, self._best_with(row)
        for column in ADDED:
            self.sums[column] += row.get(column, 0)  # a run that is resumed may be older than the column
        for column in VIRTUAL:
            if column in row:
                self.sums[column] += row[column]

    def amend(self, row: dict[str, Any]) -> None:
        """The last round's row has more columns now."""
        self.best, self.last = row if self.best is self.last else self.best, row

    def _best_with(self, row: dict[str, Any]) -> dict[str, Any] | None:
        return best_round([row] if self.best is None else [self.best, row])

    def would_be_best(self, row: dict[str, Any]) -> bool:
        """Whether a round's validation beats every round's before."""
        return self._best_with(row) is row
