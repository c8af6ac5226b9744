"""The flags that choose among runs, and put them in order."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ray_split.command_line.parser import Parser
from ray_split.errors import SettingsError
from ray_split.experiments.runs.columns import chosen, ordered
from ray_split.experiments.runs.find import Run


def add_choice(parser: Parser, sort: str | None) -> None:
    """Add the flags; `sort` is the column by default, None to leave the runs as they are named."""
    add = parser.add_argument
    add(
        "--where",
        action="append",
        default=[],
        metavar="COLUMN=VALUE",
        help="or with != < <= > >=; several: all must hold",
    )
    default = "the latest" if sort else "as they are named"
    add("--sort", metavar="COLUMN", default=sort, help=f"column to sort by, the best first (default: {default})")
    add("--reverse", action="store_true", help="sort the other way round")
    add("--limit", type=int, help="how many runs at most")


def choose(runs: Sequence[Run], given: argparse.Namespace) -> list[Run]:
    """The runs that the flags say. Raises SettingsError."""
    if given.limit is not None and given.limit < 1:
        raise SettingsError("--limit", given.limit, "1 or more")
    found = chosen(runs, given.where)
    if given.sort is not None:
        return ordered(found, given.sort, given.reverse)[: given.limit]
    return (found[::-1] if given.reverse else found)[: given.limit]
