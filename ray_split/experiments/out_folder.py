"""The folder of several runs: a comparison's or a sweep's. One process has it at a time, as a run's."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ray_split.errors import SettingsError, first_line, shown
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
        wrong = f"{shown(str(out))} is in this process's memory, so it would be lost when the process ends"
        raise SettingsError(field, str(out), "Name a folder, or a URI such as s3://bucket/folder", wrong)
    try:
        _try(out)
        taken = [name for name in names if isinstance(out, Path) and (out / name).is_dir()]
    except (OSError, ValueError, ImportError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        where = "another folder or URI" if isinstance(out, Uri) else "another folder"
        wrong = f"{shown(str(out))} can't be written to: {reason}"
        raise SettingsError(field, str(out), f"Name {where}", wrong) from None  # it may tell credentials
    if taken:
        wrong = f"the file {taken[0]} can't be written to {shown(str(out))}, because a folder there has that name"
        raise SettingsError(field, str(out), f"Remove the folder {taken[0]}, or name another folder", wrong)


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
        wrong = f"{shown(str(folder))} is in use: {error}"
        raise SettingsError("--out", str(folder), "Wait until that has ended, or name another folder", wrong) from None
    except OSError as error:
        wrong = f"{shown(str(folder))} can't be written to: {error.strerror or first_line(error)}"
        raise SettingsError("--out", str(folder), "Name another folder", wrong) from error
    try:
        yield
    finally:
        hold.release()
