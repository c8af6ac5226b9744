"""The schedules: one short file each, a generator that submits a round's calls in the right order.

A schedule yields every ref that no other call consumes, so that the round loop can bound how many are outstanding
and check them all, and returns the refs of the round's end: the states of A and C, and of B.
To add one, write its file and its line here.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from ray_split import config
from ray_split.draws import Stream, Turn
from ray_split.failure import SettingsError
from ray_split.loading import find
from ray_split.schedules.sequential import sequential
from ray_split.wiring import Ref, Roles

Round = Generator[Ref, None, tuple[Ref, Ref]]

SCHEDULES: dict[str, Callable[..., Round]] = {"sequential": sequential}


def schedule_of(settings: config.Schedule) -> Callable[[Turn, Stream, Roles], Round]:
    """The schedule that the settings name, with its kwargs. Raises SettingsError."""
    function = find("schedule.name", settings.name, SCHEDULES)
    allowed: dict[str, Any] = getattr(function, "kwargs", {})
    for name, value in settings.kwargs.items():
        if value not in allowed.get(name, ()):
            choices = "; ".join(f"{key}: {' or '.join(values)}" for key, values in allowed.items())
            raise SettingsError("schedule.kwargs", settings.kwargs, choices or "empty")
    return lambda turn, stream, roles: function(turn, stream, roles, **settings.kwargs)
