"""A user's callback, called so that what it raises ends the run in order, with a line that says which hook it was."""

from __future__ import annotations

import signal
from typing import Any

from ray_split import config, logs
from ray_split.callbacks import STOP, Callback, StopRequest, other_hooks
from ray_split.errors import BROKEN, CallbackError, told

logger = logs.get(__name__)


class Guarded(Callback):
    """Another callback. Its hooks raise CallbackError, and a stop (KeyboardInterrupt) as it is."""

    def __init__(self, callback: Callback) -> None:
        self._callback = callback
        self._name = type(callback).__name__
        self._warned = False
        for line in other_hooks(callback):
            logger.warning("%s %s", self.who, line)

    @property
    def who(self) -> str:
        """What it is called where a run says who ended it."""
        return f"callback {self._name}"

    def _call(self, hook: str, *arguments: Any) -> Any:
        try:
            answer = getattr(self._callback, hook)(*arguments)
        except BROKEN as error:
            if isinstance(error, SystemExit) and error.code == signal.SIGTERM:  # Ray's way to tell of the signal
                raise
            raise CallbackError(f"{self.who}: {hook} raised {told(error)}") from error
        if answer is STOP and hook != "on_round_end" and not self._warned:
            self._warned = True
            logger.warning("%s: %s returned rs.STOP, which only on_round_end can: the run goes on", self.who, hook)
        return answer

    def on_run_start(self, settings: config.Config, where: list[str], first_round: int) -> None:
        """As the callback."""
        self._call("on_run_start", settings, where, first_round)

    def on_progress(self, round: int, done: int, total: int, samples_per_second: float) -> None:
        """As the callback."""
        self._call("on_progress", round, done, total, samples_per_second)

    def on_exchanges(self, round: int, exchanges: int, queued: int) -> None:
        """As the callback."""
        self._call("on_exchanges", round, exchanges, queued)

    def on_round_end(self, row: dict[str, Any]) -> StopRequest | None:
        """As the callback, with a copy of the row. What it returns besides STOP means nothing, and that is said."""
        answer = self._call("on_round_end", dict(row))
        if answer is not None and answer is not STOP and not self._warned:
            self._warned = True
            logger.warning("%s: on_round_end returned %r, which means nothing: rs.STOP ends a run", self.who, answer)
        return STOP if answer is STOP else None

    def on_recovery(self, round: int, lost: list[str]) -> None:
        """As the callback."""
        self._call("on_recovery", round, lost)

    def on_absence(self, round: int, phones: tuple[int, ...], reason: str) -> None:
        """As the callback."""
        self._call("on_absence", round, phones, reason)

    def on_devices(self, round: int, devices: list[dict[str, Any]]) -> None:
        """As the callback, with copies."""
        self._call("on_devices", round, [dict(device) for device in devices])

    def on_quarantine(self, round: int, phones: tuple[int, ...], reason: str) -> None:
        """As the callback."""
        self._call("on_quarantine", round, phones, reason)

    def on_smaller(self, round: int, lanes: int, chunk: int | None) -> None:
        """As the callback."""
        self._call("on_smaller", round, lanes, chunk)

    def on_run_end(self, summary: dict[str, Any], path: str) -> None:
        """As the callback."""
        self._call("on_run_end", summary, path)
