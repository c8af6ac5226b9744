"""A schedule run once more with no actors: what it submits, call by call, as it submits it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ray_split.draws import Stream, Turn
from ray_split.schedules import Round
from ray_split.state import Array
from ray_split.wiring import FED_SERVER, Roles


class Call(NamedTuple):
    """One call that a schedule submits; arguments that stand for results are what `submit` gave for theirs."""

    role: str  # client, server or fed server
    number: int  # which of the role's actors
    method: str
    arguments: tuple[Any, ...]
    num_returns: int = 1

    @property
    def turn(self) -> Turn:
        """Where the call stands in the stream."""
        turn: Turn = self.arguments[0]
        return turn


Submit = Callable[[Call], Any]
"""What a call's result is; a list of `num_returns` of them, if these are several."""


@dataclass(frozen=True)
class _Method:
    submit: Submit
    role: str
    number: int
    name: str
    num_returns: int = 1

    def options(self, num_returns: int) -> _Method:
        return _Method(self.submit, self.role, self.number, self.name, num_returns)

    def remote(self, *arguments: Any) -> Any:
        return self.submit(Call(self.role, self.number, self.name, arguments, self.num_returns))


@dataclass(frozen=True)
class _Handle:
    submit: Submit
    role: str
    number: int = 0

    def __getattr__(self, name: str) -> _Method:
        return _Method(self.submit, self.role, self.number, name)


def replay(
    schedule: Callable[[Turn, Stream, Roles], Round], stream: Stream, round: int, submit: Submit,
    servers: int = 1, single: bool = False,
) -> None:  # fmt: skip
    """Submit a round's calls, in the schedule's order."""
    clients = [_Handle(submit, "client", i) for i in range(servers)]
    roles = Roles(clients, [_Handle(submit, "server", i) for i in range(servers)], _Handle(submit, FED_SERVER), single)
    for _ in schedule(Turn(round, 0, (), -1), stream, roles):
        pass


class Merged(Stream):
    """A stream whose cohorts are put together: one for each of the server's replicas, which serves their phones.

    A cohort is how phones are simulated. Real ones all train at once, whatever number of them is simulated together.
    """

    @classmethod
    def of(cls, stream: Stream, servers: int) -> Merged:
        """The same stream otherwise."""
        made = cls.__new__(cls)
        made.__dict__.update(stream.__dict__)
        made._servers, made._apart = servers, stream.cohorts
        return made

    _servers: int
    _apart: Callable[[int], list[tuple[int, ...]]]

    def cohorts(self, round: int) -> list[tuple[int, ...]]:
        """As Stream.cohorts: those with most steps first."""
        apart = self._apart(round)
        joined = (sum(apart[i :: self._servers], ()) for i in range(min(self._servers, len(apart))))
        return [self._sorted(round, np.array(phones)) for phones in joined]

    def _sorted(self, round: int, phones: Array) -> tuple[int, ...]:
        order = np.lexsort((-self.samples(phones), -self.taken(round, phones)))
        return tuple(phones[order].tolist())
