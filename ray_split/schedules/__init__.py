"""The schedules: one short file each, a generator that submits a round's calls in the right order, and a table.

A schedule yields every ref that no other call consumes, so that the round loop can bound how many are outstanding
and check them all, and returns the refs of the round's end: the state of A and C, and of B; None where it is the
average that the fed server collected. To add one, write its file and its line here: what the rest of a run must know of
it is in its record, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ray_split import config
from ray_split.config import yaml12
from ray_split.config.user_code.by_value import spoken
from ray_split.config.user_code.plugins import find_record, unknown_kwargs
from ray_split.data.stream import Stream
from ray_split.errors import SettingsError, listed
from ray_split.messages.turn import Turn
from ray_split.schedules.exchange import STATISTICS
from ray_split.schedules.fedavg import fedavg
from ray_split.schedules.parallel import BATCH, parallel
from ray_split.schedules.roles import Roles
from ray_split.schedules.schedule import FORM, Round, Schedule
from ray_split.schedules.sequential import OPTIMIZER, sequential
from ray_split.schedules.splitfed_v1 import splitfed_v1
from ray_split.schedules.splitfed_v2 import splitfed_v2
from ray_split.schedules.splitfed_v3 import splitfed_v3
from ray_split.schedules.unsplit import unsplit

KEPT = {"statistics": tuple(STATISTICS)}
SCHEDULES = {
    "sequential": Schedule(
        sequential,
        takes={"optimizer": OPTIMIZER},
        order="in_turn",
        averages=False,
        clips=True,
        accumulates=True,
        direct=True,
    ),
    "splitfed_v1": Schedule(
        splitfed_v1,
        takes=KEPT,
        replicas="same_bits",
        clips=True,
        accumulates=True,
        way="own_copies",
        remembers=True,
        direct=True,
    ),
    "splitfed_v2": Schedule(
        splitfed_v2,
        takes=KEPT,
        order="interleaved",
        replicas="own_b",
        clips=True,
        accumulates=True,
        remembers=True,
        direct=True,
    ),
    "splitfed_v3": Schedule(
        splitfed_v3,
        takes={},
        personal=True,
        replicas="same_bits",
        clips=True,
        accumulates=True,
        way="own_copies",
        remembers=True,
        direct=True,
    ),
    "parallel": Schedule(
        parallel, takes={**KEPT, "batch": BATCH}, replicas="own_b", joint_batch=True, way="shared_step", remembers=True
    ),
    "fedavg": Schedule(fedavg, takes={}, on_server=False, clips=True, accumulates=True, remembers=True),
    "unsplit": Schedule(
        unsplit, takes={}, order="in_turn", averages=False, on_server=False, clips=True, accumulates=True
    ),
}


def idle(turn: Turn, stream: Stream, roles: Roles) -> Round:
    """A round that no phone takes part in: nothing is collected, so all stays as it is."""
    yield roles.fed_server.collect.remote(turn, [])
    return None, None


def schedule_of(settings: config.Schedule) -> Schedule:
    """The schedule that the settings name. Raises SettingsError."""
    return find_record("schedule.name", settings.name, SCHEDULES, Schedule)


def _not_taken(named: config.Schedule, takes: Mapping[str, Sequence[str]]) -> SettingsError:
    """What is said of the first of the kwargs that a schedule of ours doesn't take."""
    if unknown := [name for name in named.kwargs if name not in takes]:
        return unknown_kwargs("schedule.kwargs", str(named.name), unknown[:1], list(takes))
    name, value = next((name, value) for name, value in named.kwargs.items() if value not in takes[name])
    may = listed(map(yaml12.write_line, takes[name]), "or")  # text that would be read as a number has quotes
    wrong = f"{name} must be {may}, not {yaml12.write_line(value)}"
    return SettingsError("schedule.kwargs", named.kwargs, "", wrong)


def check(settings: config.Config) -> Schedule:
    """The schedule that the settings name, once it is seen that it takes what they say. Raises SettingsError."""
    schedule, named = schedule_of(settings.schedule), settings.schedule
    if (takes := schedule.why_not(named.kwargs)) is not None:
        if schedule.takes is None:
            raise SettingsError("schedule.name", named.name, f"Write {FORM}", takes)
        raise _not_taken(named, schedule.takes)
    replicas = settings.server.replicas
    if replicas > 1 and schedule.replicas == "none":
        may = listed([name for name, record in SCHEDULES.items() if record.replicas != "none"])
        wrong = f"must be 1 with schedule.name {spoken(named.name)}, which can't use more, not {replicas}"
        raise SettingsError("server.replicas", replicas, f"The schedules that can are {may}", wrong)
    return schedule
