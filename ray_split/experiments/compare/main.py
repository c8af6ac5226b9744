"""Compare schedules: each trained with each seed, and one table and one plot of all.

    ray-split compare --config digits.yaml --seeds 0,1,2 --out ~/ray_results/schedules

Takes the flags of `ray-split train` too. A run's folder is OUT/<schedule>_seed<seed>; beside them compare.csv, .md,
.tex and .png. All runs share one Ray. Started again with the same --out it goes on where it stopped: finished runs
are read, the others resumed.

Settings that a schedule has no use for (schedule.kwargs; server.replicas; phones.cohort and phones.stacked where phones
train one by one) are left out of its runs. splitfed_v3 holds a fifth of each phone's samples out, to evaluate on: with
--phones.held_out 0.2 all schedules do, and train on the same samples.

Exit status: 0 if all runs finished, 1 if one failed (the others run all the same), 2 for a bad setting, before
anything is written; 130 and 143 if stopped.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console

from ray_split import filesystem
from ray_split.driver.interrupted_start import stoppable
from ray_split.errors import RunStoppedError
from ray_split.experiments.command import exit_status, parser_of
from ray_split.experiments.compare import plots, results, tables
from ray_split.experiments.compare.runs import run_all, say
from ray_split.experiments.compare.settings import Comparison, comparison_of
from ray_split.experiments.out_folder import alone
from ray_split.experiments.plots import save


def write(comparison: Comparison, console: Console) -> int:
    """Write tables and plot from the runs' folders, and show the table; the number of runs that failed."""
    runs = results.read(comparison.out, comparison.schedules, comparison.seeds)
    target = comparison.target or _announced(runs, console)
    table = results.lines(runs, target)
    markdown = tables.to_markdown(table, target)
    filesystem.make_folder(comparison.out)
    texts = {"csv": tables.to_csv(table, target), "md": markdown, "tex": tables.to_latex(table, target)}
    for suffix, text in texts.items():
        filesystem.write(comparison.out / f"compare.{suffix}", text.encode())
    say(console, f"\n{markdown}")
    again = f", and run the same command with --out {comparison.out}"
    save({"compare.png": lambda: plots.figure_of(runs, target)}, comparison.out, hint=again)
    say(console, f"results: {comparison.out}")
    return sum(len(line.failed) for line in table)


def _announced(runs: Sequence[results.Run], console: Console) -> float | None:
    found = results.default_target(runs)
    if found is None:
        say(console, "no target: no run has validation accuracies")
        return None
    target, whose = found
    say(console, f"target: {target:.4g}, {results.SHARE_OF_BEST:.0%} of {whose}'s best mean validation accuracy")
    return target


def main(arguments: Sequence[str]) -> int:
    """Run the comparison; returns the exit status."""
    with stoppable():
        return _compare(arguments)


@exit_status
def _compare(arguments: Sequence[str]) -> int:
    console, comparison = Console(), None
    try:
        comparison = comparison_of(arguments, parser_of("compare", __doc__))
        if comparison.show:
            print("---\n".join(settings.to_yaml() for settings in comparison.runs.values()), end="")
            return 0
        with alone(comparison.out):
            run_all(comparison.runs, console)
            return 1 if write(comparison, console) else 0
    except KeyboardInterrupt as error:
        goes_on = f"; the same command with --out {comparison.out} goes on" if comparison else ""
        print(f"stopped{goes_on}", file=sys.stderr)
        return 128 + error.signal_number if isinstance(error, RunStoppedError) else 130
