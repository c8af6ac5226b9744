"""Ctrl-C and SIGTERM in a search: it ends in order, and is told apart from one that came to its end."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ray_split.errors import RunStoppedError

REQUEST = signal.SIGUSR1
"""What Tune hears as a request to keep what there is and to return, with TUNE_DISABLE_SIGINT_HANDLER set this alone."""


@contextmanager
def interruptible() -> Iterator[list[int]]:
    """Within this Ctrl-C and SIGTERM ask Tune to return; yields the numbers of those that came.

    A second one, or one before Tune hears, raises RunStoppedError. In the main thread alone.
    """
    came: list[int] = []

    def ask(number: int, _: FrameType | None) -> None:
        came.append(number)
        if len(came) > 1:
            raise RunStoppedError(number)
        signal.raise_signal(REQUEST)

    def too_early(_: int, __: FrameType | None) -> None:
        raise RunStoppedError(came[-1] if came else REQUEST)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    before[REQUEST] = signal.signal(REQUEST, too_early)
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
