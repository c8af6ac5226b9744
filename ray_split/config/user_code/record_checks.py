"""Whether a record of the user's, an rs.Schedule say, is filled in as its fields are: Python itself takes anything."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ray_split.errors import SettingsError, listed, shown


def check_record(field: str, name: str, record: Any) -> None:
    """See that what has a list of words is one of them, a switch is one, and a mapping one. Raises SettingsError."""
    hints = get_type_hints(type(record))
    for each in dataclasses.fields(record):
        allowed, value = _allowed(hints[each.name]), getattr(record, each.name)
        if allowed and not _fits(hints[each.name], value):
            kind = type(record).__name__
            wrong = f"in ray_split.{kind}(...), {each.name} must be {allowed}, not {shown(value)}"
            raise SettingsError(field, name, "", wrong)


def _allowed(hint: Any) -> str:
    """What is said of a field that is checked; of any other nothing."""
    if get_origin(hint) is Literal:
        return listed(map(str, get_args(hint)), "or")
    if hint is bool:
        return "True or False"
    return 'a mapping, as {"name": ("one", "other")}' if _is_mapping(hint) else ""


def _fits(hint: Any, value: Any) -> bool:
    if get_origin(hint) is Literal:
        return isinstance(value, str) and value in get_args(hint)
    return isinstance(value, bool) if hint is bool else value is None or isinstance(value, Mapping)


def _is_mapping(hint: Any) -> bool:
    return any(get_origin(each) is Mapping for each in get_args(hint))
