"""How a run is stopped before its last round: by SIGINT, SIGTERM or SIGHUP, or because run.max_hours is over.

A stop comes at once, but from a round's commit until that round is recorded it is held back: what the fed server then
holds is always the start of a round whose predecessors all have their rows, and can be written as a checkpoint.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from ray_split import logs
from ray_split.errors import OutOfTimeError, RunStoppedError, first_line

LAST_SECONDS = 15.0
"""From the signal until nothing is waited for any more; RAY_JOB_STOP_WAIT_TIME_S on the head should be more."""

LONGEST_SECONDS = 86400.0  # of one ring: the system's timers take no more than some years

logger = logs.get(__name__)


class Stop:
    """Whether the run is to stop, and whether it may now. Hours count from when this is made."""

    def __init__(self, max_hours: float | None = None) -> None:
        self._max_hours = max_hours
        self._start = time.monotonic()
        self._held = False
        self._asked: int | None = None  # the first signal's number
        self._given_up = False
        self._over = False  # whether the timer of max_hours has ended the run
        self._hears = False
        self._before: dict[int, Any] = {}  # the handlers that were there

    def hold(self) -> None:
        """A stop that is asked for from here on waits for `allow`."""
        self._held = True

    def allow(self) -> None:
        """From here on a stop comes at once. Raises RunStoppedError if one waits, OutOfTimeError if time is over."""
        self._held = False
        if self._asked is not None:
            raise RunStoppedError(self._asked)
        self.look()

    def look(self) -> None:
        """While something is waited for. Raises OutOfTimeError if time is over, somewhat later if stops are held."""
        if self._max_hours is not None and self._is_over():
            raise OutOfTimeError(self._max_hours)

    def _is_over(self) -> bool:
        return self._left() < -(LAST_SECONDS if self._held else 0)

    def _left(self) -> float:
        """Seconds."""
        return (self._max_hours or 0) * 3600 - (time.monotonic() - self._start)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """SIGINT, SIGTERM and SIGHUP ask for a stop; only the main thread hears them."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._hears = True
        self._hear(signal.SIGINT, signal.SIGTERM, *hangup())
        if self._max_hours is not None:
            self._hear(signal.SIGALRM)
            self._ring(self._left())
        try:
            yield
        finally:
            self._hears = False
            self._restore()

    @contextmanager
    def telling(self) -> Iterator[None]:
        """Around what may be stopped: raises what it was stopped by.

        What a handler raises must be a KeyboardInterrupt, and while it waits Ray makes a plain one of it.
        """
        try:
            yield
        except KeyboardInterrupt as error:
            if self._over and self._max_hours is not None:
                raise OutOfTimeError(self._max_hours) from None
            if self._asked is None or isinstance(error, RunStoppedError):
                raise
            raise RunStoppedError(self._asked) from error

    def _hear(self, *numbers: int) -> None:
        for number in numbers:
            before = signal.signal(number, self._ask)
            self._before.setdefault(number, before)

    def _ring(self, seconds: float) -> None:
        signal.setitimer(signal.ITIMER_REAL, min(max(seconds, 1e-3), LONGEST_SECONDS))

    def _ask(self, number: int, _: FrameType | None) -> None:
        """The first signal asks. A second one, or the end of the last seconds, ends whatever is going on."""
        first = self._asked
        if number == signal.SIGALRM and first is None:
            # Time is over, or nearly; if a stop is held, it comes when it is allowed, or with the next ring.
            self._over = self._is_over()
            self._ring(self._left() if self._left() > 0 else LAST_SECONDS)
            if self._over:
                raise RunStoppedError(number)
            return
        if first is not None:
            self._given_up = True
            self._restore()  # one more is the system's own
            raise RunStoppedError(first)
        self._limit(number)
        if not self._held:
            raise RunStoppedError(number)

    def _limit(self, number: int) -> None:
        self._asked = number
        self._hear(signal.SIGALRM)
        self._ring(LAST_SECONDS)

    def _restore(self) -> None:
        if signal.SIGALRM in self._before:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def finish(self, work: Callable[[], None]) -> None:
        """Do what a stopped run does last, within LAST_SECONDS of the signal, or of now. What fails is told."""
        if self._hears and self._asked is None:
            self._limit(signal.SIGALRM)
        try:
            if self._given_up:
                raise RunStoppedError(self._asked or 0)
            work()
        except RunStoppedError:
            logger.warning("stopped before the last rounds were written: the checkpoint before them stands")
        except Exception as error:  # noqa: BLE001  the run ends in any case, and this is not why
            logger.warning("the last rounds were not written, the checkpoint before them stands: %s", first_line(error))
        finally:
            if signal.SIGALRM in self._before:
                signal.setitimer(signal.ITIMER_REAL, 0)


def hangup() -> list[signal.Signals]:
    """SIGHUP, but where it is ignored: `nohup` means that the run outlives its terminal."""
    return [] if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else [signal.SIGHUP]
