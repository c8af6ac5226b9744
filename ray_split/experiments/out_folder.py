"""The folder of several runs: a comparison's or a sweep's. One process has it at a time, as a run's."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ray_split.errors import SettingsError, first_line
from ray_split.filesystem import Place
from ray_split.results import folder_lock


def unnamed(what: str) -> str:
    """A name for one that has none: the time, and what tells it from another of the same second."""
    return f"{what}_{time.strftime('%Y-%m-%d_%H-%M-%S')}_{secrets.token_hex(2)}"


@contextmanager
def alone(folder: Place) -> Iterator[None]:
    """Have the folder alone, made if need be. Raises SettingsError if another has it, or it can't be written to."""
    try:
        hold = folder_lock.take(folder)
    except folder_lock.HeldError as error:
        raise SettingsError("--out", str(folder), f"a folder that no other process writes to: {error}") from None
    except OSError as error:
        raise SettingsError("--out", str(folder), f"a folder that can be written to: {first_line(error)}") from error
    try:
        yield
    finally:
        hold.release()
