"""A little room that a run keeps on its disk, so that when it fills the disk it can still say so."""

from __future__ import annotations

import errno

from ray_split import filesystem
from ray_split.filesystem import PARTIAL, Place, Uri

FILE = f"{PARTIAL}room"
BYTES = 1 << 16
FULL = (errno.ENOSPC, errno.EDQUOT)


def keep(folder: Place) -> None:
    """Keep it. Raises OSError if there is not as much. A store behind a URI has no end."""
    if not isinstance(folder, Uri):
        filesystem.write(folder / FILE, bytes(BYTES))


def give(folder: Place) -> None:
    """Give it back."""
    if not isinstance(folder, Uri):
        filesystem.remove(folder / FILE)


def write(path: Place, content: bytes) -> None:
    """As storage.write; on a disk that is full in the room that was kept."""
    try:
        filesystem.write(path, content)
    except OSError as error:
        if error.errno not in FULL:
            raise
        give(path.parent)
        filesystem.write(path, content)
