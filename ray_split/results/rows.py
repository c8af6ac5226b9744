"""A run's rows, metrics.jsonl, read back: what is no row is left out and told, never counted."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import count, groupby, pairwise
from typing import Any, NamedTuple

from ray_split import logs
from ray_split.filesystem import Place

METRICS = "metrics.jsonl"
COLUMNS = ("val_accuracy", "phones", "round_seconds", "bytes_up", "bytes_down", "bytes_weights")
"""Some that a row of any version has."""

Row = dict[str, Any]

logger = logs.get(__name__)


class Rows(NamedTuple):
    """The rows that are there, in the rounds' order, and what is wrong with the file: in words, if anything."""

    rows: list[Row]
    problem: str | None


def read_rows(folder: Place) -> list[Row]:
    """The lines of a run's metrics.jsonl; none if it isn't there. What can't be read or is missing is told in a line.

    A last one that was cut off while written is none.
    """
    rows, problem = found(folder)
    if problem:
        logger.warning("%s: %s", folder / METRICS, problem)
    return rows


def found(folder: Place) -> Rows:
    """As `read_rows`, without telling."""
    path = folder / METRICS
    return parsed(path.read_bytes() if path.exists() else b"")


def parsed(content: bytes) -> Rows:
    """The rows in a file's content."""
    lines = content[: content.rfind(b"\n") + 1].splitlines()
    read = [_row(line) for line in lines]
    rows = [row for row in read if row is not None]
    kept = list(_once(rows))
    problems = [f"line {read.index(None) + 1} is no row"] if None in read else []
    if len(kept) < len({row["round"] for row in rows}):
        problems.append("a round has two rows that differ")
    if kept and (gaps := missing(kept, kept[-1]["round"])):
        problems.append(f"no row of {shown(gaps)}")
    if any(later["round"] < row["round"] for row, later in pairwise(rows)):
        problems.append("rows are not in the rounds' order")
    return Rows(kept, "; ".join(problems) or None)


def _row(line: bytes) -> Row | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if (
        not isinstance(row, dict)
        or type(row.get("round")) is not int
        or row["round"] < 0
        or not row.keys() >= {*COLUMNS}
    ):
        return None
    return row if all(value is None or isinstance(value, (int, float)) for value in row.values()) else None


def _once(rows: list[Row]) -> Iterator[Row]:
    """Each round's row, of a round that has several if they are alike."""
    for _, same in groupby(sorted(rows, key=lambda row: row["round"]), key=lambda row: row["round"]):
        first, *others = same
        if all(other == first for other in others):
            yield first


def whole(rows: Iterable[Row]) -> int:
    """How many rounds have a row before the first that has none."""
    there = {row["round"] for row in rows}
    return next(round for round in count() if round not in there)


def missing(rows: Iterable[Row], before: int) -> list[int]:
    """The rounds before one that have no row."""
    return sorted(set(range(before)) - {row["round"] for row in rows})


def shown(rounds: list[int]) -> str:
    """Rounds in words, not too many."""
    some = ", ".join(map(str, rounds[:5])) + (f" and {len(rounds) - 5} more" if rounds[5:] else "")
    return f"round {some}" if len(rounds) == 1 else f"rounds {some}"
