"""pydantic's report of bad settings as one line; and what raises it so."""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel, ValidationError

from ray_split.config.fields import Section
from ray_split.config.plugins import suggest
from ray_split.errors import SettingsError

WORDS = {
    "^Value error, |^Input should be ": "",
    "^Unable to parse input string as an integer, exceeded maximum size": "a valid integer, with fewer digits",
    "a valid (integer|number), unable to parse string as an? (integer|number)": r"a valid \1",
    "a valid integer, got a number with a fractional part": "a valid integer, without a fraction",
    "a valid boolean(, unable to interpret input)?": "a valid boolean, true or false",
    "^List should have at least ([0-9]+) items? after validation, not ([0-9]+)": r"a list with \1 or more, not \2",
    "^Input is not a valid path for .*": "a path",
}
"""Of pydantic, as patterns, and of ours."""

BRANCHES = ("int", "float", "str", "path")


class Root(Section):
    """All of a command's settings. Raises SettingsError (one line) instead of pydantic's report."""

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise one_line(error, type(self)) from None


def one_line(error: ValidationError, root: type[BaseModel]) -> SettingsError:
    """The first of pydantic's complaints as field, value, what it may be."""
    first = error.errors()[0]
    place = [str(part) for part in first["loc"]]
    if first["type"] != "extra_forbidden":  # pydantic puts the branches of a union into the place
        place = [p for p in place if p.isidentifier() and (p not in BRANCHES or p in _names(place, root))]
    name = ".".join(place) or "settings"
    if first["type"] == "extra_forbidden":
        known = list(_fields_beside(place, root))
        return SettingsError(name, first["input"], f"one of the fields {', '.join(known)}{suggest(place[-1], known)}")
    kinds = [_plain(e["msg"]) for e in error.errors() if e["loc"][:2] == first["loc"][:2]]
    if first["type"] == "model_type":
        kinds = [f"a valid dictionary, of the fields {', '.join(_names(place, root))}"]
    return SettingsError(name, first["input"], " or: ".join(dict.fromkeys(kinds)))


def _names(place: list[str], root: type[BaseModel]) -> list[str]:
    """The fields of the section that a place begins with."""
    section: Any = root.model_fields[place[0]].annotation if place[0] in root.model_fields else None
    return list(getattr(section, "model_fields", ()))


def _plain(message: str) -> str:
    """What pydantic says, as a person would."""
    for theirs, ours in WORDS.items():
        message = re.sub(theirs, ours, message)
    return message[:1].lower() + message[1:]


def _fields_beside(place: list[str], root: type[BaseModel]) -> list[str]:
    section: Any = root
    for part in place[:-1]:
        section = section.model_fields[part].annotation
    return list(section.model_fields)
