"""One run at a glance: where it comes from, its settings, its results, its rounds.

    ray-split show
    ray-split show results/rings

RUN is a run's folder, a URI, or the name of a run in --storage. Without RUN it is the latest run in --storage. Settings
that are the defaults are left out; --all shows them too.

Exit status: 0, or 2 for a bad argument.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ray_split import config
from ray_split.command_line.parser import Parser
from ray_split.experiments import tables
from ray_split.experiments.command import exit_status, parser_of
from ray_split.experiments.runs.columns import shown
from ray_split.experiments.runs.find import Run, flat, run_at, storage_of

ORIGIN = ("started", "ended", "host", "command", "git_commit", "git_changes", "error")
ROUND = ("round", "train_loss", "val_loss", "val_accuracy", "test_loss", "test_accuracy", "round_seconds")
ROUNDS = 12  # shown, evenly spread; first and last among them
BARS = "▁▂▃▄▅▆▇█"
WIDTH = 60  # of a curve, in signs
NOT_RESULTS = ("schema_version", "status", *ORIGIN, "versions", "classes", "quarantined", "seed", "schedule", "phones")


def add_storage(parser: Parser) -> None:
    """The flag that says where runs that are named lie."""
    parser.add_argument("--storage", metavar="FOLDER", help="where a RUN by name is (default: ~/ray_results)")


@exit_status
def main(arguments: Sequence[str]) -> int:
    """Show a run; returns the exit status."""
    parser = parser_of("show", __doc__)
    parser.add_argument("run", nargs="?", metavar="RUN", help="its folder, or its name (default: the latest)")
    parser.add_argument("--all", action="store_true", help="all settings, also those that are the defaults")
    add_storage(parser)
    given = parser.parse_args(arguments)
    run = run_at(given.run, storage_of(given.storage))
    print("\n".join(lines_of(run, given.all)))
    return 0


def lines_of(run: Run, all_settings: bool = False) -> Iterator[str]:
    """What is told of a run."""
    yield f"{run.folder}: {run.status}, {run.summary.get('rounds')} rounds"
    yield from _pairs({name: run.summary[name] for name in ORIGIN if run.summary.get(name) is not None})
    yield "\nsettings" if all_settings else "\nsettings that are not the defaults"
    yield from _pairs(run.settings if all_settings else changed(run.settings))
    yield "\nresults"
    yield from _pairs({k: v for k, v in run.summary.items() if k not in NOT_RESULTS and v is not None})
    if run.rows:
        yield "\nrounds"
        yield from curves(run.rows)
        yield table_of_rounds(run.rows)


def changed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that are not the defaults."""
    default = flat(config.Config().model_dump(mode="json"))
    return {name: value for name, value in settings.items() if value != default.get(name)}


def _pairs(values: Mapping[str, Any]) -> Iterator[str]:
    width = max(map(len, values), default=0)
    return (
        f"  {name.ljust(width)}  {shown(value, full=not isinstance(value, float))}" for name, value in values.items()
    )


def curves(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A curve in a line for each of the scores: its lowest value at the bottom, its highest at the top."""
    for name in ("train_loss", "val_loss", "val_accuracy"):
        values = [row[name] for row in rows if row.get(name) is not None]
        if len(values) > 1:
            yield f"  {name:<12}  {curve(values)}  {values[0]:.4g} to {values[-1]:.4g}"


def curve(values: Sequence[float]) -> str:
    """Values as bars of eight heights; of more than fit every so many-th."""
    chosen = [values[i] for i in spread(len(values), WIDTH)]
    low, high = min(chosen), max(chosen)
    top = len(BARS) - 1
    return "".join(BARS[round(top * (value - low) / (high - low)) if high > low else 0] for value in chosen)


def table_of_rounds(rows: Sequence[Mapping[str, Any]]) -> str:
    """Some of the rounds, counted from 1, the first and the last among them, with the columns that have anything."""
    columns = [name for name in ROUND if any(row.get(name) is not None for row in rows)]
    chosen = [{**rows[i], "round": rows[i]["round"] + 1} for i in spread(len(rows), ROUNDS)]
    lines = tables.to_lines([columns, *([shown(row.get(name)) for name in columns] for row in chosen)], left=0)
    left_out = [f"{len(chosen)} of {len(rows)} rounds shown"] if len(chosen) < len(rows) else []
    return "\n".join(f"  {line}" for line in [*lines, *left_out])


def spread(count: int, most: int) -> list[int]:
    """At most so many of the numbers below `count`, evenly, 0 and the last among them."""
    if count <= most:
        return list(range(count))
    return [round(i * (count - 1) / (most - 1)) for i in range(most)]
