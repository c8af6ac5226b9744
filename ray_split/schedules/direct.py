"""Exchanges that clients lead: the driver submits one call for several of them, and the client calls the server.

So no message passes through the driver, and an exchange waits for two answers of the server instead of a chain of five
calls. Ray keeps the order of one caller's calls only, and now several call the server. What orders them is arguments:
exchanges at another client are given the result of those before, and what the driver submits to the server after the
last exchange is submitted after `after`, which is given that one's result.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, zip_longest

from ray_split.messages.turn import Turn
from ray_split.schedules.roles import Handle, Method, Ref, refs_of_each

AT_ONCE = 16  # exchanges in one call: what a call costs is small beside them, and reports still come often

Run = tuple[Handle, list[Turn]]
"""Exchanges one after the other at one client."""


class Led:
    """A round's exchanges at one server, one after the other in the order in which they are submitted here."""

    def __init__(self, server: Handle) -> None:
        self._server = server
        self._last: tuple[Handle, Ref] | None = None  # who led the last one, and what is there once B is free again

    def exchanges(self, client: Handle, turns: Sequence[Turn], following: Turn | None = None) -> Iterator[Ref]:
        """Submit exchanges of one client's; yields the refs of their reports. `following`: its next one after these."""
        for start in range(0, len(turns), AT_ONCE):
            stop = start + AT_ONCE
            then = turns[stop] if stop < len(turns) else following
            some = turns[start:stop]
            yield from self._submit(client, client.exchange, len(some), some, then)

    def turns(self, turns: Sequence[tuple[Handle, Turn]]) -> Iterator[Ref]:
        """Submit exchanges of phones that take turns, each with its client; yields the refs that nobody consumes.

        The next phone's A runs while B does; but a phone's own A has to step first.
        """
        runs = _runs(turns)
        for (client, some), then in zip_longest(runs, runs[1:]):
            if then is None:
                yield from self.exchanges(client, some)
            else:
                yield from self._until(client, some, then)

    def _until(self, client: Handle, some: Sequence[Turn], then: Run) -> Iterator[Ref]:
        """Submit these exchanges; B is free for another client's before the last one's A has stepped."""
        *first, last = some
        yield from self.exchanges(client, first, last)
        [through] = self._submit(client, client.through, 1, last)
        host, (following, *_) = then
        yield host.forward_ahead.remote(following)
        # Given what comes before: if that can't be made, for who comes before it has died, so it is told.
        yield client.finish.remote(last, through)

    def _submit(self, client: Handle, method: Method, count: int, *arguments: object) -> list[Ref]:
        others = [] if self._last is None or self._last[0] is client else [self._last[1]]
        refs = refs_of_each(method, count, *arguments, *others)
        self._last = client, refs[-1]
        return refs

    def end(self) -> Iterator[Ref]:
        """From here on the driver's calls to the server come after the exchanges."""
        if self._last is not None:
            yield self._server.after.remote(self._last[1])
            self._last = None


Cohort = tuple[Handle, Sequence[Turn], Ref]
"""A cohort that goes abreast with others: its client, its exchanges, and what is there once the server is ready."""


def lead_abreast(server: Handle, cohorts: Sequence[Cohort]) -> Iterator[Ref]:
    """Submit the exchanges of cohorts that go abreast, a client's together; yields the refs of their reports.

    What the driver submits to the server afterwards comes after them.
    """
    hosts: dict[int, list[Cohort]] = {}
    for cohort in cohorts:
        if cohort[1]:
            hosts.setdefault(id(cohort[0]), []).append(cohort)
    size = max(1, AT_ONCE // max((len(lanes) for lanes in hosts.values()), default=1))
    last: dict[int, Ref] = {}
    for start in range(0, max((len(turns) for _, turns, _ in cohorts), default=0), size):
        for host, lanes in hosts.items():
            refs = _submit_some(lanes, start, start + size)
            yield from refs
            last |= {host: refs[-1]} if refs else {}
    if last:
        yield server.after.remote(*last.values())


def _submit_some(lanes: Sequence[Cohort], start: int, stop: int) -> list[Ref]:
    """Submit these steps of the cohorts of one client."""
    some = [(turns[start:stop], next(iter(turns[stop:]), None)) for _, turns, _ in lanes if turns[start:stop]]
    opened = [ready for _, _, ready in lanes] if start == 0 else []
    count = sum(len(turns) for turns, _ in some)
    return refs_of_each(lanes[0][0].abreast, count, some, *opened) if count else []


def _runs(turns: Sequence[tuple[Handle, Turn]]) -> list[Run]:
    groups = [list(some) for _, some in groupby(turns, lambda each: id(each[0]))]
    return [(some[0][0], [turn for _, turn in some]) for some in groups]
