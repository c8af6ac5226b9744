"""A comparison's numbers, from the runs' folders: tables.py and plots.py show them.

A run counts if it finished; means and standard deviations are over the seeds of a schedule. Bytes to a target are all
that crossed: up, down and weights, of all phones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, NamedTuple

from ray_split.errors import SettingsError
from ray_split.experiments.compare.methods import method_of
from ray_split.filesystem import Place
from ray_split.results.left_behind import SUMMARY, read_summary
from ray_split.results.rows import METRICS, missing, shown
from ray_split.results.rows import found as rows_of

SHARE_OF_BEST = 0.95
BYTES = ("bytes_up", "bytes_down", "bytes_weights")


@dataclass(frozen=True)
class Run:
    """What a run wrote: its summary, its rows of metrics.jsonl, and, if it did not finish, why."""

    schedule: str
    seed: int
    error: str | None
    summary: dict[str, Any]
    rows: list[dict[str, Any]]


class Point(NamedTuple):
    """Where a run stood after a round with validation: sums since its start."""

    rounds: int
    bytes: float
    seconds: float
    accuracy: float


class Band(NamedTuple):
    """A schedule after a round: means over the seeds, with the lowest and the highest accuracy."""

    rounds: int
    bytes: float
    accuracy: float
    low: float
    high: float


class Cell(NamedTuple):
    """Mean and sample standard deviation (None of one value) over the `runs` that have a value."""

    mean: float | None
    std: float | None
    runs: int


class Line(NamedTuple):
    """A schedule's line of the table. `failed` has each failed seed's error."""

    schedule: str
    finished: int
    failed: dict[int, str]
    cells: dict[str, Cell]


def folder_name(schedule: str, seed: int) -> str:
    """The folder of a run within its comparison's."""
    return f"{label(schedule)}_seed{seed}"


def label(schedule: str) -> str:
    """A schedule's short name: of 'package.module:function' the function."""
    return schedule.rpartition(":")[2]


def read(out: Place, schedules: Sequence[str], seeds: Sequence[int]) -> list[Run]:
    """The runs of a comparison, as far as they got."""
    return [read_run(out / folder_name(s, seed), s, seed) for s in schedules for seed in seeds]


def read_run(folder: Place, schedule: str, seed: int) -> Run:
    """The run in a folder; one that isn't there has failed."""
    try:
        summary = read_summary(folder)
    except FileNotFoundError:
        summary = {"status": "nothing"}
    except SettingsError as error:
        return Run(schedule, seed, one_line(error), {"status": "broken"}, [])
    if summary["status"] == "finished":
        rows, problem = rows_of(folder)
        lacking = missing(rows, summary.get("rounds", 0))
        if not lacking:
            return Run(schedule, seed, None, summary, rows)
        summary["error"] = f"{folder / METRICS}: {problem or f'no row of {shown(lacking)}'}"
    why = one_line(summary.get("error") or f"not finished, {SUMMARY} says {summary['status']}")
    return Run(schedule, seed, why, summary, [])


def one_line(error: object) -> str:
    """An error's message in one line that isn't too long."""
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else f"{text[:297]}..."


def of(runs: Sequence[Run], schedule: str) -> list[Run]:
    """A schedule's finished runs."""
    return [run for run in runs if run.schedule == schedule and run.error is None]


def is_personal(schedule: str) -> bool:
    """Whether a schedule's accuracy is a mean over personal models, on the phones' own samples."""
    return method_of(schedule).record.personal


# From a run's rows to numbers.


def curve(run: Run) -> list[Point]:
    """The run's rounds with validation."""
    points, crossed, seconds = [], 0.0, 0.0
    for row in run.rows:
        crossed += sum(row[column] for column in BYTES)
        seconds += row["round_seconds"]
        if row["val_accuracy"] is not None:
            points.append(Point(row["round"] + 1, crossed, seconds, row["val_accuracy"]))
    return points


def reached(run: Run, target: float | None) -> Point | None:
    """The first point at or above the target; None if there is none."""
    return next((point for point in curve(run) if target is not None and point.accuracy >= target), None)


def accuracy(run: Run) -> float | None:
    """Test accuracy where validation was best; of the last round if there was no validation."""
    best = run.summary["test_accuracy_at_best_val"]
    found: float | None = run.summary["test_accuracy"] if best is None else best
    return found


def per_phone_round(run: Run, column: str) -> float | None:
    """A column's bytes for one phone in one round."""
    phone_rounds = sum(row["phones"] for row in run.rows)
    return sum(row[column] for row in run.rows) / phone_rounds if phone_rounds else None


def _to_target(field: str) -> Callable[[Run, float | None], float | None]:
    return lambda run, target: getattr(reached(run, target), field, None)


def _each(column: str) -> Callable[[Run, float | None], float | None]:
    return lambda run, _: per_phone_round(run, column)


COLUMNS: dict[str, Callable[[Run, float | None], float | None]] = {
    "accuracy": lambda run, _: accuracy(run),
    "rounds_to_target": _to_target("rounds"),
    "bytes_to_target": _to_target("bytes"),
    "seconds_to_target": _to_target("seconds"),
    "bytes_up_per_phone_round": _each("bytes_up"),
    "bytes_down_per_phone_round": _each("bytes_down"),
    "bytes_weights_per_phone_round": _each("bytes_weights"),
    "phone_rounds_per_second": lambda run, _: run.summary["phone_rounds_per_second"],
}
"""The table's columns: a run's number, by run and target; None if it has none."""


# Over the seeds.


def mean_curve(runs: Sequence[Run]) -> list[Band]:
    """The rounds that all of a schedule's runs validated."""
    curves = [{point.rounds: point for point in curve(run)} for run in runs]
    common = sorted(set.intersection(*(set(c) for c in curves))) if curves else []
    return [_band([c[rounds] for c in curves]) for rounds in common]


def _band(points: list[Point]) -> Band:
    scores = [point.accuracy for point in points]
    return Band(points[0].rounds, fmean(p.bytes for p in points), fmean(scores), min(scores), max(scores))


def default_target(runs: Sequence[Run]) -> tuple[float, str] | None:
    """95 % of the best mean validation accuracy, and whose: unsplit's, else the best schedule's.

    Personal schedules, whose accuracy is another, set it only among themselves. None if no run has validation.
    """
    best = {s: max((b.accuracy for b in mean_curve(of(runs, s))), default=None) for s in _schedules(runs)}
    found = {schedule: value for schedule, value in best.items() if value is not None}
    if not found:
        return None
    shared = [s for s in found if not is_personal(s)] or list(found)
    whose = "unsplit" if "unsplit" in found else max(shared, key=lambda s: found[s])
    return SHARE_OF_BEST * found[whose], whose


def _schedules(runs: Sequence[Run]) -> list[str]:
    return list(dict.fromkeys(run.schedule for run in runs))


def cell(values: Sequence[float | None]) -> Cell:
    """Mean and spread of the values that are there."""
    there = [value for value in values if value is not None]
    return Cell(fmean(there) if there else None, stdev(there) if len(there) > 1 else None, len(there))


def lines(runs: Sequence[Run], target: float | None) -> list[Line]:
    """The table, a line a schedule, in the order of the runs."""
    return [_line(runs, schedule, target) for schedule in _schedules(runs)]


def _line(runs: Sequence[Run], schedule: str, target: float | None) -> Line:
    finished = of(runs, schedule)
    failed = {run.seed: run.error for run in runs if run.schedule == schedule and run.error is not None}
    cells = {name: cell([number(run, target) for run in finished]) for name, number in COLUMNS.items()}
    return Line(schedule, len(finished), failed, cells)
