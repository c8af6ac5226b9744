"""Settings as flags: `--section.field VALUE` for every field, and back from flags to sections."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, get_args, get_origin

from pydantic.fields import FieldInfo

from ray_split.command_line.parser import Last
from ray_split.config.fields import Section
from ray_split.errors import listed

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
        flag = f"--{name}"
        added = parser.add_argument(flag, action=Last, metavar=metavar, default=argparse.SUPPRESS, help=text, **bare)
        if isinstance(added, Last):
            added.takes = listed(kinds(field.annotation, field.description or ""), "or")


KINDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list, such as a,b",
    dict: "a mapping, such as '{width: 3}'",
    Path: "a path",
}


def kinds(annotation: Any, description: str) -> list[str]:
    """What a value may be, in words; of text what the description says."""
    kind = get_origin(annotation) or annotation
    if kind is Literal:
        return [str(each) for each in get_args(annotation)]
    if kind is str:
        return [description.partition(";")[0].removesuffix(".")]
    if kind in KINDS:
        return [KINDS[kind]]
    parts = get_args(annotation)[:1] if kind is Annotated else get_args(annotation)
    return list(dict.fromkeys(each for part in parts for each in kinds(part, description)))


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
