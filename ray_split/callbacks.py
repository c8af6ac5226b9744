"""What a run tells while it runs: subclass Callback, and pass it to fit."""

from __future__ import annotations

import difflib
import logging
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from typing import Any, Final, Literal, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from ray_split import config, logs
from ray_split.config.sections import EVALUATED_AT_ONCE
from ray_split.errors import BadPhoneError, PhoneGoneError, SettingsError
from ray_split.logs import finite
from ray_split.notebook_line import Line, in_notebook

logger = logs.get(__name__)


class _Request(Enum):
    STOP = "stop"

    def __repr__(self) -> str:
        return "rs.STOP"


StopRequest = Literal[_Request.STOP]
STOP: Final = _Request.STOP
"""What `on_round_end` returns to end the run in order with this round."""


class Callback:
    """Called by the driver as the run goes on. Override what you need.

    What a hook raises ends the run as failed, with a line that names the callback and the hook.
    """

    def on_run_start(self, settings: config.Config, where: list[str], first_round: int) -> None:
        """The actors run, as `where` says, a line each; the first round is next."""

    def on_progress(self, round: int, done: int, total: int, samples_per_second: float) -> None:
        """`done` of the `total` samples that a round trains on are done."""

    def on_exchanges(self, round: int, exchanges: int, queued: int) -> None:
        """So many more exchanges are through. `queued` calls had no answer yet when the driver turned to wait."""

    def on_round_end(self, row: dict[str, Any]) -> StopRequest | None:
        """A round is committed and evaluated; `row` is its line in metrics.jsonl.

        Returned STOP makes this round the run's last one: its model is tested and written, and the run has finished.
        """
        return None

    def on_recovery(self, round: int, lost: list[str]) -> None:
        """Actors died and were replaced; the round is run again."""

    def on_absence(self, round: int, phones: tuple[int, ...], reason: str) -> None:
        """Remote phones are off in this round: they are not there, or their devices left while it was under way."""

    def on_devices(self, round: int, devices: list[dict[str, Any]]) -> None:
        """How it stands with remote phones' devices, a mapping of each that ever was connected.

        When a round begins and ends, and every few seconds in it.
        """

    def on_quarantine(self, round: int, phones: tuple[int, ...], reason: str) -> None:
        """Phones sent what they may not, or can't be read: from this round, run again, the run goes on without them."""

    def on_smaller(self, round: int, lanes: int, chunk: int | None) -> None:
        """A server's GPU had no room: from this round, run again, it computes less at once."""

    def on_run_end(self, summary: dict[str, Any], path: str) -> None:
        """The run is over, for whatever reason: summary['status'] says."""


def number(value: float | None, places: int = 4) -> str:
    """A number for people; a dash for none."""
    return "-" if value is None else f"{value:.{places}f}"


NOT_SCORES = ("val_loss", "val_accuracy", "val_nonfinite")


def figures(row: dict[str, Any]) -> str:
    """A round's loss, and what validation gave: accuracy, or loss where there is none, and the scores."""
    by_loss = row["val_accuracy"] is None and row["val_loss"] is not None
    shown = ["val_loss" if by_loss else "val_accuracy"]
    shown += [name for name in row if name.startswith("val_") and name not in NOT_SCORES]
    broken = [f"val_nonfinite {row['val_nonfinite']}"] if row.get("val_nonfinite") else []
    return "  ".join([f"loss {number(row['train_loss'])}", *(f"{name} {number(row[name])}" for name in shown), *broken])


