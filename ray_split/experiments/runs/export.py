"""Runs as a table for a paper or a spreadsheet: CSV, Markdown or LaTeX.

    ray-split export RUN RUN --format latex > table.tex
    ray-split export ~/ray_results/lr --columns run,optimizer.lr,test_accuracy_at_best_val --out lr.csv
    ray-split export RUN --rounds > curve.csv

RUN is a run's folder, a URI, or the name of a run in --storage. A folder of runs stands for all in it. The columns
are the run, the settings that differ, and the results, unless --columns says others. With --rounds a row is a round of
a run, with all columns of metrics.jsonl. --where, --sort, --reverse and --limit choose runs as `ray-split runs` does.

Exit status: 0, or 2 for a bad argument.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from ray_split import filesystem
from ray_split.command_line.parser import Parser
from ray_split.errors import SettingsError, first_line, listed
from ray_split.errors import shown as said
from ray_split.experiments import tables
from ray_split.experiments.command import exit_status, parser_of, words_of
from ray_split.experiments.runs.choice import add_choice, choose
from ray_split.experiments.runs.columns import check, shown, usual, value_of
from ray_split.experiments.runs.diff import AS_SETTINGS, differing, is_noise
from ray_split.experiments.runs.find import LISTS, Run, run_at, runs_in, storage_of
from ray_split.experiments.runs.show import add_storage
from ray_split.filesystem import Place

Row = dict[str, Any]

FORMATS: dict[str, Callable[[Sequence[Row]], str]] = {
    "csv": tables.to_csv,
    "md": lambda rows: tables.to_markdown(tables.aligned(_texts(rows))),
    "latex": lambda rows: tables.to_latex(_texts(rows)),
}
ENDINGS = {".csv": "csv", ".md": "md", ".tex": "latex"}
"""What --out is called, and the format that it then has."""
OTHERS = (".xlsx", ".xls", ".ods", ".json", ".jsonl", ".yaml", ".parquet", ".html", ".pdf", ".docx", ".tsv")
"""Endings that say that a file is neither of these."""


def _add_flags(parser: Parser) -> None:
    add = parser.add_argument
    add("run", nargs="+", metavar="RUN", help="folders of runs, or of several, or names")
    parser.needs = ("the run to export: its folder, or its name with --storage FOLDER", LISTS)
    add("--format", choices=tuple(FORMATS), help="(default: by the ending of --out, or csv)")
    add("--columns", metavar="A,B", help="as ray-split runs has them")
    add_choice(parser, sort=None)
    add("--rounds", action="store_true", help="a row for each round")
    add("--out", metavar="FILE", help="file to write (default: printed)")
    add_storage(parser)


WITH_ROUNDS = "can't be used with --rounds, whose columns are always those of metrics.jsonl"


@exit_status
def main(arguments: Sequence[str]) -> int:
    """Export runs; returns the exit status."""
    parser = parser_of("export", __doc__)
    _add_flags(parser)
    given = parser.parse_args(arguments)
    if given.rounds and given.columns is not None:
        raise SettingsError("--columns", given.columns, "Leave one of them out", WITH_ROUNDS)
    out = None if given.out is None else storage_of(given.out, "--out")
    _ = given.format or _format_of(out)  # else refused, before runs are read
    runs = [run for name in given.run for run in _runs_at(name, storage_of(given.storage))]
    runs = choose(runs, given)
    if not runs:
        raise SettingsError("--where", " ".join(given.where), "Ask for less", "none of these runs meets it")
    rows = rounds_of(runs) if given.rounds else rows_of(runs, given.columns)
    if not rows:
        wrong = f"{listed(map(said, given.run))} {'has' if len(given.run) == 1 else 'have'} no rounds yet"
        raise SettingsError("", " ".join(given.run), f"Name a run that has completed one. {LISTS}", wrong)
    text = FORMATS[given.format or _format_of(out)](rows)
    if out is None:
        sys.stdout.write(text)
    else:
        _write(out, text)
    return 0


def _format_of(out: Place | None) -> str:
    """By the file's ending. Raises SettingsError for one of another kind of file."""
    ending = "" if out is None else f".{out.name.rpartition('.')[2].lower()}"
    if ending in OTHERS:
        wrong = f"{ending} is a file of another kind than {', '.join(FORMATS)}"
        raise SettingsError("--out", str(out), f"Name a file that ends in {', '.join(ENDINGS)}", wrong)
    return ENDINGS.get(ending, "csv")


def _runs_at(name: str, storage: Place) -> list[Run]:
    """The run that is meant, or those in a folder."""
    try:
        return [run_at(name, storage)]
    except SettingsError as error:
        folder = storage_of(name, "")
        found = runs_in(folder) if folder.exists() else []
        if not found:
            raise error
        return found


def rows_of(runs: Sequence[Run], columns: str | None) -> list[Row]:
    """A row a run."""
    if columns is None:
        settings = [name for name in differing(runs) if not is_noise(name)]
        names = ["run", *settings, *(name for name in usual(runs)[1:] if AS_SETTINGS.get(name) not in settings)]
    else:
        names = words_of("--columns", columns)
        check("--columns", names, runs)
    return [{name: value_of(run, name) for name in dict.fromkeys(names)} for run in runs]


def rounds_of(runs: Sequence[Run]) -> list[Row]:
    """A row a round; the columns are those that any has."""
    names = dict.fromkeys(name for run in runs for row in run.rows for name in row)
    return [{"run": run.name, **{name: row.get(name) for name in names}} for run in runs for row in run.rows]


def _texts(rows: Sequence[Row]) -> list[list[str]]:
    return [list(rows[0]), *([shown(value) for value in row.values()] for row in rows)]


def _write(out: Place, text: str) -> None:
    try:
        filesystem.make_folder(out.parent)
        filesystem.write(out, text.encode())
    except OSError as error:
        raise SettingsError(
            "--out",
            str(out),
            "Name another file",
            f"{said(str(out))} can't be written: {error.strerror or first_line(error)}",
        ) from error
