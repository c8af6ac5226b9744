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
from ray_split.failure import OutOfTimeError, RunStoppedError, first_line

LAST_SECONDS = 15.0
"""From the signal until nothing is waited for any more; RAY_JOB_STOP_WAIT_TIME_S on the head should be more."""

logger = logs.get(__name__)


class Stop:
    """Whether the run is to stop, and whether it may now. Hours count from when this is made."""

    def __init__(self, max_hours: float | None = None) -> None:
        self._max_hours = max_hours
        self._start = time.monotonic()
        self._held = False
        self._asked: int | None = None  # the first signal's number
        self._given_up = False
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
        if self._max_hours is not None and time.monotonic() - self._start > self._max_hours * 3600:
            raise OutOfTimeError(self._max_hours)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """SIGINT, SIGTERM and SIGHUP ask for a stop; only the main thread hears them."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._hears = True
        self._hear(signal.SIGINT, signal.SIGTERM, *hangup())
        try:
            yield
        except KeyboardInterrupt as error:  # while it waits, Ray makes a plain one of ours
            if self._asked in (None, signal.SIGALRM) or isinstance(error, RunStoppedError):
                raise
            raise RunStoppedError(self._asked) from error
        finally:
            self._hears = False
            self._restore()

    def _hear(self, *numbers: int) -> None:
        for number in numbers:
            self._before[number] = signal.signal(number, self._ask)

    def _ask(self, number: int, _: FrameType | None) -> None:
        """The first signal asks. A second one, or the end of the last seconds, ends whatever is going on."""
        first = self._asked
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
        signal.setitimer(signal.ITIMER_REAL, LAST_SECONDS)

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
