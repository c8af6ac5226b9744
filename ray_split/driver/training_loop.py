"""The loop over a run's rounds: each trained, evaluated where it is due, saved and recorded, until one is the last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ray_split import config, logs
from ray_split.arrays import Array
from ray_split.callbacks import STOP, Callback, Stopwatch
from ray_split.costs.virtual_clock import Clock
from ray_split.driver.guarded_callbacks import Guarded
from ray_split.driver.round_runner import RoundRunner
from ray_split.driver.row_evaluation import RowEvaluation
from ray_split.driver.stop_rule import StopRule
from ray_split.errors import CallbackError, OutOfTimeError
from ray_split.messages.report import Sums
from ray_split.results.adapter import write_adapter_of
from ray_split.results.records import Records

Row = dict[str, Any]
PhoneTable = Callable[[Sums | None], dict[str, Array]]
"""A round's lines in phones.parquet, with those of the phones' own test, if there was one."""


def run(
    runner: RoundRunner, settings: config.Config, records: Records, sizes: dict[str, int], first: int,
    clock: Clock | None = None,
) -> None:  # fmt: skip
    """All rounds from `first` on: train, evaluate, checkpoint, record. `sizes` are those of 'val' and 'test'.

    If it is stopped, or a callback raises, the rounds that are complete are written first, if that can be.
    """
    runner.saved = first
    rounds = _Rounds(runner, settings, records, RowEvaluation(runner, settings, sizes), clock)
    try:
        done = rounds.run(first)
    except (KeyboardInterrupt, OutOfTimeError, CallbackError) as ended:
        status = "failed" if isinstance(ended, CallbackError) else "stopped"
        runner.stop.finish(lambda: _save_completed(runner, records, status))
        raise
    runner.save_model(done)
    if settings.model.lora.r is not None:
        write_adapter_of(records.folder, settings.model)


def _save_completed(runner: RoundRunner, records: Records, status: str) -> None:
    """A checkpoint of the last round that has a row, if there is none yet."""
    records.summary(status, runner.recoveries)  # at once: there may be no time for more
    if records.rounds > runner.saved:
        records.flush()  # before the checkpoint, as in `_Rounds`
        runner.backend.abandon()
        runner.save_now(records.rounds)
        records.saved = runner.saved


class _Rounds:
    """A run's rounds, one after the other."""

    def __init__(
        self,
        runner: RoundRunner,
        settings: config.Config,
        records: Records,
        evaluation: RowEvaluation,
        clock: Clock | None,
    ) -> None:
        self._runner, self._settings, self._records = runner, settings, records
        self._evaluation, self._clock = evaluation, clock
        self._rule = StopRule(settings.run.stop, records.rows() if settings.run.stop else ())

    def run(self, first: int) -> int:
        """The rounds that are left, until one is the last: how many the run has then."""
        done, table = first, None
        ended = self._rule.reason or _asked_before(self._runner.callbacks, self._records, first)
        while ended is None and done < self._settings.run.rounds:
            ended, table = self._round(done)
            done += 1
        if done and "test_loss" not in self._records.last:
            self._test_last(table)
        self._records.stopped_by = ended
        return done

    def _round(self, round: int) -> tuple[str | None, PhoneTable]:
        """Why the run ends with it, if it does; and its phones' lines."""
        runner, records = self._runner, self._records
        logs.at(round)
        row, table = self._trained(round)
        row, own, ended = self._evaluated(row)
        due = ended is not None or self._is_due(round, self._settings.checkpoint.every)
        # Before the checkpoint: resuming cuts lines that lie beyond one, and could not write one that is missing.
        records.round(row, table(own), flush=due)
        if due:
            self._save(round)
        # All are told, whoever asks.
        asked = [who(callback) for callback in runner.callbacks if callback.on_round_end(row) is STOP]
        if asked and ended is None:
            ended = f"{asked[0]}: rs.STOP"
            records.stopped_by = ended  # at once: it is not asked again if the run is killed here
            records.flush()
            self._save(round)
        return ended, table

    def _trained(self, round: int) -> tuple[Row, PhoneTable]:
        runner, stream, clock = self._runner, self._runner.stream, self._clock
        watch = Stopwatch()
        sums = runner.transaction(round, runner.train)
        row = sums.row(round, watch.seconds()) | {"left_out": stream.count_left_out(round)} | runner.room.columns(round)
        row |= sums.crossed
        fate, times = stream.fate(round), clock.round(stream, round) if clock else None
        row |= fate.row() | (times.row(fate.over) if times else {})

        def table(own: Sums | None) -> dict[str, Array]:
            lines = sums.phone_table(round, own)
            phones = lines["phone"]
            return lines | {"fate": fate.column(phones)} | (times.columns(phones) if times else {})

        return row, table

    def _evaluated(self, row: Row) -> tuple[Row, Sums | None, str | None]:
        """The row with what is due: validation; the test, also when validation is the best so far, and of the last."""
        round, every = row["round"], self._settings.run
        validated = self._is_due(round, every.eval_every)
        if validated:
            row = self._evaluation.validated(row)
        ended = self._rule.add(row)
        if ended and not validated:
            row = self._evaluation.validated(row)
        tests = every.test_every is not None and self._is_due(round, every.test_every)
        if tests or ended or round + 1 == every.rounds or self._records.would_be_best(row):
            row, own = self._evaluation.tested(row)
            return row, own, ended
        return row, None, ended

    def _is_due(self, round: int, every: int) -> bool:
        return (round + 1) % every == 0 or round + 1 == self._settings.run.rounds

    def _save(self, round: int) -> None:
        self._runner.save(round + 1)
        self._records.saved = self._runner.saved
        self._records.summary("running", self._runner.recoveries)

    def _test_last(self, table: PhoneTable | None) -> None:
        """The test of a round of which nobody knew that it is the last: a callback said so, or it was resumed there."""
        row, own = self._evaluation.tested(self._records.last)
        self._records.amend(row, table(own) if table and own else None)


def who(callback: Callback) -> str:
    """What a callback is called where a run says who ended it."""
    return callback.who if isinstance(callback, Guarded) else f"callback {type(callback).__name__}"


def _asked_before(callbacks: Sequence[Callback], records: Records, first: int) -> str | None:
    """Why a run that is resumed ended with this round, if the callback that asked for it is there again."""
    asked = records.ended_with(first)
    return asked if asked in [f"{who(callback)}: rs.STOP" for callback in callbacks] else None
