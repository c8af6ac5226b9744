"""The axes of a sweep, as people type them: `optimizer.lr=0.01,0.1`, or drawn, `optimizer.lr=loguniform(0.001, 1)`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ray import tune

from ray_split import config
from ray_split.command_line.flags import fields_of, merged, nested
from ray_split.config import yaml12
from ray_split.config.user_code.plugins import suggest
from ray_split.errors import SettingsError, listed, shown

DRAWN: dict[str, tuple[Callable[..., Any], str]] = {
    "uniform": (tune.uniform, "LOW, HIGH"),
    "loguniform": (tune.loguniform, "LOW, HIGH"),
    "quniform": (tune.quniform, "LOW, HIGH, STEP"),
    "randint": (tune.randint, "LOW, BEYOND"),
    "lograndint": (tune.lograndint, "LOW, BEYOND"),
    "choice": (lambda *values: tune.choice(list(values)), ""),
}
"""Distributions that a value can be drawn from, as Ray Tune names them, and what each takes."""

NAMED = "the sweep sets that itself, for runs in --out"
NO_AXES = {
    **{f"run.{field}": NAMED for field in ("name", "storage_path", "resume", "log_format", "private")},
    **{f"cluster.{field}": "all runs share one Ray" for field in ("backend", "address")},
}
"""Settings that all runs of a sweep share, and why."""

SEED = "run.seed"
CALL = re.compile(r"^(\w+)\((.*)\)$", re.DOTALL)
FORM = f"Write SETTING=VALUE,VALUE,... or SETTING=loguniform(LOW, HIGH), for example; there are also {listed(DRAWN)}"


def space(over: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
    """Tune's search space. Raises SettingsError for an axis that is not of the form, or of no setting."""
    axes = dict(_axis(text) for text in over)
    if len(axes) < len(over) or (seeds and SEED in axes):
        wrong = f"{_twice([text.partition('=')[0] for text in over]) or SEED} is given twice"
        allowed = f"Give each setting once, with all of its values, and {SEED} either by --over or by --seeds"
        raise SettingsError("--over", " ".join(over), allowed, wrong)
    return {**axes, **({SEED: tune.grid_search(list(seeds))} if seeds else {})}


def _twice(names: Sequence[str]) -> str | None:
    return next((name for name in names if names.count(name) > 1), None)


def _axis(text: str) -> tuple[str, Any]:
    name, equals, values = text.partition("=")
    if not equals or not values.strip():
        raise SettingsError("--over", text, FORM, f"{shown(text)} has no values")
    _check_name(text, name.strip())
    return name.strip(), _drawn(text, values.strip()) or tune.grid_search(_each_once(text, _listed(text, values)))


def _no_axis(text: str, why: str = "") -> SettingsError:
    return SettingsError("--over", text, FORM, f"{shown(text)} can't be searched over{why}")


def _check_name(text: str, name: str) -> None:
    """A setting, or what is in one that is a mapping: model.kwargs.width."""
    if why := NO_AXES.get(name):
        raise SettingsError(
            "--over", text, "Search over another setting", f"{name} can't be searched over, because {why}"
        )
    known = [known for known, _ in fields_of(config.Config)]
    if not any(f"{name}.".startswith(f"{each}.") for each in known):
        allowed = "'ray-split train --help-all' lists the settings"
        raise SettingsError("--over", text, suggest(name, known) or allowed, f"there is no setting {shown(name)}")


def _listed(text: str, values: str) -> list[Any]:
    """The values, as YAML: `a,b` are two, `[a,b],[c,d]` two lists."""
    try:
        found = yaml12.read(f"[{values}]")
    except ValueError as error:
        raise _no_axis(text, f": {error}") from error
    if not isinstance(found, list) or None in found:
        raise _no_axis(text)
    return found


def _each_once(text: str, values: list[Any]) -> list[Any]:
    words = [repr(value) for value in values]
    if twice := _twice(words):
        raise SettingsError("--over", text, "Give each value once", f"{shown(text)} has {twice} twice")
    return values


def _drawn(text: str, values: str) -> Any:
    call = CALL.match(values)
    if call is None:
        return None
    if call[1] not in DRAWN:
        raise _no_axis(text)
    listed, (draw, takes) = _listed(text, call[2]), DRAWN[call[1]]
    if takes:
        _check_range(text, f"{call[1]}({takes})", [_number(text, value) for value in listed])
    try:
        return draw(*listed)
    except (TypeError, ValueError) as error:
        raise _no_axis(text, f": {error}") from error


def _check_range(text: str, form: str, numbers: list[float | int]) -> None:
    whole, count = "BEYOND" in form, form.count(",") + 1
    if len(numbers) != count or not all(map(math.isfinite, numbers)) or (whole and any(n % 1 for n in numbers)):
        allowed = f"Write {form}, with {count} {'whole' if whole else 'finite'} numbers"
        raise SettingsError(
            "--over", text, allowed, f"{shown(text)} doesn't have the numbers that {form.partition('(')[0]} needs"
        )
    low, high = numbers[:2]
    if low >= high or ("log" in form and low <= 0) or (count > 2 and numbers[2] <= 0):
        allowed = f"In {form}, the first number must be the lower one{', and greater than 0' if 'log' in form else ''}"
        raise SettingsError("--over", text, allowed, f"{shown(text)} is not a range")


def _number(text: str, value: Any) -> float | int:
    """Raises SettingsError for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _no_axis(text, f": {value!r:.60} is not a number")
    return value


def settings_at(base: config.Config, point: Mapping[str, Any]) -> config.Config:
    """The settings at a point of the space. Raises SettingsError."""
    return config.Config(**merged(base.model_dump(), nested(dict(point))))
