"""Tables for notebooks. What is shown is escaped: a name or a path may hold anything."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from ray_split.config import yaml12
from ray_split.errors import brief, masked

LONGEST = 200  # characters of a value


def table(caption: str, rows: Mapping[str, Any], note: str = "") -> str:
    """A compact table of names and values."""
    lines = "".join(f"<tr><th>{escape(name)}</th><td>{escape(_shown(value))}</td></tr>" for name, value in rows.items())
    foot = f"<tfoot><tr><td colspan=2><i>{escape(note)}</i></td></tr></tfoot>" if note else ""
    head = f"<caption>{escape(masked(caption))}</caption>"
    return f"<table>{head}<tbody style='text-align:left'>{lines}</tbody>{foot}</table>"


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}"
    text = masked(value if isinstance(value, str) else brief(value, LONGEST))
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def settings(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    """The settings, in sections, that are not the defaults."""
    flat, usual = _flat(values), _flat(defaults)
    changed = {name: value for name, value in flat.items() if value != usual.get(name)}
    shown = {name: yaml12.write_line(v) if isinstance(v, dict | list) else v for name, v in changed.items()}
    others = f"{len(flat) - len(changed)} more as by default." if changed else "All settings are the defaults."
    return table("ray_split.Config", shown, others)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """By full names; kwargs and the like whole."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict) and (not prefix or name == "partition"):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found
