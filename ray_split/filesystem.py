"""Where a run's files lie: a folder of this machine, or of what a URI names, in the words of pathlib.Path.

A file is written whole or not at all: here by a rename, in an object store because an object appears only once it is
whole. A folder can't be renamed there: what must appear as one needs a file that is written last, as a manifest.

A URI goes to pyarrow.fs, or to fsspec if pyarrow doesn't know its scheme, as in Ray Train. Neither is imported for a
local path. Credentials in a URI are used, and never shown: str() leaves them out.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import stat
import threading
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from ray_split.errors import SECRET, SLOPPY_USER

IS_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
USER = re.compile(r"(?<=://)[^/@:]*:[^/@]*@")  # with a password; without one it may be an Azure container
PARTIAL = ".partial_"
"""What is still being written begins with this. Who reads a folder of parquet files passes it over."""

NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


@dataclass(frozen=True, repr=False)
class Uri:
    """A folder or a file at a URI, with those of pathlib.Path's words that are needed."""

    root: str  # scheme://bucket
    path: str = ""  # below it; no quoting
    query: str = ""  # with its ?

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]

    @property
    def parent(self) -> Uri:
        """The folder that it is in."""
        return replace(self, path=self.path.rpartition("/")[0])

    @property
    def full(self) -> str:
        """The URI, with the credentials that may be in it."""
        below = f"/{quote(self.path)}" if self.path else ""
        return f"{self.root}{below}{self.query}"

    def __str__(self) -> str:
        return SECRET.sub(r"\1", SLOPPY_USER.sub("", self.full))

    def __repr__(self) -> str:
        return f"Uri({str(self)!r})"

    def __truediv__(self, name: str) -> Uri:
        return replace(self, path=f"{self.path}/{name}".strip("/"))

    def exists(self) -> bool:
        """Whether there is a file or a folder."""
        files, path = self._at()
        return bool(files.get_file_info(path).type)

    def read_bytes(self) -> bytes:
        """All of a file. Raises FileNotFoundError."""
        with self.open() as file:
            return bytes(file.read())

    def read_text(self) -> str:
        """All of a file. Raises FileNotFoundError."""
        return self.read_bytes().decode()

    def open(self) -> Any:
        """A file to read in, anywhere. Raises FileNotFoundError."""
        files, path = self._at()
        return files.open_input_file(path)

    def write(self, parts: Iterable[bytes]) -> None:
        """Write a file, replacing what is there; the parts are made as they are sent."""
        files, path = self._at()
        try:
            file = files.open_output_stream(path, compression=None)
        except FileNotFoundError:  # not an object store: there a folder is there once something is in it
            files.create_dir(path.rpartition("/")[0], recursive=True)
            file = files.open_output_stream(path, compression=None)
        with file:
            for part in parts:
                file.write(part)

    def children(self) -> list[Uri]:
        """What is in a folder; nothing if it isn't there."""
        return [self / info.base_name for info in self._listed()]

    def folders(self) -> list[Uri]:
        """The folders in a folder."""
        from pyarrow.fs import FileType

        return [self / info.base_name for info in self._listed() if info.type == FileType.Directory]

    def _listed(self) -> list[Any]:
        from pyarrow.fs import FileSelector

        files, path = self._at()
        return list(files.get_file_info(FileSelector(path, allow_not_found=True)))

    def written(self) -> float:
        """When a file was last written, by its store's clock; 0.0 if that is not known."""
        files, path = self._at()
        return max(0.0, (files.get_file_info(path).mtime_ns or 0) / 1e9)

    def remove(self) -> None:
        """Remove a file, or a folder with what is in it, if it is there."""
        files, path = self._at()
        info = files.get_file_info(path)
        if info.is_file:
            files.delete_file(path)
        elif info.type:
            files.delete_dir(path)

    def _at(self) -> tuple[Any, str]:
        files, base, forget = file_system(self.root, self.query)
        forget()
        return files, f"{base}/{self.path}".rstrip("/")


