"""The axes of a sweep, as people type them: `optimizer.lr=0.01,0.1`, or drawn, `optimizer.lr=loguniform(0.001, 1)`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ray import tune

from ray_split import config
from ray_split.command_line.flags import merged, nested
from ray_split.config import yaml12
from ray_split.errors import SettingsError

DRAWN: dict[str, Callable[..., Any]] = {
    "uniform": tune.uniform,
    "loguniform": tune.loguniform,
    "quniform": tune.quniform,
    "randint": tune.randint,
    "lograndint": tune.lograndint,
    "choice": lambda *values: tune.choice(list(values)),
}
"""Distributions that a value can be drawn from, as Ray Tune names them."""

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
    return name.strip(), _drawn(text, values.strip()) or tune.grid_search(_listed(text, values))


def _check_name(text: str, name: str) -> None:
    section, _, field = name.partition(".")
    known = config.Config.model_fields
    if section not in known or not field:
        raise SettingsError(
            "--over", text, f"a setting's name first: one of {', '.join(known)}, a point, and its field"
        )


def _listed(text: str, values: str) -> list[Any]:
    """The values, as YAML: `a,b` are two, `[a,b],[c,d]` two lists."""
    try:
        found = yaml12.read(f"[{values}]")
    except ValueError as error:
        raise SettingsError("--over", text, f"{FORM} ({error})") from error
    if not isinstance(found, list):
        raise SettingsError("--over", text, FORM)
    return found


def _drawn(text: str, values: str) -> Any:
    call = CALL.match(values)
    if call is None:
        return None
    if call[1] not in DRAWN:
        raise SettingsError("--over", text, FORM)
    listed = _listed(text, call[2])
    numbers = listed if call[1] == "choice" else [_number(text, value) for value in listed]
    try:
        return DRAWN[call[1]](*numbers)
    except (TypeError, ValueError) as error:
        raise SettingsError("--over", text, f"{FORM} ({error})") from error


def _number(text: str, value: Any) -> float | int:
    """Raises SettingsError for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SettingsError("--over", text, f"{FORM}; {value!r:.60} is not a number")
    return value


def settings_at(base: config.Config, point: Mapping[str, Any]) -> config.Config:
    """The settings at a point of the space. Raises SettingsError."""
    return config.Config(**merged(base.model_dump(), nested(dict(point))))
