"""Writes the site's settings.md from ray_split.config while the site is built, so that it can't lag behind the code."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from ray_split.config import Config

PAGE = "settings.md"
HEAD = """# Settings

Every setting of a run, with its default. This page is made from the code.

A setting is a field of a section. In a file it is written

    phones:
      count: 100

on the command line `--phones.count 100`, and in Python `rs.Config(phones={"count": 100})`. Where a default is `none`,
there is no value. How values are typed, and what a bad one gives: [The command](command.md).
"""
TABLE = ["| setting | may be | default | what it says |", "|---|---|---|---|"]
KINDS = {"integer": "whole number", "number": "number", "string": "text", "boolean": "`true`, `false`"}
KINDS |= {"null": "`none`", "array": "list", "object": "mapping"}
UNBOUNDED = 1e9  # no limit that a person meets

Schema = dict[str, Any]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Called by mkdocs: adds the page."""
    files.append(File.generated(config, PAGE, content=page()))
    return files


def page() -> str:
    """The page in Markdown: a table for each section."""
    schema = Config.model_json_schema()
    parts = [HEAD]
    for name, section in sections(schema, schema["$defs"]):
        fields = {field: value for field, value in section["properties"].items() if "$ref" not in value}
        about = section["description"].splitlines()[0]
        parts += [f"\n## {name}\n", f"{about}\n", *TABLE, *(row(f"{name}.{f}", value) for f, value in fields.items())]
    return "\n".join(parts) + "\n"


def sections(section: Schema, known: Schema, prefix: str = "") -> Iterator[tuple[str, Schema]]:
    """The sections within a section, by their full names, and those within them."""
    for name, field in section["properties"].items():
        if "$ref" in field:
            found = known[field["$ref"].rpartition("/")[2]]
            yield prefix + name, found
            yield from sections(found, known, f"{prefix}{name}.")


def row(name: str, field: Schema) -> str:
    """A setting's line in its section's table."""
    text = field.get("description", "").replace("|", "\\|")
    return f'| <span id="{name}"></span>`{name}` | {kind(field)} | `{shown(field.get("default"))}` | {text} |'


def kind(field: Schema) -> str:
    """What a field may be, in words."""
    if "anyOf" in field:
        bounds = {name: value for name, value in field.items() if name in ("gt", "ge")}
        return " or ".join(dict.fromkeys(kind({**bounds, **each}) for each in field["anyOf"]))
    if values := field.get("enum", [field["const"]] if "const" in field else []):
        return ", ".join(f"`{value}`" for value in values)
    return KINDS.get(field.get("type", ""), "name or mapping") + limits(field)


def limits(field: Schema) -> str:
    """Which numbers a field may be, in words; nothing where there is no limit that a person meets."""
    least, above = field.get("minimum", field.get("ge")), field.get("exclusiveMinimum", field.get("gt"))
    most, below = field.get("maximum", UNBOUNDED), field.get("exclusiveMaximum")
    words = [f"from {least:,}" if least is not None and abs(least) < UNBOUNDED else ""]
    words += [f"above {above:,}" if above is not None else "", f"to {most:,}" if most < UNBOUNDED else ""]
    words += [f"below {below:,}" if below is not None and below < UNBOUNDED else ""]
    return "".join(f" {word}" for word in words if word)


def shown(value: Any) -> str:
    """A default as it is typed."""
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
