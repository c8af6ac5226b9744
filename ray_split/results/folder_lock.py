"""Taking a folder, so that there is one writer: two that start at once, or one beside a living one, never both have it.

On a file system the folder is taken by creating FILE, which only one can. An owner that died is followed by creating
FILE.<its token>, which only one can either: the owner is the last of that chain, whose files are then made one.

At a URI nothing can be created exclusively. There whoever wants the folder writes FILE.<its token>, and then lists what
is there: it has the folder once it sees no other living one. Of those that see one another the smallest token stays.
Stores list what was written before (S3, GCS, Azure, HDFS do), so of two one at least sees the other.

Of a process on this machine it is known whether it lives. One elsewhere renews its file every BEAT_SECONDS, and is dead
when it has not for STALE_SECONDS: by the store's clock, or waited for here, so that no two clocks are compared.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import uuid
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ray_split import filesystem, logs
from ray_split.errors import RunFailedError, first_line
from ray_split.filesystem import PARTIAL, Place, Uri
from ray_split.results import owner
from ray_split.results.owner import Owner

FILE = ".owner"
BEAT_SECONDS = 15.0
STALE_SECONDS = 90.0
POLL_SECONDS = 0.5
LOOKS = 10  # at a file that can't be understood

logger = logs.get(__name__)


class HeldError(RuntimeError):
    """A folder has a living owner."""

    def __init__(self, owner: Owner, file: Place) -> None:
        super().__init__(owner, file)
        self.owner, self.file = owner, file

    def __str__(self) -> str:
        return f"{self.owner} writes there (if it does not live any more: remove {self.file})"


class Found(NamedTuple):
    """An owner's file. `at` differs once it has been renewed."""

    path: Place
    owner: Owner
    at: tuple[float, bytes]


def passes(path: Place) -> bool:
    """Whether a file of a folder is of no run: it is half-written, or tells of who writes there."""
    return path.name.startswith((PARTIAL, FILE))


def take(folder: Place, private: bool = False) -> Hold:
    """Have the folder, made if need be, until it is released. Raises HeldError, or OSError if it can't be written to.

    `private`: from here on it is its owner's alone.
    """
    made = filesystem.make_folder(folder)
    try:
        if private and isinstance(folder, Path):
            folder.chmod(0o700)
        return _stand_for(folder, made) if isinstance(folder, Uri) else _take(folder, made)
    except BaseException:
        _remove_empty(made)
        raise


def look(folder: Place, mine: str | None = None) -> None:
    """Raises HeldError if a folder has a living owner, other than the one of a token."""
    for found in _owners(folder):
        if found.owner.token != mine and found.owner.holds and _lives(found):
            raise HeldError(found.owner, found.path)


def is_held(folder: Place) -> bool:
    """Whether a folder has an owner that may live: one of another machine until it has been silent for long.

    Nothing is written, so of another machine it is told by this one's clock.
    """
    for found in _owners(folder):
        known = found.owner.lives()
        if known or (known is None and time.time() - found.at[0] < STALE_SECONDS):
            return True
    return False


def _owners(folder: Place) -> list[Found]:
    """At a URI all that stand there, else who came last."""
    return _all(folder) if isinstance(folder, Uri) else _chain(folder)[-1:]


class Hold:
    """A folder that this process has. A thread renews its file."""

    def __init__(self, folder: Place, mine: Owner, file: Place, made: list[Path]) -> None:
        self.folder, self.owner = folder, mine
        self.lost = False
        """Whether another took the folder: this process was silent for too long."""
        self._file, self._made = file, made
        self._renewed = time.time()
        self._over = threading.Event()
        self._writing = threading.Lock()
        owner.HELD.add(mine.token)
        threading.Thread(target=self._beat, name="owner", daemon=True).start()

    def settle(self, mine: Owner, file: Place) -> None:
        """It is had now, not only stood for."""
        with self._writing:
            self.owner, self._file = mine, file
            filesystem.write(file, mine.content)

    def check(self) -> None:
        """Raises RunFailedError if the folder is not this process's any more. Looks only after a long silence."""
        if time.time() - self._renewed > STALE_SECONDS / 2:  # not monotonic: that stands still while a machine sleeps
            self._renew()
        if self.lost:
            raise RunFailedError(f"{self.folder} was taken by another run, as this one was silent for too long")

    def release(self) -> None:
        """Give the folder back; it goes if it was made for this, and nothing was written."""
        self._over.set()
        with self._writing:
            try:
                if not self.lost and self._is_there():
                    filesystem.remove(self._file)
            except OSError as error:
                logger.warning("%s is still there: %s", self._file, first_line(error))
            finally:
                owner.HELD.discard(self.owner.token)
        _remove_empty(self._made)

    def _beat(self) -> None:
        while not self._over.wait(BEAT_SECONDS):
            self._renew()

    def _renew(self) -> None:
        with self._writing, contextlib.suppress(OSError):  # a store that is down: who then writes there is told
            if self._over.is_set():
                return
            if not self._is_there():
                self.lost = True
                return
            if isinstance(self._file, Path):
                os.utime(self._file)
            else:
                self.owner = replace(self.owner, beats=self.owner.beats + 1)
                filesystem.write(self._file, self.owner.content)
            self._renewed = time.time()

    def _is_there(self) -> bool:
        found = _found(self._file)
        return found is not None and found.owner.token == self.owner.token


