"""pydantic's report of bad settings as one line; and what raises it so."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from ray_split.config.fields import Section
from ray_split.config.user_code.plugins import suggest
from ray_split.errors import SettingsError, listed, shown


def _unquoted(choices: re.Match[str]) -> str:
    """Names to choose from, as they are typed."""
    return choices[0].replace("'", "")


WORDS: dict[str, str | Callable[[re.Match[str]], str]] = {
    "^Value error, |^Input should be ": "",
    "^('.*)$": _unquoted,
    "^Unable to parse input string as an integer, exceeded maximum size": "a whole number of fewer digits",
    "a valid (integer|number), unable to parse string as an? (integer|number)": r"a valid \1",
    "a valid integer, got a number with a fractional part": "a whole number, without a fraction",
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid boolean(, unable to interpret input)?": "true or false",
    "a valid (dictionary|mapping)( or instance of .*)?": "a mapping, such as '{width: 3}'",
    "a valid list": "a list, such as a,b",
    "a valid string": "text",
    "^Keys should be strings": "a mapping whose keys are text",
    "greater than or equal to": "at least",
    "less than or equal to": "at most",
    "^List should have at least ([0-9]+) items? after validation, not ([0-9]+)": r"a list of \1 or more",
    "^List should have at most ([0-9]+) items? after validation, not ([0-9]+)": r"a list of at most \1",
    "1(0{9,})$": lambda found: f"1e{len(found[1])}",
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
        return unknown_field(name, first["input"], known)
    if first["type"] == "missing":
        return SettingsError(name, None, f"Add --{name} VALUE", "is not set")
    same = [e for e in error.errors() if e["loc"][:2] == first["loc"][:2]]
    for said in (e.get("ctx", {}).get("error") for e in same):
        if isinstance(said, SettingsError):
            return said.of(name)
    kinds = [_plain(e["msg"]) for e in same]
    kinds = [kind for kind in kinds if kind != "a whole number" or "a number" not in kinds]
    if first["type"] == "model_type":
        kinds = [f"a section, with its settings below it ({', '.join(_names(place, root))})"]
    if first["type"] == "model_type" and isinstance(first["input"], str) and "name" in _names(place, root):
        kinds = [f'a section, such as {{"name": {first["input"]!r}}}']
    return SettingsError(name, first["input"], " or ".join(dict.fromkeys(kinds)))


def unknown_field(name: str, value: Any, known: Sequence[str]) -> SettingsError:
    """What is said of a setting that there is not."""
    section, _, field = name.rpartition(".")
    there = f"The settings of {section} are" if section else "The sections are"
    near = suggest(field, known, "", lambda close: f"{section}.{close}" if section else close)
    wrong = f"there is no {'setting' if section else 'section'} {shown(name)}"
    return SettingsError(name, value, near or f"{there} {listed(known)}", wrong)


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