Place = Path | Uri


def place(path: str | Place) -> Place:
    """A path or a URI as somewhere to read and write. Raises ValueError for ~ and a user that there is not."""
    if path is None:
        raise ValueError("the path of a folder is needed, not None")
    if not isinstance(path, str):
        return _at_home(path) if isinstance(path, Path) else path
    if not IS_URI.match(path):
        return _at_home(Path(path))
    uri, mark, query = path.partition("?")
    scheme, _, rest = uri.partition("://")
    scheme = scheme.lower()  # it is the same in capitals, but not to pyarrow
    bucket, _, below = rest.partition("/")
    if scheme == "file" and bucket in ("", "localhost"):
        return Path(f"/{unquote(below)}")
    return Uri(f"{scheme}://{bucket}", unquote(below).strip("/"), mark + query)


def _at_home(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ValueError(f"a path; {path.parts[0]} is nobody's home on this machine") from error


def full(path: Place) -> str:
    """As `place` takes it: of a URI with credentials and all."""
    return path.full if isinstance(path, Uri) else str(path)


def without_credentials(path: str) -> str:
    """A path as it may be written down."""
    return str(place(path)) if IS_URI.match(path) else path


@lru_cache
def file_system(root: str, query: str) -> tuple[Any, str, Any]:
    """pyarrow's file system of a URI's root, the root's path there, and what makes it forget listings it has kept."""
    from pyarrow import ArrowInvalid
    from pyarrow.fs import FileSystem, FSSpecHandler, PyFileSystem

    try:
        files, base = FileSystem.from_uri(root + query)
        _check_answers(root, query)
        return files, base.rstrip("/"), lambda: None
    except ArrowInvalid as error:
        if "Unrecognized filesystem type" not in str(error):
            raise
    if query:
        raise ValueError(f"{root} takes no ?options here; fsspec reads them from its configuration")
    from fsspec.core import url_to_fs

    found, base = url_to_fs(root)
    # Another process may have written since: a fed server its checkpoints.
    return PyFileSystem(FSSpecHandler(found)), base.rstrip("/"), found.invalidate_cache


GOOGLE = ("gs://", "gcs://")
FIRST_SECONDS = 10
"""For a store's first answer. Later ones may take as long as the library waits: a store may be down for a while."""


def _check_answers(root: str, query: str) -> None:
    """Google's library tries again for a quarter of an hour, without a word. Raises OSError if nobody answers."""
    from pyarrow.fs import FileSystem

    if not root.startswith(GOOGLE) or "retry_limit_seconds" in query:
        return
    limit = f"{query}{'&' if query else '?'}retry_limit_seconds={FIRST_SECONDS}"
    try:
        files, base = FileSystem.from_uri(root + limit)
        files.get_file_info(f"{base.rstrip('/')}/{PARTIAL}trial")
    except OSError as error:
        if "Retry policy exhausted" in (said := str(error)):
            why = said.rpartition("underlying error message was: ")[2].partition(" error_info=")[0]
            raise OSError(f"no answer from {root} within {FIRST_SECONDS} s and more: {why[:200]}") from error
        # Any other answer is one: whoever asks for something is told what.


def is_in_memory(path: Place) -> bool:
    """Whether a place is of a process's own memory: others don't see it, and it goes with the process."""
    return isinstance(path, Uri) and path.root.startswith("memory://")


def is_waiting(path: Path) -> bool:
    """Whether whoever opens a file may wait for ever: for a pipe's other end, or for somebody who types.

    A pipe that the shell made for us has its other end: `--config <(make_settings)`.
    """
    kind = path.stat().st_mode
    if stat.S_ISFIFO(kind):
        return not os.path.realpath(path).startswith(("/proc/", "/dev/fd/"))
    if not stat.S_ISCHR(kind):
        return False
    with path.open("rb", buffering=0) as opened:
        return opened.isatty()


def try_out(folder: Place) -> None:
    """See that a URI can be written to and read, by a file that is removed again. Raises what goes wrong."""
    if not isinstance(folder, Uri):
        return
    trial = folder / f"{PARTIAL}trial_{uuid.uuid4().hex}"  # another may try at the same time
    trial.write([b"?"])
    trial.read_bytes()
    trial.remove()


def write(path: Place, content: bytes) -> None:
    """Write a file whole or not at all, replacing what is there."""
    with naming(path):
        if isinstance(path, Uri):
            path.write([content])
            return
        partial = path.with_name(f"{PARTIAL}{path.name}")
        _write(partial, content)
        partial.replace(path)


def _write(path: Path, content: bytes) -> None:
    try:
        with path.open("wb") as file:
            file.write(content)
            sync(file.fileno())
    except BaseException:  # a stop too: nothing half-written is left, and a disk that is full keeps what it has
        with contextlib.suppress(OSError):
            path.unlink()
        raise


def create(path: Path, content: bytes) -> bool:
    """Write a file that isn't there, whole or not at all. Not done if it is there: only one of many can do it."""
    partial = path.with_name(f"{PARTIAL}{path.name}_{os.getpid()}_{threading.get_ident()}")
    try:
        with naming(path):
            _write(partial, content)
        os.link(partial, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        return _create(path, content)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
    return True


def _create(path: Path, content: bytes) -> bool:
    """On a file system without links: there for a moment before it is whole."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        return False
    with naming(path), os.fdopen(descriptor, "wb") as file:
        file.write(content)
        sync(file.fileno())
    return True


@contextmanager
def naming(path: Place) -> Iterator[None]:
    """What the system says went wrong is said with the file: of a write that fails it names none."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise type(error)(error.errno, error.strerror, str(path)) from error


def read_with_time(path: Place) -> tuple[bytes, float]:
    """A file, and when it was last written by its store's clock (0.0: not known). Raises FileNotFoundError."""
    if isinstance(path, Uri):
        return path.read_bytes(), path.written()
    with path.open("rb") as file:  # opened, a network's file system asks what is so now
        return file.read(), os.fstat(file.fileno()).st_mtime


def make_folder(path: Place) -> list[Path]:
    """Make a folder, and those it is in: which were made. At a URI one is there once something is in it."""
    if isinstance(path, Uri):
        return []
    missing = [each for each in (path, *path.parents) if not each.exists()]
    path.mkdir(parents=True, exist_ok=True)
    return missing[::-1]


@contextmanager
def as_open_as(folder: Place) -> Iterator[None]:
    """Within this, what is written is its owner's alone, if the folder is."""
    if not isinstance(folder, Path) or not folder.exists() or folder.stat().st_mode & 0o077:
        yield
        return
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def children(folder: Place) -> list[Place]:
    """What is in a folder, by name; nothing if it isn't there."""
    if isinstance(folder, Uri):
        found: list[Place] = [*folder.children()]
    else:
        found = [*folder.iterdir()] if folder.is_dir() else []
    return sorted(found, key=lambda path: path.name)


def folders(folder: Place) -> list[Place]:
    """The folders in a folder, by name, without those whose names begin with a point."""
    if isinstance(folder, Uri):
        found: list[Place] = [*folder.folders()]
    else:
        found = [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    return sorted((path for path in found if not path.name.startswith(".")), key=lambda path: path.name)


def remove(path: Place) -> None:
    """Remove a file, or a folder with what is in it, if it is there."""
    if isinstance(path, Uri):
        path.remove()
    elif path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sync(descriptor: int) -> None:
    """Wait until what was written lies on the disk."""
    os.fsync(descriptor)


def sync_folder(folder: Path) -> None:
    """Wait until a folder's renames lie on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with naming(folder):
            sync(descriptor)
    finally:
        os.close(descriptor)
