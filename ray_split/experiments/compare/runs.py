"""The runs of a comparison, one after the other on one cluster; a bar for all of them, and a line each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from ray_split import config
from ray_split.api import connect, fit
from ray_split.callbacks import Callback, number
from ray_split.driver.backend import Backend
from ray_split.errors import RunFailedError, SettingsError, told
from ray_split.experiments.compare import results
from ray_split.results.left_behind import known_summary


def is_finished(settings: config.Config) -> bool:
    """Whether the run has been run to its end."""
    summary = known_summary(settings.run.folder)
    return summary is not None and bool(summary["status"] == "finished")


@contextmanager
def connected(settings: config.Cluster) -> Iterator[Backend]:
    """What all runs share: Ray, if it is not running, is started once, and stopped at the end. Raises SettingsError."""
    try:
        backend = connect(settings)
    except ConnectionError as error:
        allowed, wrong = (
            "Set cluster.address to the address of a running Ray, or leave it out",
            results.one_line(error),
        )
        raise SettingsError("cluster.address", settings.address, allowed, wrong) from error
    try:
        yield backend
    finally:
        backend.stop()


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
    due = {name: settings for name, settings in runs.items() if not is_finished(settings)}
    watch = Watch(console, len(runs))
    for name, settings in runs.items():
        if name not in due:
            watch.end(name, f"{outcome(settings)} (finished before)")
    if not due:
        return
    with connected(next(iter(due.values())).cluster) as backend:
        for settings in due.values():
            backend.resolve(settings)
        with watch.bar:
            for name, settings in due.items():
                watch.end(name, train(settings, watch))


def train(settings: config.Config, callback: Callback) -> str:
    """Run it: how it went, in one line."""
    try:
        fit(settings, callbacks=[callback], progress=False)
    except (RunFailedError, SettingsError) as error:
        return f"failed: {results.one_line(error)}"
    except Exception as error:  # noqa: BLE001  whatever ends a run, a full disk or a lost Ray, the others have their turn
        return f"failed: {told(error)}"
    return outcome(settings)


def outcome(settings: config.Config) -> str:
    """A finished run's figures, in one line."""
    run = results.read_run(settings.run.folder, settings.schedule.name, settings.run.seed)
    seconds = number(run.summary["seconds"], 1)
    return f"test accuracy {number(results.accuracy(run))}, {run.summary['rounds']} rounds, {seconds} s of training"
