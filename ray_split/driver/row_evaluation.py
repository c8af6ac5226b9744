"""Validation and test of a round, as columns of its row: of the state that the fed server holds after it."""

from __future__ import annotations

from typing import Any

from ray_split import config
from ray_split.data.types import PART_NAMES
from ray_split.driver.round_runner import RoundRunner
from ray_split.messages.report import Sums
from ray_split.schedules import schedule_of
from ray_split.tasks.task import Task

Row = dict[str, Any]


class RowEvaluation:
    """Evaluates after a round. Phones with personal models are each evaluated on their own samples, others together."""

    def __init__(self, runner: RoundRunner, settings: config.Config, sizes: dict[str, int]) -> None:
        """`sizes`: how many samples 'val' and 'test' have."""
        self._runner, self._sizes = runner, sizes
        self._batch = int(settings.data.eval_batch_size)
        self._alone = schedule_of(settings.schedule).personal
        self._held_out = bool(settings.phones.held_out)
        self._task = Task(settings.task)

    def validated(self, row: Row) -> Row:
        """The row with validation, if there are samples for it."""
        if not self._sizes["val"] and not self._alone:
            return row
        row = row | self._told(row, "val", val := self._on(row, "val", self._alone))
        return row | self._remotely(row, "val", val) if self._alone else row

    def tested(self, row: Row) -> tuple[Row, Sums | None]:
        """The row with the test, and the phones' own sums, where they hold out samples."""
        test = self._on(row, "test", self._alone)
        row = row | self._told(row, "test", test)
        if not self._held_out:
            return row, None
        own = test
        if not self._alone:
            own = self._on(row, "test", alone=True)
            row |= {"phone_nonfinite": self._runner.nonfinite.tell(row["round"], "phones' test", own)}
        return row | own.over_phones() | self._remotely(row, "test", own), own

    def _remotely(self, row: Row, part: str, own: Sums) -> Row:
        """With phones on devices: how many phones were scored, and what crossed for it."""
        crossed = self._runner.crossed()
        scored = {f"phones_scored_{part}": own.phones_scored} if crossed else {}
        return scored | {name: row.get(name, 0) + more for name, more in crossed.items()}

    def _on(self, row: Row, part: str, alone: bool) -> Sums:
        runner, round, batch, total = self._runner, row["round"] + 1, self._batch, self._sizes[part]
        if alone:
            return runner.transaction(round, lambda turn: runner.evaluate_own(turn, part, batch), training=False)
        return runner.transaction(round, lambda turn: runner.evaluate(turn, part, total, batch), training=False)

    def _told(self, row: Row, part: str, sums: Sums) -> Row:
        accuracy = sums.phone_mean if self._alone else sums.accuracy
        scores = {f"{part}_{name}": value for name, value in self._task.figures(sums.tallies).items()}
        broken = {f"{part}_nonfinite": self._runner.nonfinite.tell(row["round"], PART_NAMES[part], sums)}
        return {f"{part}_loss": sums.mean_loss, f"{part}_accuracy": accuracy, **scores, **broken}
