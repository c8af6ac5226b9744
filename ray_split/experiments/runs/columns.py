"""What a table of runs can show of each: its results, what the summary tells, and every setting by its name."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timezone
from typing import Any

from ray_split import config
from ray_split.command_line.flags import fields_of
from ray_split.config import yaml12
from ray_split.config.user_code.plugins import suggest
from ray_split.errors import SettingsError, listed
from ray_split.experiments.runs.find import Run

Value = Any


def _last(name: str) -> Callable[[Run], Value]:
    return lambda run: next((row[name] for row in reversed(run.rows) if row.get(name) is not None), None)


COLUMNS: dict[str, Callable[[Run], Value]] = {
    "run": lambda run: run.name,
    "status": lambda run: run.status,
    "schedule": lambda run: run.summary.get("schedule"),
    "phones": lambda run: run.summary.get("phones"),
    "rounds": lambda run: run.summary.get("rounds"),
    "train_loss": _last("train_loss"),
    "val_loss": _last("val_loss"),
    "val_accuracy": _last("val_accuracy"),
}
"""Columns that are neither a key of the summary nor a setting: name -> what a run has there."""

USUAL = (
    "run", "status", "started", "host", "schedule", "phones", "rounds",
    "val_accuracy", "best_val_accuracy", "test_accuracy_at_best_val", "seconds",
)  # fmt: skip
WITHOUT_ACCURACY = {
    "val_accuracy": "val_loss",
    "best_val_accuracy": "best_val_loss",
    "test_accuracy_at_best_val": "test_loss_at_best_val",
}
"""What a table shows of runs that have no accuracy."""

SETTINGS = tuple(name for name, _ in fields_of(config.Config))


def usual(runs: Iterable[Run]) -> list[str]:
    """The columns of a table that nobody chose columns for."""
    if all(run.summary.get("best_val_accuracy") is None for run in runs):
        return [WITHOUT_ACCURACY.get(name, name) for name in USUAL]
    return list(USUAL)


def check(flag: str, names: Iterable[str], runs: Sequence[Run]) -> None:
    """Raises SettingsError for a name that is no column of these runs."""
    known = {*COLUMNS, *USUAL, *SETTINGS, *(key for run in runs for key in run.summary)}
    for name in names:
        if name not in known:
            there = f"You can use any setting, any key in summary.json, or {listed(COLUMNS, 'or')}"
            raise SettingsError(flag, name, suggest(name, sorted(known), there), f"there is no column {name!r:.100}")


def value_of(run: Run, name: str) -> Value:
    """What a run has in a column; None for nothing."""
    if name in COLUMNS:
        return COLUMNS[name](run)
    return run.settings.get(name) if name in SETTINGS else run.summary.get(name)


CONDITION = re.compile(r"^([\w.]+)\s*(!=|<=|>=|==?|<|>)\s*(.*)$", re.DOTALL)
COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq, "==": operator.eq, "!=": operator.ne,
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


def chosen(runs: Sequence[Run], conditions: Sequence[str]) -> list[Run]:
    """The runs that meet all conditions, each as `name=value` or `name<value`. Raises SettingsError."""
    there = runs
    for text in conditions:
        match = CONDITION.match(text)
        if match is None:
            wrong = f"{text!r:.100} is not a condition"
            do = f"Write a column, one of {' '.join(COMPARE)}, and a value, such as 'optimizer.lr>=0.1'"
            raise SettingsError("--where", text, do, wrong)
        name, sign, wanted = match.groups()
        check("--where", [name], there)
        runs = [run for run in runs if _meets(value_of(run, name), COMPARE[sign], sign, wanted, text)]
    return list(runs)


def _meets(value: Value, compare: Callable[[Any, Any], bool], sign: str, wanted: str, text: str) -> bool:
    """Equal as people write it, `none` for nothing; larger or smaller as numbers, which nothing is."""
    if _is_time(value) and (begins := BEGINS_AS_TIME.fullmatch(wanted)):
        told = shown(value)[: len(begins.group())]  # in the clock of this place, as the table has it
        return compare(told, wanted.replace("T", " "))
    if sign in ("=", "==", "!="):
        return compare(shown(value, full=True), wanted) or (sign != "!=" and value == _read(wanted))
    try:
        number = float(wanted)
    except ValueError as error:
        wrong = f"{sign} needs a number after it, not {wanted!r:.100}"
        raise SettingsError("--where", text, "Write a number there, or compare text with = or !=", wrong) from error
    return isinstance(value, int | float) and compare(value, number)


def _read(text: str) -> Value:
    """A value as YAML has it; of what YAML can't read the text."""
    try:
        return yaml12.read(text)
    except ValueError:
        return text


def ordered(runs: Sequence[Run], name: str, reverse: bool) -> list[Run]:
    """The runs by a column: of scores the highest and of times of day the latest first, of all else the lowest.

    `reverse` turns the order round. Runs that have nothing there come last. Raises SettingsError.
    """
    check("--sort", [name], runs)
    each = [(value_of(run, name), run) for run in runs]
    there = [(value, run) for value, run in each if value is not None]
    numbers = all(isinstance(value, int | float) for value, _ in there)
    there.sort(key=lambda pair: pair[0] if numbers else str(pair[0]))
    if bool(HIGHEST_FIRST.match(name)) != reverse:
        there.reverse()
    return [run for _, run in there] + [run for value, run in each if value is None]


HIGHEST_FIRST = re.compile(
    r"started|ended|samples_per_second|phone_rounds_per_second|(best_val|val|test|phone)_(?!loss)"
)


def shown(value: Value, full: bool = False) -> str:
    """A value for people: four figures after the point, a time in the clock of this place; `full`: as it is."""
    if value is None:
        return "none" if full else "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and not full:
        return f"{value:.4g}"
    if isinstance(value, str) and not full and TIME.fullmatch(value):
        return _local(value)
    return str(value) if isinstance(value, str | int | float) else yaml12.write_line(value)


BEGINS_AS_TIME = re.compile(r"\d{4}-\d\d(-\d\d([T ]\d\d(:\d\d)?)?)?")  # a month, a day, an hour, a minute


def _is_time(value: Value) -> bool:
    return isinstance(value, str) and TIME.fullmatch(value) is not None


TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


def _local(time: str) -> str:
    parsed = datetime.strptime(time, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
    return parsed.astimezone().strftime("%Y-%m-%d %H:%M")
