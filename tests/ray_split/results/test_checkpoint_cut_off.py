"""Writing a checkpoint is cut off at each thing that it does to the file system, here and at a URI."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from pyarrow.fs import FSSpecHandler, PyFileSystem

from ray_split import filesystem
from ray_split.filesystem import Place, Uri
from ray_split.results import checkpoint

CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree")
NAMES = ("a", "b", "personal_000000000")


class CutOff(BaseException):
    """As when the process ends: no handler for errors sees it."""


class Here:
    """Ends the process before the next change to this machine's files; what was written last is only half there."""

    def __init__(self) -> None:
        self.left: int | None = None
        self.last: Path | None = None
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        written = event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_ACCMODE != os.O_RDONLY
        if self.left is None or not (written or event in CHANGES):
            return
        if not self.left:
            self.left = None
            if self.last and self.last.exists():
                os.truncate(self.last, self.last.stat().st_size // 2)
            raise CutOff
        self.left -= 1
        self.last = Path(str(arguments[0])) if written else None


class There(MemoryFileSystem):
    """Ends the process before the next change to an object; in some stores a file may be half there."""

    cachable = False
    left: int | None = None
    half = False

    def _change(self) -> bool:
        if self.left is None:
            return False
        self.left -= 1
        return self.left < 0

    def rm_file(self, path: str) -> None:
        if self._change():
            self.left = None
            raise CutOff
        super().rm_file(path)

    def pipe_file(self, path: str, value: bytes, **_: Any) -> None:
        if not self._change():
            return super().pipe_file(path, value)
        self.left = None
        if self.half:
            super().pipe_file(path, value[: len(value) // 2])
        raise CutOff


class Handler(FSSpecHandler):
    def open_output_stream(self, path: str, metadata: Any) -> Any:
        import pyarrow

        files = self.fs

        class Stream:
            closed, content = False, b""

            def write(self, content: bytes) -> int:
                files.pipe_file(path, bytes(content))
                return len(content)

            def flush(self) -> None:
                pass

            def close(self) -> None:
                self.closed = True

            def writable(self) -> bool:
                return True

            def readable(self) -> bool:
                return False

            def seekable(self) -> bool:
                return False

        return pyarrow.PythonFile(Stream(), mode="w")


@pytest.fixture(scope="module")
def here() -> Here:
    return Here()


def states(salt: float) -> Iterator[tuple[str, dict[str, np.ndarray[Any, Any]]]]:
    return ((name, {"weights/x": np.full(9, salt + i, np.float32)}) for i, name in enumerate(NAMES))


def whole(path: Place) -> tuple[int, float]:
    """The round of a checkpoint and what its states were filled with."""
    round, found = checkpoint.load(path)
    assert list(found) == list(NAMES)
    salts = {float(array) - i for i, name in enumerate(NAMES) for array in found[name]["weights/x"]}
    assert len(salts) == 1
    return round, salts.pop()


def cut_off_everywhere(place: Callable[[int], Place], cut: Callable[[int | None], bool], again: bool) -> int:
    """Cut off the save of a round's checkpoint, or of its second one, at each change in turn; how many there are."""
    for at in range(1000):
        folder = place(at)
        for round in (2, 4, 6) if again else (2, 4):
            checkpoint.save(folder, round, states(round), num_to_keep=2)
        before = (4, 4.0)
        cut(at)
        try:
            checkpoint.save(folder, 6, states(60), num_to_keep=2)
        except CutOff:
            found = checkpoint.newest(folder, whole)
            assert found in (before, (6, 60.0), (6, 6.0) if again else before), at
            assert whole(folder / "round_000004") == before
            checkpoint.cut(folder, found[0])  # as a run does that goes on from there
        else:
            cut(None)
            return at
        checkpoint.save(folder, 8, states(80), num_to_keep=2)
        left = filesystem.children(folder)
        assert [whole(path) for path in left] == [found, (8, 80.0)]
    raise AssertionError("it never ends")


@pytest.mark.parametrize("again", [False, True])
def test_here_the_one_before_stays_and_what_is_half_there_is_no_checkpoint(
    tmp_path: Path, here: Here, again: bool
) -> None:
    def cut(at: int | None) -> None:
        here.left, here.last = at, None

    changes = cut_off_everywhere(lambda at: tmp_path / str(at), cut, again)
    assert changes >= 2 * len(NAMES) + 6


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("again", [False, True])
def test_at_a_uri_the_one_before_stays_and_what_is_half_there_is_no_checkpoint(
    monkeypatch: pytest.MonkeyPatch, again: bool, half: bool
) -> None:
    files = There()
    files.half = half
    files.store, files.pseudo_dirs = {}, [""]  # its own, not that of all memory://
    opened = (PyFileSystem(Handler(files)), "/cut", files.invalidate_cache)
    monkeypatch.setattr(filesystem, "file_system", lambda root, query: opened)
    changes = cut_off_everywhere(lambda at: Uri("memory://cut", str(at)), lambda at: setattr(files, "left", at), again)
    assert changes >= len(NAMES) + 1 + len(NAMES)
