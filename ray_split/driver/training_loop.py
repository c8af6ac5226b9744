"""The loop over a run's rounds: each trained, evaluated where it is due, saved and recorded."""

from __future__ import annotations

from typing import Any

from ray_split import config, logs
from ray_split.callbacks import Stopwatch
from ray_split.costs.virtual_clock import Clock
from ray_split.data.types import PART_NAMES
from ray_split.driver.round_runner import RoundRunner
from ray_split.errors import OutOfTimeError
from ray_split.messages.report import Sums
from ray_split.results.records import Records
from ray_split.schedules import schedule_of
from ray_split.tasks.task import Task


def run(
    runner: RoundRunner, settings: config.Config, records: Records, sizes: dict[str, int], first: int,
    clock: Clock | None = None,
) -> None:  # fmt: skip
    """All rounds from `first` on: train, evaluate, checkpoint, record. `sizes` are those of 'val' and 'test'.

    If it is stopped, the rounds that are complete are written first, if that can be.
    """
    runner.saved = first
    try:
        _rounds(runner, settings, records, sizes, first, clock)
    except (KeyboardInterrupt, OutOfTimeError):
        runner.stop.finish(lambda: _save_completed(runner, records))
        raise
    runner.save_model(settings.run.rounds)


def _save_completed(runner: RoundRunner, records: Records) -> None:
    """A checkpoint of the last round that has a row, if there is none yet."""
    records.summary("stopped", runner.recoveries)  # at once: there may be no time for more
    if records.rounds > runner.saved:
        records.flush()  # before the checkpoint, as in `_rounds`
        runner.backend.abandon()
        runner.save_now(records.rounds)
        records.saved = runner.saved


def _rounds(
    runner: RoundRunner,
    settings: config.Config,
    records: Records,
    sizes: dict[str, int],
    first: int,
    clock: Clock | None,
) -> None:
    for round in range(first, settings.run.rounds):
        logs.at(round)
        watch = Stopwatch()
        sums = runner.transaction(round, runner.train)
        row, own = sums.row(round, watch.seconds()) | {"left_out": runner.stream.count_left_out(round)}, None
        fate, times = runner.stream.fate(round), clock.round(runner.stream, round) if clock else None
        row |= fate.row() | (times.row(fate.over) if times else {})
        last = round + 1 == settings.run.rounds
        if last or (round + 1) % settings.run.eval_every == 0:
            row, own = _evaluated(row, runner, settings, records, sizes, last)
        due = last or (round + 1) % settings.checkpoint.every == 0
        # Before the checkpoint: resuming cuts lines that lie beyond one, and could not write one that is missing.
        table = sums.phone_table(round, own)
        columns = {"fate": fate.column(table["phone"])} | (times.columns(table["phone"]) if times else {})
        records.round(row, table | columns, flush=due)
        if due:
            runner.save(round + 1)
            records.saved = runner.saved
            records.summary("running", runner.recoveries)
        for callback in runner.callbacks:
            callback.on_round_end(row)


def _evaluated(
    row: dict[str, Any],
    runner: RoundRunner,
    settings: config.Config,
    records: Records,
    sizes: dict[str, int],
    last: bool,
) -> tuple[dict[str, Any], Sums | None]:
    """The row with validation; with the test too when validation is the best so far, and after the last round.

    Phones with personal models are each evaluated on their own samples, and others too if they hold any out.
    """
    round, batch, alone = row["round"] + 1, settings.data.eval_batch_size, schedule_of(settings.schedule).personal
    task = Task(settings.task)

    def on(part: str) -> Sums:
        if alone:
            return runner.transaction(round, lambda turn: runner.evaluate_own(turn, part, batch), training=False)
        return runner.transaction(round, lambda turn: runner.evaluate(turn, part, sizes[part], batch), training=False)

    def told(part: str, sums: Sums) -> dict[str, Any]:
        accuracy = sums.phone_mean if alone else sums.accuracy
        scores = {f"{part}_{name}": value for name, value in task.figures(sums.tallies).items()}
        broken = {f"{part}_nonfinite": runner.nonfinite.tell(row["round"], PART_NAMES[part], sums)}
        return {f"{part}_loss": sums.mean_loss, f"{part}_accuracy": accuracy, **scores, **broken}

    if sizes["val"] or alone:
        row |= told("val", on("val"))
    if not last and not records.would_be_best(row):
        return row, None
    test = on("test")
    row |= told("test", test)
    if not settings.phones.held_out:
        return row, None
    own = test
    if not alone:
        own = runner.transaction(round, lambda turn: runner.evaluate_own(turn, "test", batch), training=False)
        row |= {"phone_nonfinite": runner.nonfinite.tell(row["round"], "phones' test", own)}
    return row | own.over_phones(), own
