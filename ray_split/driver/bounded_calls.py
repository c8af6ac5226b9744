"""A bounded number of calls under way: through a schedule, and through an evaluation."""

from __future__ import annotations

from collections.abc import Iterator

from ray_split.driver.backend import Backend
from ray_split.messages.report import Report, Sums
from ray_split.schedules.roles import Ref
from ray_split.schedules.schedule import Round

MAX_OUTSTANDING = 64  # refs that nobody consumes: exchanges submitted and not yet checked


class Checked:
    """Goes through a schedule with at most MAX_OUTSTANDING refs unchecked; gives their reports, in order, and how
    many of all that were unchecked had no answer yet when it turned to wait for these.

    `end` has what the schedule returned, once it is through.
    """

    def __init__(self, schedule: Round, backend: Backend) -> None:
        self._schedule = schedule
        self._backend = backend
        self.end: tuple[Ref | None, Ref | None] = (None, None)

    def __iter__(self) -> Iterator[tuple[list[Report], int]]:
        outstanding: list[Ref] = []
        for ref in self._refs():
            outstanding.append(ref)
            if len(outstanding) >= MAX_OUTSTANDING:
                half = len(outstanding) // 2
                queued = self._backend.waiting(outstanding)
                due, outstanding = outstanding[:half], outstanding[half:]
                yield self._check(due), queued
        queued = self._backend.waiting(outstanding)
        yield self._check(outstanding), queued

    def _refs(self) -> Iterator[Ref]:
        self.end = yield from self._schedule

    def _check(self, refs: list[Ref]) -> list[Report]:
        reports: list[Report | None] = self._backend.get(refs)
        return [report for report in reports if report is not None]


def sum_reports(backend: Backend, refs: Iterator[Ref]) -> Sums:
    """The reports added up in their order, with at most MAX_OUTSTANDING calls under way."""
    sums, outstanding = Sums(), list[Ref]()
    for ref in refs:
        outstanding.append(ref)
        if len(outstanding) > MAX_OUTSTANDING:
            sums.add(backend.get([outstanding.pop(0)])[0] or Report())
    for report in backend.get(outstanding):
        sums.add(report or Report())
    return sums
