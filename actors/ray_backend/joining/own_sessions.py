"""Sessions of their own for the processes that this thread makes: what is sent to the maker's group is not for them."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class _Here(threading.local):
    apart = False


_here = _Here()


def _leave() -> None:
    """In a process that was just forked, by the one thread that it has: the one that asked for it, or didn't."""
    if _here.apart:
        os.setsid()


os.register_at_fork(after_in_child=_leave)


@contextmanager
def own_sessions() -> Iterator[None]:
    """Within it whatever this thread forks, or starts with a preexec_fn as Ray does, leads a session of its own.

    Ray has no option for that, and a process that runs another program already can't be moved.
    """
    _here.apart = True
    try:
        yield
    finally:
        _here.apart = False
