"""A schedule run once more with no actors: what it submits, call by call, as it submits it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ray_split import config
from ray_split.arrays import Array
from ray_split.config.plugins import blamed
from ray_split.data.stream import Stream
from ray_split.errors import SettingsError, brief
from ray_split.messages.turn import Turn
from ray_split.schedules import schedule_of
from ray_split.schedules.roles import FED_SERVER, Roles, is_single
from ray_split.schedules.schedule import FORM
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
    schedule: SubmitRound, stream: Stream, round: int, submit: Submit,
    servers: int = 1, single: bool = False,
) -> None:  # fmt: skip
    """Submit a round's calls, in the schedule's order."""
    for _ in schedule(Turn(round, 0, (), -1), stream, _roles(submit, servers, single)):
        pass


def _roles(submit: Submit, servers: int, single: bool) -> Roles:
    clients = [_Handle(submit, "client", i) for i in range(servers)]
    return Roles(clients, [_Handle(submit, "server", i) for i in range(servers)], _Handle(submit, FED_SERVER), single)


def try_schedule(settings: config.Config, stream: Stream) -> None:
    """See that a schedule of the user's makes a generator, before there are actors. Raises SettingsError."""
    name, schedule = settings.schedule.name, schedule_of(settings.schedule)
    if inspect.isgeneratorfunction(schedule.submit):
        return
    roles = _roles(lambda call: [None] * call.num_returns, settings.server.replicas, is_single(settings))
    with blamed("schedule.name", name):
        made: Any = schedule.bind(settings.schedule.kwargs)(Turn(0, 0, (), -1), stream, roles)
    if not isinstance(made, Generator):
        raise SettingsError("schedule.name", name, f"{FORM}; it returned {brief(made, 60)}")
    made.close()


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
