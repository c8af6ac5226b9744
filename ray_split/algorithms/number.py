"""Numbers in kwargs, which only the function that takes them knows the limits of."""

from __future__ import annotations

import math
from typing import Any

from ray_split.errors import SettingsError, shown


def fraction(field: str, **named: Any) -> None:
    """See that numbers are at least 0 and below 1. Raises SettingsError."""
    for name, value in named.items():
        if not (_is_number(value) and 0 <= value < 1):
            raise _refused(field, name, value, "at least 0 and less than 1")


def positive(field: str, **named: Any) -> None:
    """See that numbers are above 0. Raises SettingsError."""
    for name, value in named.items():
        if not (_is_number(value) and value > 0):
            raise _refused(field, name, value, "greater than 0")


def not_negative(field: str, **named: Any) -> None:
    """See that numbers are at least 0. Raises SettingsError."""
    for name, value in named.items():
        if not (_is_number(value) and value >= 0):
            raise _refused(field, name, value, "at least 0")


def _refused(field: str, name: str, value: Any, allowed: str) -> SettingsError:
    kind = "" if _is_number(value) else "a number of " if allowed.startswith("at least") else "a number "
    return SettingsError(field, {name: value}, "", f"{name} must be {kind}{allowed}, not {shown(value)}")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
