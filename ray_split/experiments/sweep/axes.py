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
from ray_split.config.plugins import suggest
from ray_split.errors import SettingsError

DRAWN: dict[str, tuple[Callable[..., Any], str]] = {
    "uniform": (tune.uniform, "LOW, HIGH"),
    "loguniform": (tune.loguniform, "LOW, HIGH"),
    "quniform": (tune.quniform, "LOW, HIGH, STEP"),
    "randint": (tune.randint, "LOW, BEYOND"),
    "lograndint": (tune.lograndint, "LOW, BEYOND"),
    "choice": (lambda *values: tune.choice(list(values)), ""),
}
"""Distributions that a value can be drawn from, as Ray Tune names them, and what each takes."""

NAMED = "runs get names and folders of their own, in --out"
NO_AXES = {
    **{f"run.{field}": NAMED for field in ("name", "storage_path", "resume", "log_format", "private")},
    **{f"cluster.{field}": "all runs share one Ray" for field in ("backend", "address")},
}
"""Settings that all runs of a sweep share, and why."""

SEED = "run.seed"
CALL = re.compile(r"^(\w+)\((.*)\)$", re.DOTALL)
FORM = "section.field=VALUE,VALUE,... or section.field=loguniform(LOW, HIGH); also " + ", ".join(DRAWN)


def space(over: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
    """Tune's search space. Raises SettingsError for an axis that is not of the form, or of no setting."""
    axes = dict(_axis(text) for text in over)
    if len(axes) < len(over) or (seeds and SEED in axes):
        raise SettingsError("--over", " ".join(over), f"one axis a setting; seeds by --seeds or by {SEED}")
    return {**axes, **({SEED: tune.grid_search(list(seeds))} if seeds else {})}


def _axis(text: str) -> tuple[str, Any]:
    name, equals, values = text.partition("=")
    if not equals or not values.strip():
        raise SettingsError("--over", text, FORM)
    _check_name(text, name.strip())
    return name.strip(), _drawn(text, values.strip()) or tune.grid_search(_each_once(text, _listed(text, values)))


def _check_name(text: str, name: str) -> None:
    """A setting, or what is in one that is a mapping: model.kwargs.width."""
    if why := NO_AXES.get(name):
        raise SettingsError("--over", text, f"an axis of another setting: {why}")
    known = [known for known, _ in fields_of(config.Config)]
    if not any(f"{name}.".startswith(f"{each}.") for each in known):
        allowed = f"a setting's name first, as --help-all of ray-split train shows{suggest(name, known)}"
        raise SettingsError("--over", text, allowed)


def _listed(text: str, values: str) -> list[Any]:
    """The values, as YAML: `a,b` are two, `[a,b],[c,d]` two lists."""
    try:
        found = yaml12.read(f"[{values}]")
    except ValueError as error:
        raise SettingsError("--over", text, f"{FORM} ({error})") from error
    if not isinstance(found, list) or None in found:
        raise SettingsError("--over", text, FORM)
    return found


def _each_once(text: str, values: list[Any]) -> list[Any]:
    words = [repr(value) for value in values]
    if twice := next((word for word in words if words.count(word) > 1), None):
        raise SettingsError("--over", text, f"a list of different values: {twice} is there twice")
    return values


def _drawn(text: str, values: str) -> Any:
    call = CALL.match(values)
    if call is None:
        return None
    if call[1] not in DRAWN:
        raise SettingsError("--over", text, FORM)
    listed, (draw, takes) = _listed(text, call[2]), DRAWN[call[1]]
    if takes:
        _check_range(text, f"{call[1]}({takes})", [_number(text, value) for value in listed])
    try:
        return draw(*listed)
    except (TypeError, ValueError) as error:
        raise SettingsError("--over", text, f"{FORM} ({error})") from error


def _check_range(text: str, form: str, numbers: list[float | int]) -> None:
    whole, count = "BEYOND" in form, form.count(",") + 1
    if len(numbers) != count or not all(map(math.isfinite, numbers)) or (whole and any(n % 1 for n in numbers)):
        raise SettingsError("--over", text, f"{form}, {count} {'whole' if whole else 'finite'} numbers")
    low, high = numbers[:2]
    if low >= high or ("log" in form and low <= 0) or (count > 2 and numbers[2] <= 0):
        raise SettingsError("--over", text, f"{form}, the first the lowest{', and above 0' if 'log' in form else ''}")


def _number(text: str, value: Any) -> float | int:
    """Raises SettingsError for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SettingsError("--over", text, f"{FORM}; {value!r:.60} is not a number")
    return value


def settings_at(base: config.Config, point: Mapping[str, Any]) -> config.Config:
    """The settings at a point of the space. Raises SettingsError."""
    return config.Config(**merged(base.model_dump(), nested(dict(point))))
