"""The folder of several runs: a comparison's or a sweep's. One process has it at a time, as a run's."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ray_split.errors import SettingsError, first_line
from ray_split.filesystem import PARTIAL, Place, Uri, is_in_memory, make_folder, try_out
from ray_split.results import folder_lock


def unnamed(what: str) -> str:
    """A name for one that has none: the time, and what tells it from another of the same second."""
    return f"{what}_{time.strftime('%Y-%m-%d_%H-%M-%S')}_{secrets.token_hex(2)}"


def check_writable(out: Place, *names: str, field: str = "--out") -> None:
    """See before the work that files of these names can be written to a folder; what is made for it is removed again.

    Raises SettingsError.
    """
    if is_in_memory(out):
        raise SettingsError(field, str(out), "a place that outlives this process: memory:// is its own memory")
    try:
        _try(out)
        taken = [name for name in names if isinstance(out, Path) and (out / name).is_dir()]
    except (OSError, ValueError, ImportError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        where = "a local path, or a URI that can be written to" if isinstance(out, Uri) else "a folder to write to"
        raise SettingsError(field, str(out), f"{where}: {reason}") from None  # it may tell credentials
    if taken:
        raise SettingsError(field, str(out), f"a folder to write files to: {taken[0]} is a folder there")


def _try(out: Place) -> None:
    if not isinstance(out, Path):
        try_out(out)
        return
    made = make_folder(out)
    try:
        trial = out / f"{PARTIAL}trial_{secrets.token_hex(8)}"
        trial.write_bytes(b"?")
        trial.unlink()
    finally:
        for folder in reversed(made):
            folder.rmdir()


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
