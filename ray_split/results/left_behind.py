"""What a run left in its folder beside rows and checkpoints, read back: its phones' lines, and its summary.

What is not as a run leaves it is told of, and taken for nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ray_split.errors import SettingsError, first_line, shown
from ray_split.filesystem import Place, Uri, children

CONFIG, MODEL, PHONES, SUMMARY = "config.yaml", "model.safetensors", "phones.parquet", "summary.json"
WITHOUT_EMA = "model_without_ema.safetensors"
"""The last weights, where MODEL is an average of them."""

BY_VALUE = "by_value.txt"
STATUSES = ("running", "finished", "stopped", "failed")
PART = re.compile(r"rounds_(\d{6,})_(\d{6,})\.parquet")
READERS = 16  # of footers at a URI, at a time


def read_summary(folder: Place) -> dict[str, Any]:
    """A run's summary. Raises FileNotFoundError if there is none, SettingsError if it can't be read."""
    path = folder / SUMMARY
    allowed = "Give the folder of another run"
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError, IsADirectoryError) as error:
        raise SettingsError(
            "path", str(folder), allowed, f"{shown(str(path))} can't be read: {first_line(error)}"
        ) from None
    if not isinstance(found, dict) or found.get("status") not in STATUSES:
        raise SettingsError("path", str(folder), allowed, f"{shown(str(path))} is not the summary of a run")
    return found


def known_summary(folder: Place) -> dict[str, Any] | None:
    """As `read_summary`, but None if there is none, or it can't be read."""
    try:
        return read_summary(folder)
    except (FileNotFoundError, SettingsError):
        return None


def read_quarantined(folder: Place) -> list[dict[str, Any]]:
    """The phones that a run goes on without: each with the round from which, and why. Empty if that isn't told."""
    return _told(folder, "quarantined")


def read_absent(folder: Place) -> list[dict[str, Any]]:
    """The remote phones that were off in a round: each with the round, and why."""
    return _told(folder, "absent")


def _told(folder: Place, name: str) -> list[dict[str, Any]]:
    """What a run's summary has a list of, each with a phone and a round."""
    found = (known_summary(folder) or {}).get(name, [])
    told = isinstance(found, list) and all(
        isinstance(each, dict) and type(each.get("phone")) is int and type(each.get("round")) is int for each in found
    )
    return found if told else []


def read_smaller(folder: Place) -> list[dict[str, Any]]:
    """From which rounds a server computes less at once, for want of memory. None if that isn't told."""
    found = (known_summary(folder) or {}).get("smaller", [])
    told = isinstance(found, list) and all(isinstance(each, dict) and _limits(each) for each in found)
    return found if told else []


def _limits(each: dict[str, Any]) -> bool:
    whole = type(each.get("round")) is int and type(each.get("lanes")) is int
    return whole and (each.get("chunk") is None or type(each["chunk"]) is int)


def ended_early(folder: Place) -> tuple[int, str] | None:
    """After how many rounds a run ended before its last one, and by what, if it did."""
    found = known_summary(folder) or {}
    rounds, what = found.get("rounds"), found.get("stopped_by")
    return (rounds, what) if type(rounds) is int and isinstance(what, str) else None


def span(part: Place) -> tuple[int, int] | None:
    """The first and the last round in a file of the phones' lines, by its name; None of a file that is none."""
    match = PART.fullmatch(part.name)
    return (int(match[1]), int(match[2])) if match else None


def unreadable(folder: Place, rounds: Iterable[int]) -> dict[int, str]:
    """Of rounds with phones those whose lines are not there: where they should be, and why not."""
    parts = [path for path in children(folder / PHONES) if span(path)]
    with ThreadPoolExecutor(READERS if isinstance(folder, Uri) else 1) as threads:
        problems = dict(zip(parts, threads.map(_problem, parts), strict=True))
    there = {part: range(each[0], each[1] + 1) for part in parts if (each := span(part))}
    found: dict[int, str] = {}
    for round in rounds:
        own = [part for part in parts if round in there[part]]
        told = [f"{part}: {problems[part]}" for part in own if problems[part]]
        if told or not own:
            found[round] = told[0] if told else f"{folder / PHONES} has no file of round {round}"
    return found


def _problem(part: Place) -> str | None:
    """What is wrong with a parquet file, as far as its end tells."""
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        with part.open() if isinstance(part, Uri) else part.open("rb") as file:
            ParquetFile(file).metadata.num_rows  # noqa: B018
    except (ArrowException, OSError, ValueError) as error:
        return first_line(error)
    return None