class PlainProgress(Callback):
    """One plain line a round, for a job's log."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._rounds = 0

    def _say(self, line: str) -> None:
        print(line, file=self._out, flush=True)

    def on_run_start(self, settings: config.Config, where: list[str], first_round: int) -> None:
        """Say what runs where."""
        self._rounds = settings.run.rounds
        say_start(self._say, settings, where, first_round)

    def on_round_end(self, row: dict[str, Any]) -> None:
        """Say the round's figures."""
        rate = row["samples"] / max(row["round_seconds"], 1e-9)
        self._say(f"round {row['round'] + 1}/{self._rounds}  {figures(row)}  {rate:.0f} samples/s")

    def on_recovery(self, round: int, lost: list[str]) -> None:
        """Say who died."""
        self._say(replaced(round, lost))

    def on_absence(self, round: int, phones: tuple[int, ...], reason: str) -> None:
        """Say who is off."""
        self._say(off(round, phones, reason))

    def on_quarantine(self, round: int, phones: tuple[int, ...], reason: str) -> None:
        """Say who is left out."""
        self._say(quarantined(round, phones, reason))

    def on_run_end(self, summary: dict[str, Any], path: str) -> None:
        """The closing table."""
        Console(file=self._out, width=max(80, len(path) + 32)).print(closing_table(summary, path))

    def show_sample(self, sample: dict[str, str]) -> None:
        """What the trained model writes, below the table."""
        self._say(sampled(sample, getattr(self._out, "encoding", None)))


class BarProgress(Callback):
    """A bar with round, loss, accuracy and samples/s, for a terminal."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console()
        columns = [TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[figures]}")]
        self._progress = Progress(*columns, TimeRemainingColumn(), console=self._console)
        self._task: TaskID | None = None
        self._rounds = 0
        self._last = "loss -  val_accuracy -"

    def on_run_start(self, settings: config.Config, where: list[str], first_round: int) -> None:
        """Say what runs where, and show the bar."""
        self._rounds = settings.run.rounds
        say_start(self._console.print, settings, where, first_round)
        self._task = self._progress.add_task("starting", total=settings.run.rounds, completed=first_round, figures="")
        self._progress.start()

    def _show(self, round: int, completed: float, rate: float) -> None:
        if self._task is not None:
            shown = f"{self._last}  {rate:.0f} samples/s"
            description = f"round {round + 1}/{self._rounds}"
            self._progress.update(self._task, description=description, completed=completed, figures=shown)

    def on_progress(self, round: int, done: int, total: int, samples_per_second: float) -> None:
        """Move the bar within the round."""
        self._show(round, round + done / total, samples_per_second)

    def on_round_end(self, row: dict[str, Any]) -> None:
        """Move the bar, with the round's figures."""
        self._last = figures(row)
        rate = row["samples"] / max(row["round_seconds"], 1e-9)
        self._show(row["round"], row["round"] + 1, rate)

    def on_recovery(self, round: int, lost: list[str]) -> None:
        """Say who died."""
        self._console.print(replaced(round, lost))

    def on_absence(self, round: int, phones: tuple[int, ...], reason: str) -> None:
        """Say who is off."""
        self._console.print(off(round, phones, reason))

    def on_quarantine(self, round: int, phones: tuple[int, ...], reason: str) -> None:
        """Say who is left out."""
        self._console.print(quarantined(round, phones, reason))

    def on_run_end(self, summary: dict[str, Any], path: str) -> None:
        """The closing table."""
        self._progress.stop()
        self._console.print(closing_table(summary, path))

    def show_sample(self, sample: dict[str, str]) -> None:
        """What the trained model writes, below the table."""
        line = sampled(sample, self._console.encoding)
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


class NotebookProgress(PlainProgress):
    """As plain lines, with one that has a bar and is written anew in the place of a line a round."""

    def __init__(self) -> None:
        super().__init__()
        self._line: Line | None = None
        self._last = "loss -  val_accuracy -"

    def on_run_start(self, settings: config.Config, where: list[str], first_round: int) -> None:
        """Say what runs where, and show the bar."""
        super().on_run_start(settings, where, first_round)
        self._line = Line(self._rounds, first_round, "starting")

    def _show(self, round: int, completed: float, rate: float, must: bool) -> None:
        if self._line is not None:
            text = f"round {round + 1}/{self._rounds}  {self._last}  {rate:.0f} samples/s"
            self._line.show(completed, text, must)

    def on_progress(self, round: int, done: int, total: int, samples_per_second: float) -> None:
        """Move the bar within the round."""
        self._show(round, round + done / total, samples_per_second, must=False)

    def on_round_end(self, row: dict[str, Any]) -> None:
        """Move the bar, with the round's figures."""
        self._last = figures(row)
        self._show(row["round"], row["round"] + 1, row["samples"] / max(row["round_seconds"], 1e-9), must=True)


