"""A run that is asked to stop while it starts: before there are rounds, and anything to keep."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ray_split.errors import RunStoppedError


@contextmanager
def stoppable() -> Iterator[None]:
    """Within this SIGTERM raises RunStoppedError, so that what was begun is undone; only the main thread hears it.

    Ray, once it starts, hears SIGTERM itself and ends the process by SystemExit: to us it is the same.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _stop)
    try:
        yield
    except SystemExit as asked:
        if asked.code == signal.SIGTERM:
            raise RunStoppedError(signal.SIGTERM) from None
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _stop(number: int, _: FrameType | None) -> None:
    raise RunStoppedError(number)
