"""Whether a run has come far enough to end before its last round: `run.stop`, decided by its rows alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ray_split.config.stop import PATIENCE, conditions
from ray_split.messages.report import best_round

VALIDATION = ("val_accuracy", "val_loss", "val_nonfinite")


class StopRule:
    """Takes in the rounds' rows, in their order. `reason`: why the run is to end with the last one; None: it isn't."""

    def __init__(self, stop: Mapping[str, Any], rows: Iterable[Mapping[str, Any]] = ()) -> None:
        self._conditions = conditions(stop)
        self._patience: int | None = stop.get(PATIENCE)
        self._best: dict[str, Any] | None = None
        self._waited = 0  # evaluated rounds since the best
        self.reason: str | None = None
        for row in rows:
            self.add(row)

    def add(self, row: Mapping[str, Any]) -> str | None:
        """One more round: why the run is to end with it, if it is."""
        if any(row.get(name) is not None for name in VALIDATION):
            self._wait(dict(row))
        met = next((condition for condition in self._conditions if condition.is_met(row)), None)
        if met is not None:
            self.reason = f"run.stop: {met}, with {row[met.column]:.6g}"
        elif self._patience is not None and self._waited >= self._patience:
            self.reason = f"run.stop: {_rounds(self._waited)} without a better validation"
        else:
            self.reason = None
        return self.reason

    def _wait(self, row: dict[str, Any]) -> None:
        best = best_round([row] if self._best is None else [self._best, row])
        self._waited = 0 if best is row else self._waited + 1
        self._best = best


def _rounds(count: int) -> str:
    return f"{count} evaluated round{'s' if count > 1 else ''}"