class LoggedProgress(Callback):
    """The same as log records, for logs that are JSON."""

    def on_run_start(self, settings: config.Config, where: list[str], first_round: int) -> None:
        """What runs where."""
        say_start(logger.info, settings, where, first_round)

    def on_round_end(self, row: dict[str, Any]) -> None:
        """The round's figures, all of them beside the message."""
        logger.info("round %d  %s", row["round"] + 1, figures(row), extra=logs.about(row["round"], metrics=finite(row)))

    def on_recovery(self, round: int, lost: list[str]) -> None:
        """Who died."""
        logger.warning(replaced(round, lost), extra=logs.about(max(round, 0), lost=lost))

    def on_absence(self, round: int, phones: tuple[int, ...], reason: str) -> None:
        """Who is off."""
        logger.warning(off(round, phones, reason), extra=logs.about(round, phones, reason=reason))

    def on_quarantine(self, round: int, phones: tuple[int, ...], reason: str) -> None:
        """Who is left out."""
        logger.warning(quarantined(round, phones, reason), extra=logs.about(round, phones, reason=reason))

    def on_run_end(self, summary: dict[str, Any], path: str) -> None:
        """The run's summary, beside the message."""
        level = logging.INFO if summary["status"] == "finished" else logging.ERROR
        logger.log(level, "run %s", summary["status"], extra=logs.about(summary=summary, results=path))


def sampled(sample: dict[str, str], encoding: str | None) -> str:
    """A prompt and what the trained model writes after it: a line, as repr() has them, in signs that can be shown."""
    line = f"a sample: {sample['prompt']!r} | {sample['text']!r}"
    return line.encode(encoding or "utf-8", "backslashreplace").decode(encoding or "utf-8")


def show_sample(callbacks: Iterable[Callback], sample: dict[str, str]) -> None:
    """Whoever prints the closing table shows this too. JSON has it from the log, whoever is told of the run."""
    for each in callbacks:
        if isinstance(each, PlainProgress | BarProgress):
            each.show_sample(sample)


def replaced(round: int, lost: list[str]) -> str:
    """Who died, for people."""
    return f"round {max(round, 0) + 1} is run again: {', '.join(lost) or 'an actor'} died and was replaced"


def quarantined(round: int, phones: tuple[int, ...], reason: str) -> str:
    """Who is left out, for people."""
    return f"round {round + 1} is run again, and the run goes on, without {BadPhoneError(phones, reason)}"


def off(round: int, phones: tuple[int, ...], reason: str) -> str:
    """Which remote phones a round does without, for people."""
    return f"round {round + 1} does without {PhoneGoneError(phones, reason)}"


def progress(log_format: str = "text") -> Callback:
    """A bar on a terminal and in a notebook, plain lines elsewhere; as JSON if logs are."""
    if log_format == "json":
        return LoggedProgress()
    if in_notebook():
        return NotebookProgress()
    return BarProgress() if sys.stdout.isatty() else PlainProgress()


def listeners(callbacks: Sequence[Callback] | None, shown: bool | None, log_format: str) -> list[Callback]:
    """Who is told of a run: the progress, unless it is taken away or theirs brings one, and a user's callbacks.

    Raises SettingsError for what is no callback.
    """
    if isinstance(callbacks, (str, Callback)) or (callbacks is not None and not isinstance(callbacks, Iterable)):
        shown = repr(callbacks) if isinstance(callbacks, str) else f"{type(callbacks).__name__}(...)"
        raise SettingsError("callbacks", callbacks, f"Write callbacks=[{shown}]", f"{shown:.100} is no list")
    given = list(callbacks or ())
    for each in given:
        _check_callback(each)
    brings_one = any(isinstance(each, PROGRESS) for each in given)
    wanted = (callbacks is None or bool(given)) if shown is None else shown
    return [*([progress(log_format)] if wanted and not brings_one else []), *given]


