"""Compare schedules: each trained with each seed, and one table and one plot of all.

    python -m jobs.compare --config jobs/configs/digits.yaml --seeds 0,1,2 --out ~/ray_results/schedules

Takes the flags of `ray-split train` too. A run's folder is OUT/<schedule>_seed<seed>; beside them compare.csv, .md,
.tex and .png. All runs share one Ray. Started again with the same --out it goes on where it stopped: what is finished
is read, what is not is resumed.

Settings that a schedule has no use for (schedule.kwargs; server.replicas; phones.cohort and phones.stacked where phones
train one by one) are left out of its runs. splitfed_v3 holds a fifth of each phone's samples out, to evaluate on: with
--phones.held_out 0.2 all schedules do, and train on the same samples.

Exit status: 0 if all runs finished, 1 if one failed (the others are run all the same), 2 for a bad setting, before
anything is written; 130 and 143 if stopped.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from ray_split import config, filesystem
from ray_split.api import BACKENDS, fit
from ray_split.callbacks import Callback, number
from ray_split.driver.interrupted_start import stoppable
from ray_split.errors import RunFailedError, RunStoppedError, SettingsError, first_line, told
from ray_split.experiments.compare import plots, tables
from ray_split.experiments.compare import results as tally
from ray_split.experiments.compare.settings import Plan, plan_of
from ray_split.experiments.out_folder import alone
from ray_split.placement import Node
from ray_split.resolve import resolve
from ray_split.results.left_behind import known_summary


def finished(settings: config.Config) -> bool:
    """Whether the run has been run to its end."""
    summary = known_summary(settings.run.folder)
    return summary is not None and bool(summary["status"] == "finished")


@contextmanager
def connected(settings: config.Cluster) -> Iterator[list[Node]]:
    """What all runs share: Ray, if it is not running, is started once, and stopped at the end. Raises SettingsError."""
    try:
        wiring, nodes = importlib.import_module(BACKENDS[settings.backend]).connect(settings)
    except ConnectionError as error:
        raise SettingsError("cluster.address", settings.address, f"a running Ray's: {tally.one_line(error)}") from error
    try:
        yield nodes
    finally:
        wiring.stop()


class Watch(Callback):
    """The comparison's bar on a terminal, and its line a run."""

    def __init__(self, console: Console, runs: int) -> None:
        columns = [BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn()]
        self.bar = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task: TaskID = self.bar.add_task("", total=runs)
        self._runs, self._done, self._name, self._rounds = runs, 0, "", 1

    def on_run_start(self, settings: config.Config, where: list[str], first_round: int) -> None:
        """Show which run it is."""
        self._name, self._rounds = str(settings.run.name), settings.run.rounds
        self._show(first_round)

    def on_round_end(self, row: dict[str, Any]) -> None:
        """Move the bar."""
        self._show(row["round"] + 1)

    def _show(self, rounds: int) -> None:
        done = self._done + rounds / self._rounds
        self.bar.update(self._task, completed=done, description=f"{self._name} round {rounds}/{self._rounds}")

    def end(self, name: str, what: str) -> None:
        """A run is over: its line."""
        self._done += 1
        say(self.bar.console, f"{self._done}/{self._runs} {name}: {what}")
        self.bar.update(self._task, completed=self._done)


def say(console: Console, text: str) -> None:
    """Print as it is: neither coloured nor wrapped."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def run_all(runs: dict[str, config.Config], console: Console) -> None:
    """Run what is not finished, on one cluster. A run that fails does not keep the others. Raises SettingsError."""
    due = {name: settings for name, settings in runs.items() if not finished(settings)}
    watch = Watch(console, len(runs))
    for name, settings in runs.items():
        if name not in due:
            watch.end(name, f"{outcome(settings)} (finished before)")
    if not due:
        return
    with connected(next(iter(due.values())).cluster) as nodes:
        for settings in due.values():
            resolve(settings, nodes)
        with watch.bar:
            for name, settings in due.items():
                watch.end(name, train(settings, watch))


def train(settings: config.Config, callback: Callback) -> str:
    """Run it: how it went, in one line."""
    try:
        fit(settings, callbacks=[callback])
    except (RunFailedError, SettingsError) as error:
        return f"failed: {tally.one_line(error)}"
    except Exception as error:  # noqa: BLE001  whatever ends a run, a full disk or a lost Ray, the others have their turn
        return f"failed: {told(error)}"
    return outcome(settings)


def outcome(settings: config.Config) -> str:
    """A finished run's figures, in one line."""
    run = tally.read_run(settings.run.folder, settings.schedule.name, settings.run.seed)
    seconds = number(run.summary["seconds"], 1)
    return f"test accuracy {number(tally.accuracy(run))}, {run.summary['rounds']} rounds, {seconds} s"


# What comes of it.


def write(plan: Plan, console: Console) -> int:
    """Write tables and plot from the runs' folders, and show the table; the number of runs that failed."""
    runs = tally.read(plan.out, plan.schedules, plan.seeds)
    target = plan.target or _announced(runs, console)
    table = tally.lines(runs, target)
    markdown = tables.to_markdown(table, target)
    filesystem.make_folder(plan.out)
    texts = {"csv": tables.to_csv(table, target), "md": markdown, "tex": tables.to_latex(table, target)}
    for suffix, text in texts.items():
        filesystem.write(plan.out / f"compare.{suffix}", text.encode())
    say(console, f"\n{markdown}")
    try:
        plots.plot(runs, target, plan.out / "compare.png")
    except ImportError as error:
        say(console, f"no plot: {error}; pip install matplotlib, and run the same command with --out {plan.out}")
    say(console, f"results: {plan.out}")
    return sum(len(line.failed) for line in table)


def _announced(runs: Sequence[tally.Run], console: Console) -> float | None:
    found = tally.default_target(runs)
    if found is None:
        say(console, "no target: no run has validation accuracies")
        return None
    target, whose = found
    say(console, f"target: {target:.4g}, {tally.SHARE_OF_BEST:.0%} of {whose}'s best mean validation accuracy")
    return target


def main(arguments: Sequence[str]) -> int:
    """Run the comparison; returns the exit status."""
    with stoppable():
        return _main(arguments)


def _main(arguments: Sequence[str]) -> int:
    console, plan = Console(), None
    try:
        plan = plan_of(arguments, __doc__ or "")
        if plan.show:
            print("---\n".join(settings.to_yaml() for settings in plan.runs.values()), end="")
            return 0
        with alone(plan.out):
            run_all(plan.runs, console)
            return 1 if write(plan, console) else 0
    except OSError as error:
        print(f"error: {first_line(error)}", file=sys.stderr)
        return 1
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        goes_on = f"; the same command with --out {plan.out} goes on" if plan else ""
        print(f"stopped{goes_on}", file=sys.stderr)
        return 128 + error.signal_number if isinstance(error, RunStoppedError) else 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
