"""A round of a run, computed once more from its settings: what each phone and server did, and when."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from ray_split import config
from ray_split.config.user_code.plugins import named_by
from ray_split.costs.virtual_clock import Times
from ray_split.errors import SettingsError, first_line, shown
from ray_split.experiments.runs.find import no_run_folder
from ray_split.filesystem import Place
from ray_split.preparation.prepare import Prepared, prepare
from ray_split.results.left_behind import CONFIG, read_quarantined
from ray_split.results.rows import read_rows
from ray_split.schedules.roles import server_names

UP = ("activation", "hidden_gradient", "weights up")


class Bar(NamedTuple):
    """What a phone did, or with `server` that one for it; in seconds since the round's start."""

    phone: int
    server: int | None
    part: str
    name: str
    step: int
    start: float
    end: float

    @property
    def kind(self) -> str:
        """The part, of what crosses the direction."""
        if self.part != "communication":
            return self.part
        return "up" if self.name in UP else "down"


def bars(times: Times) -> Iterator[Bar]:
    """Everything that takes time in a round that was computed with spans."""
    for span in times.spans:
        phones = times.phones[span.rows].tolist()
        for phone, start, end in zip(phones, span.starts.tolist(), span.ends.tolist(), strict=True):
            if end > start:
                yield Bar(phone, span.server, span.part, span.name, span.step, start, end)


class Traced(NamedTuple):
    """A round: in virtual time, and its line in metrics.jsonl if the run came that far."""

    round: int
    times: Times
    servers: list[str]
    row: dict[str, Any]


def trace(folder: Place, round: int, trust: bool = False) -> Traced:
    """A run's round once more. What its settings name is imported only with `trust`. Raises SettingsError."""
    try:
        there = (folder / CONFIG).exists()
    except (OSError, ValueError, ImportError) as error:
        wrong = f"{shown(str(folder))} can't be read: {first_line(error)}"
        raise SettingsError("", str(folder), "Give the folder of a run", wrong) from error
    if not there:
        raise no_run_folder(folder)
    settings = config.Config.from_yaml(folder / CONFIG)
    with named_by(folder, trust):
        # Nobody is told of a round that is only looked at: what run.callbacks names is not even imported.
        return _trace(prepare(settings.with_values(run={"callbacks": []})), folder, round)


def _trace(prepared: Prepared, folder: Place, round: int) -> Traced:
    if prepared.clock is None:
        wrong = f"the run in {shown(str(folder))} has no virtual time to trace"
        allowed = "Train again with phones.device, phones.link or server.device set, such as --phones.device mid_range"
        raise SettingsError("", None, allowed, wrong)
    if not 0 <= round < prepared.settings.run.rounds:
        raise SettingsError("--round", round, f"from 0 to {prepared.settings.run.rounds - 1}")
    for each in read_quarantined(folder):
        prepared.stream.leave_out(each["phone"], each["round"])
    times = prepared.clock.round(prepared.stream, round, spans=True)
    rows = {row["round"]: row for row in read_rows(folder)}
    return Traced(round, times, server_names(prepared.settings.server.replicas), rows.get(round, {}))