PROGRESS = (PlainProgress, BarProgress, LoggedProgress)  # a notebook's is a PlainProgress
HOOKS = tuple(name for name in vars(Callback) if name.startswith("on_"))


def _check_callback(given: Any) -> None:
    if isinstance(given, type) and issubclass(given, Callback):
        raise SettingsError(
            "callbacks", given, f"Write {given.__name__}()", f"{given.__name__} is a class, not an object"
        )
    if isinstance(given, str):
        do = f"A name goes into the settings: rs.Config(run={{'callbacks': [{given!r}]}})"
        raise SettingsError("callbacks", given, do, f"{given!r:.100} is a name, and no object")
    if isinstance(given, type) or not all(callable(getattr(given, hook, None)) for hook in HOOKS):
        raise SettingsError("callbacks", given, "a list of objects of subclasses of rs.Callback")


def other_hooks(callback: Callback) -> Iterator[str]:
    """What is said of each of a callback's methods that is called like a hook, and that nobody calls."""
    for name in dir(type(callback)):
        if name.startswith("on_") and name not in HOOKS and callable(getattr(callback, name)):
            near = difflib.get_close_matches(name, HOOKS, n=1)
            yield f"has {name}, which is no hook" + (f": did you mean {near[0]}?" if near else "")


def say_start(say: Any, settings: config.Config, where: list[str], first_round: int) -> None:
    """What begins, where its actors run, and where its output lies."""
    begins = f" from round {first_round + 1}" if first_round else ""
    model, phones = settings.model, settings.phones.count
    say(f"{settings.run.name}: {model.name} cut at {', '.join(model.cuts or [])}, {phones} phones{begins}")
    for line in where:
        say(line)
    size = settings.data.eval_batch_size
    if size != "auto" and size < EVALUATED_AT_ONCE:
        say(f"samples are evaluated {size} at a time (data.eval_batch_size)")
    say(f"results: {settings.run.folder}")


def closing_table(summary: dict[str, Any], path: str) -> Table:
    """The run's figures and where they lie."""
    table = Table(title=f"run {summary['status']}", show_header=False, title_justify="left")
    table.add_column()
    table.add_column(overflow="fold")
    rows = {
        "rounds": str(summary["rounds"]),
        **({"ended early by": summary["stopped_by"]} if summary.get("stopped_by") else {}),
        **_best(summary),
        **({"test nonfinite": str(summary["test_nonfinite"])} if summary.get("test_nonfinite") else {}),
        "training s": number(summary["seconds"], 1),
        "samples/s": number(summary["samples_per_second"], 0),
        "sent up / down": f"{summary['bytes_up_total'] / 1e6:.1f} / {summary['bytes_down_total'] / 1e6:.1f} MB",
        **({"server replicas": str(summary["server_replicas"])} if summary["server_replicas"] > 1 else {}),
        "recoveries": str(summary["recoveries"]),
        **({"quarantined": str(len(summary["quarantined"]))} if summary["quarantined"] else {}),
        "results": path,
    }
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _best(summary: dict[str, Any]) -> dict[str, str]:
    tested = summary["test_accuracy"] is None and summary["test_loss"] is not None
    by = "loss" if tested or summary["best_val_loss"] is not None else "accuracy"
    found = {f"test {by}": number(summary[f"test_{by}"])}
    found[f"best validation {by}"] = number(summary[f"best_val_{by}"])
    found[f"test {by} there"] = number(summary[f"test_{by}_at_best_val"])
    scores = [name for name in summary if name.startswith("test_") and name.endswith("_at_best_val")]
    others = [name for name in scores if name not in ("test_accuracy_at_best_val", "test_loss_at_best_val")]
    for name in others:
        found[f"{name.removesuffix('_at_best_val').replace('_', ' ')} there"] = number(summary[name])
    return found


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def seconds(self) -> float:
        """Seconds so far."""
        return time.monotonic() - self._start
