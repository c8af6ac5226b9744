"""Which runs there are, the latest first.

    ray-split runs
    ray-split runs ~/ray_results/lr --where status=finished --where 'optimizer.lr>=0.1' --sort best_val_accuracy
    ray-split runs --columns run,optimizer.lr,data.partition.alpha,test_accuracy --json

Looks through FOLDER and the folders in it, so runs of a comparison or a sweep are found too. A column is a key of
summary.json, any setting by its name (optimizer.lr), or one of run, status, schedule, phones, rounds, train_loss,
val_loss, val_accuracy; the last three are of the last round that has one. A run whose process died is `killed`.
Runs of a day: --where started=2026-11-27; since then: --where 'started>=2026-11-27'.

Exit status: 0, or 2 for a bad argument.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from ray_split.command_line.parser import Parser
from ray_split.experiments import tables
from ray_split.experiments.command import exit_status, parser_of, words_of
from ray_split.experiments.runs.choice import add_choice, choose
from ray_split.experiments.runs.columns import check, shown, usual, value_of
from ray_split.experiments.runs.find import Run, runs_in, storage_of


def _add_flags(parser: Parser) -> None:
    add = parser.add_argument
    add("folder", nargs="?", metavar="FOLDER", help="where to look, a path or a URI (default: ~/ray_results)")
    add_choice(parser, sort="started")
    add("--columns", metavar="A,B", help="columns to show")
    add("--json", action="store_true", help="a JSON list, its values as they are")


@exit_status
def main(arguments: Sequence[str]) -> int:
    """List runs; returns the exit status."""
    parser = parser_of("runs", __doc__)
    _add_flags(parser)
    given = parser.parse_args(arguments)
    folder = storage_of(given.folder, "")
    there = runs_in(folder)
    columns = None if given.columns is None else words_of("--columns", given.columns)
    check("--columns", columns or [], there)
    runs = choose(there, given)
    columns = columns or usual(runs)
    if given.json:
        print(json.dumps([{name: value_of(run, name) for name in columns} for run in runs], indent=1))
    else:
        print(table_of(runs, columns) if runs else f"no runs in {folder}")
    return 0


def table_of(runs: Sequence[Run], columns: Sequence[str]) -> str:
    """A line a run, with the names of the columns above."""
    lines = [list(columns), *([shown(value_of(run, name)) for name in columns] for run in runs)]
    return "\n".join(tables.to_lines(lines, left=2))
