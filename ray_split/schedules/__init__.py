"""The schedules: one short file each, a generator that submits a round's calls in the right order.

A schedule yields every ref that no other call consumes, so that the round loop can bound how many are outstanding
and check them all, and returns the refs of the round's end: the state of A and C, and of B; None where it is the
average that the fed server collected. To add one, write its file and its line here. Its function's attributes:
`kwargs` (the settings it takes and what they may be), `one_by_one` (phones take turns: no cohorts), `personal`
(A and C are each phone's own), `serverless` (B is not on the server), `hands_on` (nothing is averaged), `replicas` (the
server may have several: any number gives the "same bits", or each has its "own b" through a round).
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from ray_split import config
from ray_split.config.plugins import find, signature_of
from ray_split.data.stream import Stream, Turn
from ray_split.errors import SettingsError
from ray_split.schedules.fedavg import fedavg
from ray_split.schedules.parallel import parallel
from ray_split.schedules.roles import Ref, Roles
from ray_split.schedules.sequential import sequential
from ray_split.schedules.splitfed_v1 import splitfed_v1
from ray_split.schedules.splitfed_v2 import splitfed_v2
from ray_split.schedules.splitfed_v3 import splitfed_v3
from ray_split.schedules.unsplit import unsplit

Round = Generator[Ref, None, tuple[Ref | None, Ref | None]]

SCHEDULES: dict[str, Callable[..., Round]] = {
    "sequential": sequential,
    "splitfed_v1": splitfed_v1,
    "splitfed_v2": splitfed_v2,
    "splitfed_v3": splitfed_v3,
    "parallel": parallel,
    "fedavg": fedavg,
    "unsplit": unsplit,
}


def idle(turn: Turn, stream: Stream, roles: Roles) -> Round:
    """A round that no phone takes part in: nothing is collected, so all stays as it is."""
    yield roles.fed_server.collect.remote(turn, [])
    return None, None


def schedule_of(settings: config.Schedule) -> Callable[[Turn, Stream, Roles], Round]:
    """The schedule that the settings name, with its kwargs. Raises SettingsError."""
    function = find("schedule.name", settings.name, SCHEDULES)
    allowed: dict[str, Any] = getattr(function, "kwargs", {})
    for name, value in settings.kwargs.items():
        if value not in allowed.get(name, ()):
            choices = "; ".join(f"{key}: {' or '.join(values)}" for key, values in allowed.items())
            raise SettingsError("schedule.kwargs", settings.kwargs, choices or "empty")
    if settings.name not in SCHEDULES:
        _check_takes(settings, function)
    return lambda turn, stream, roles: function(turn, stream, roles, **settings.kwargs)


FORM = "a generator function of (turn, stream, roles) and its kwargs"


def _check_takes(settings: config.Schedule, function: Callable[..., Any]) -> None:
    try:
        signature_of("schedule.name", function).bind(None, None, None, **settings.kwargs)
    except TypeError as error:
        raise SettingsError("schedule.name", settings.name, f"{FORM}: {error}") from error


def one_by_one(settings: config.Schedule) -> bool:
    """Whether the schedule's phones take turns, so that there are no cohorts."""
    return bool(getattr(find("schedule.name", settings.name, SCHEDULES), "one_by_one", False))


HELD_OUT = 0.2  # of a phone's samples, where models are personal


def with_held_out(settings: config.Config) -> config.Config:
    """The settings with the share that phones hold out decided."""
    if settings.phones.held_out is not None:
        return settings
    return settings.with_values(phones={"held_out": HELD_OUT if personal(settings.schedule) else 0.0})


def serverless(settings: config.Schedule) -> bool:
    """Whether B is not on the server, so that nothing of it crosses."""
    return bool(getattr(find("schedule.name", settings.name, SCHEDULES), "serverless", False))


def averages(settings: config.Schedule) -> bool:
    """Whether anything is averaged at a round's end, and not handed from phone to phone."""
    return not getattr(find("schedule.name", settings.name, SCHEDULES), "hands_on", False)


def check_replicas(settings: config.Config) -> None:
    """Raises SettingsError if the server has replicas, and the schedule has no use for them."""
    name, replicas = settings.schedule.name, settings.server.replicas
    if replicas > 1 and not takes_replicas(settings.schedule):
        allowed = f"1: {name} has no use for more (splitfed_v1, splitfed_v2, splitfed_v3 and parallel do)"
        raise SettingsError("server.replicas", replicas, allowed)


def takes_replicas(settings: config.Schedule) -> bool:
    """Whether the server may have several replicas."""
    return _replicas(settings) is not None


def same_with_replicas(settings: config.Schedule) -> bool:
    """Whether any number of the server's replicas gives the same bits."""
    return _replicas(settings) == "same bits"


def _replicas(settings: config.Schedule) -> str | None:
    return getattr(find("schedule.name", settings.name, SCHEDULES), "replicas", None)


def personal(settings: config.Schedule) -> bool:
    """Whether A and C are each phone's own."""
    return bool(getattr(find("schedule.name", settings.name, SCHEDULES), "personal", False))
