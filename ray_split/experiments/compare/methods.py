"""What a comparison compares: a schedule, alone or with what is done against drift, as in 'splitfed_v1+scaffold'."""

from __future__ import annotations

from typing import Any, NamedTuple

from ray_split import config
from ray_split.algorithms import ALGORITHMS, SERVER_OPTIMIZERS
from ray_split.config.user_code.plugins import find_record, suggest
from ray_split.errors import SettingsError, listed, shown
from ray_split.schedules import SCHEDULES, schedule_of
from ray_split.schedules.schedule import Schedule

FIELDS = {
    **dict.fromkeys(ALGORITHMS, "algorithm"),
    **dict.fromkeys(SERVER_OPTIMIZERS, "server_optimizer"),
}


class Method(NamedTuple):
    """A schedule, and the names of an algorithm and a server optimizer by section, where there are any."""

    schedule: str
    added: dict[str, str]

    @property
    def record(self) -> Schedule:
        """What the schedule is."""
        return schedule_of(config.Schedule(name=self.schedule))

    def sections(self, base: config.Config) -> dict[str, Any]:
        """The sections of what is added: with the settings' kwargs where they name the same, else its defaults."""
        found: dict[str, Any] = {}
        for section, name in self.added.items():
            given = getattr(base, section)
            found[section] = (given if given.name == name else type(given)(name=name)).model_dump()
        return found


def method_of(text: str) -> Method:
    """Of 'splitfed_v1+scaffold+fedavgm' the schedule and what is added. Raises SettingsError."""
    schedule, *names = text.split("+")
    find_record("--schedules", schedule, SCHEDULES, Schedule)
    added: dict[str, str] = {}
    for name in names:
        if name not in FIELDS:
            wrong = f"there is no algorithm or server optimizer {shown(name)} to add to {schedule}"
            there = f"You can add {listed(FIELDS, 'or')}"
            raise SettingsError("--schedules", text, suggest(name, FIELDS, there), wrong)
        if FIELDS[name] in added:
            wrong = f"{shown(text)} has two {FIELDS[name].replace('_', ' ')}s, but a run can have only one"
            allowed = f"Remove {added[FIELDS[name]]} or {name}"
            raise SettingsError("--schedules", text, allowed, wrong)
        added[FIELDS[name]] = name
    return Method(schedule, added)