def _take(folder: Path, made: list[Path]) -> Hold:
    """On a file system: at the end of the chain."""
    mine = owner.this_process()
    owner.HELD.add(mine.token)  # first: another thread of this process may look
    try:
        path = _follow(folder, mine, made)
        return _made_one(folder, mine, path, made)
    except BaseException:
        for found in _chain(folder):
            if found.owner.token == mine.token:
                filesystem.remove(found.path)
        owner.HELD.discard(mine.token)
        raise


def _follow(folder: Path, mine: Owner, made: list[Path]) -> Path:
    """Put this process to the end of the chain; where. Raises HeldError."""
    while True:
        chain = _chain(folder)
        if chain and _lives(chain[-1]):
            raise HeldError(chain[-1].owner, chain[-1].path)
        path = folder / (f"{FILE}.{chain[-1].owner.token}" if chain else FILE)
        try:
            if not filesystem.create(path, mine.content):
                continue
        except FileNotFoundError:  # who had made the folder removed it, unused
            made += filesystem.make_folder(folder)
            continue
        if [found.owner.token for found in _chain(folder)[-1:]] == [mine.token]:
            return path
        filesystem.remove(path)  # the chain that it was put to the end of is not there any more


def _made_one(folder: Path, mine: Owner, path: Path, made: list[Path]) -> Hold:
    """Whoever still sees a part of the old chain, and puts itself to its end, will see that FILE is another."""
    if path.name != FILE:
        filesystem.write(folder / FILE, mine.content)
        for old in folder.glob(f"{FILE}.*"):
            filesystem.remove(old)
    for old in folder.glob(f"{PARTIAL}{FILE}*"):
        filesystem.remove(old)
    return Hold(folder, mine, folder / FILE, made)


def _chain(folder: Path) -> list[Found]:
    """The owners, each having followed the one before when that was dead."""
    chain: list[Found] = []
    found = _found(folder / FILE)
    while found is not None and found.owner.token not in [each.owner.token for each in chain]:
        chain.append(found)
        found = _found(folder / f"{FILE}.{found.owner.token}")
    return chain


def _stand_for(folder: Uri, made: list[Path]) -> Hold:
    """At a URI: by being the only one, or the smallest of those that came at once."""
    mine = owner.this_process(holds=False)
    file = folder / f"{FILE}.{mine.token}"
    filesystem.write(file, mine.content)
    hold = Hold(folder, mine, file, made)  # from here on it is renewed
    try:
        dead = _alone(folder, mine)
        hold.settle(replace(mine, holds=True), file)
        for each in dead:
            filesystem.remove(each.path)
    except BaseException:
        hold.release()
        raise
    return hold


def _alone(folder: Uri, mine: Owner) -> list[Found]:
    """Wait until no other stands for the folder; the dead ones that are there. Raises HeldError."""
    while True:
        others = [found for found in _all(folder) if found.owner.token != mine.token]
        living = [found for found in others if _lives(found)]
        for found in living:
            if found.owner.holds or found.owner.token < mine.token:
                raise HeldError(found.owner, found.path)
        if not living:
            return others
        time.sleep(POLL_SECONDS)  # they see this one, and withdraw


def _all(folder: Uri) -> list[Found]:
    paths = [path for path in filesystem.children(folder) if path.name.startswith(f"{FILE}.")]
    return [found for found in map(_found, paths) if found is not None]


def _found(path: Place) -> Found | None:
    """An owner's file, None if it is not there. One that is just being written, or removed, is looked at again."""
    found = None
    for look in range(LOOKS):
        try:
            content, at = filesystem.read_with_time(path)
        except FileNotFoundError:
            return None
        except OSError:
            if look + 1 == LOOKS:
                raise
        else:
            found = Found(path, owner.read(content), (at, content))
            if found.owner.pid:
                break
        time.sleep(POLL_SECONDS / LOOKS)
    return found


def _lives(found: Found) -> bool:
    """Whether an owner lives; of one elsewhere waited for, until it is known."""
    known = found.owner.lives()
    return _renews(found) if known is None else known


def _renews(found: Found) -> bool:
    left = STALE_SECONDS - max(0.0, _now(found.path.parent) - found.at[0])
    end, told = time.monotonic() + left, False
    while time.monotonic() < end:
        if not told:
            logger.warning("%s had %s; waits for %.0f s to see whether it lives", found.owner, found.path.parent, left)
        told = True
        time.sleep(POLL_SECONDS)
        again = _found(found.path)
        if again is None or again.at != found.at:
            # At a URI a file is one owner's; on a file system another may have followed it.
            return again is not None and (isinstance(found.path, Uri) or again.owner.token == found.owner.token)
    return False


def _now(folder: Place) -> float:
    """What time it is where the folder is."""
    trial = folder / f"{PARTIAL}{FILE}_{uuid.uuid4().hex}"
    filesystem.write(trial, b"?")
    try:
        return filesystem.read_with_time(trial)[1]
    finally:
        filesystem.remove(trial)


def _remove_empty(made: list[Path]) -> None:
    for folder in reversed(made):
        with contextlib.suppress(OSError):  # something is in it, or it is gone
            folder.rmdir()
