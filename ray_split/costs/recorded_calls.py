"""A schedule run once more with no actors: what it submits, call by call, as it submits it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ray_split.arrays import Array
from ray_split.data.stream import Stream
from ray_split.messages.turn import Turn
from ray_split.schedules.roles import FED_SERVER, Roles
from ray_split.schedules.schedule import Submit as SubmitRound


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

    @property
    def name(self) -> str:
        """As a schedule writes it, without remote."""
        return f"{self.role.replace(' ', '_')}.{self.method}"


Submit = Callable[[Call], Any]
"""What a call's result is; a list of `num_returns` of them, if these are several."""


class NotRemoteError(TypeError):
    """A method of an actor was called itself: its text says which."""


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

    def __call__(self, *_: Any, **__: Any) -> Any:
        raise NotRemoteError(Call(self.role, self.number, self.name, ()).name)


@dataclass(frozen=True)
class _Handle:
    submit: Submit
    role: str
    number: int = 0

    def __getattr__(self, name: str) -> _Method:
        return _Method(self.submit, self.role, self.number, name)


def replay(
    schedule: SubmitRound, stream: Stream, round: int, submit: Submit,
    servers: int = 1, single: bool = False,
) -> None:  # fmt: skip
    """Submit a round's calls, in the schedule's order."""
    for _ in schedule(Turn(round, 0, (), -1), stream, roles_of(submit, servers, single)):
        pass


def roles_of(submit: Submit, servers: int, single: bool) -> Roles:
    """Actors of which every call is told to `submit`."""
    clients = [_Handle(submit, "client", i) for i in range(servers)]
    return Roles(clients, [_Handle(submit, "server", i) for i in range(servers)], _Handle(submit, FED_SERVER), single)


class Merged(Stream):
    """A stream whose cohorts are put together: one for each of the server's replicas, which serves their phones.

    A cohort is how phones are simulated. Real ones all train at once, whatever number of them is simulated together.
    """

    def __init__(self, stream: Stream, servers: int) -> None:
        """The same stream otherwise, its draws that are remembered too."""
        self.__dict__.update(stream.__dict__)
        self._servers, self._apart = servers, stream.cohorts
        self._counting: dict[int, frozenset[int]] = {}

    def cohorts(self, round: int) -> list[tuple[int, ...]]:
        """As Stream.cohorts: those with most steps first."""
        apart = self._apart(round)
        joined = (sum(apart[i :: self._servers], ()) for i in range(min(self._servers, len(apart))))
        return [self._sorted(round, np.array(phones)) for phones in joined]

    def shares(self, round: int, phones: Sequence[int]) -> Array:
        """1 of phones that finish, else 0: what weights weigh in an average makes no difference to when they cross."""
        if round not in self._counting:
            self._counting[round] = frozenset(self.finishing(round))
        return np.array([phone in self._counting[round] for phone in phones], float)

    def _sorted(self, round: int, phones: Array) -> tuple[int, ...]:
        order = np.lexsort((-self.samples(phones), -self.taken(round, phones)))
        return tuple(phones[order].tolist())
