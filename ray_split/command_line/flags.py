"""Settings as flags: `--section.field VALUE` for every field, and back from flags to sections."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from pydantic.fields import FieldInfo

from ray_split.command_line.parser import Last
from ray_split.config.fields import Section

Field = tuple[str, FieldInfo]


class TakesFlags(Protocol):
    """A parser, or one of its groups."""

    def add_argument(self, *names: str, **options: Any) -> argparse.Action:
        """As argparse's."""


def section_of(field: FieldInfo) -> type[Section] | None:
    """The section that a field is; None for a single value."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None


def fields_of(section: type[Section], prefix: str = "") -> Iterator[Field]:
    """Every field, of sections within too, with its full name."""
    for name, field in section.model_fields.items():
        if inner := section_of(field):
            yield from fields_of(inner, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def add_flags(parser: TakesFlags, fields: Iterable[Field]) -> None:
    """A flag for each of the fields."""
    for name, field in fields:
        bare = {"nargs": "?", "const": "true"} if field.annotation is bool or name == "run.resume" else {}
        metavar = name.rpartition(".")[2].upper()
        text = description_of(field).replace("%", "%%")
        parser.add_argument(f"--{name}", action=Last, metavar=metavar, default=argparse.SUPPRESS, help=text, **bare)


def description_of(field: FieldInfo) -> str:
    """What a field is for, and its default."""
    return f"{field.description or ''} {default_of(field)}".strip()


def default_of(field: FieldInfo) -> str:
    """The default, in parentheses."""
    return f"(default: {'none' if field.default is None else field.default})"


def nested(flags: dict[str, str]) -> dict[str, Any]:
    """Flags as sections of fields."""
    values: dict[str, Any] = {}
    for name, value in flags.items():
        *sections, field = name.split(".")
        place = values
        for section in sections:
            place = place.setdefault(section, {})
        place[field] = None if value in ("null", "none") and field != "resume" else value
    return values


def merged(below: Any, above: Any) -> Any:
    """Mappings within mappings: what is above wins."""
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return {**below, **{key: merged(below.get(key), value) for key, value in above.items()}}
