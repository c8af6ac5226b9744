"""What is each phone's own, for as many phones as there are: in files, a row a phone. numpy alone, no torch.

personal/a~weights~block1.0.weight.npy has the shape (phones, ...); a row is written when its phone first trains.
The files are sparse: phones that never trained cost nothing. Read one: np.load(file, mmap_mode="r")[phone].
Where the run's folder is at a URI, they are files without a name on this machine until `publish` copies them there.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from ray_split import filesystem
from ray_split.arrays import Array
from ray_split.filesystem import Place, Uri
from ray_split.messages import bits
from ray_split.messages.state import Closed, Ends, State, is_statistic

CHUNK = 1000  # phones whose states are in memory at the same time
TRAINED = "trained.npy"
PREFIX = "personal_"
FOLDER = "personal"
REMEMBERED = "remembered"  # the folder of what phones remember for an algorithm


class Personal:
    """The rows of the phones that have trained."""

    def __init__(self, folder: Place, count: int, prefix: str = PREFIX) -> None:
        """`prefix`: of its parts' names in a checkpoint."""
        self._prefix = prefix
        self._folder = folder
        self._count = count
        self._arrays: dict[tuple[str, str], Any] = {}
        self._files: dict[tuple[str, str], IO[bytes]] = {}
        self.trained = np.zeros(count, bool)

    @classmethod
    def open(cls, folder: Place) -> Personal:
        """The rows in a run's folder, to read `own` ones. Raises FileNotFoundError if the run has none."""
        found = cls(folder, 0)
        found.trained = np.load(io.BytesIO((folder / TRAINED).read_bytes()))
        for path in filesystem.children(folder):
            segment, _, key = path.name.removesuffix(".npy").partition("~")
            if path.name.endswith(".npy") and path.name != TRAINED:
                rows = np.load(path, mmap_mode="r") if isinstance(path, Path) else Rows(path)
                found._arrays[segment, key.replace("~", "/")] = rows
        return found

    def clear(self) -> None:
        """Forget all rows."""
        self._arrays = {}
        while self._files:
            self._files.popitem()[1].close()
        self.trained[:] = False
        if isinstance(self._folder, Path):
            filesystem.remove(self._folder)

    def rows(self, phones: Array, start: Ends) -> Ends:
        """The phones' own states (phones, ...); of those that never trained what `start` has, or zeros.

        Of the segments in `start`.
        """
        rows: Ends = {}
        trained = self.trained[phones]
        for (segment, key), array in self._arrays.items():
            if segment not in start:
                continue
            own = array[phones]
            if key in start[segment]:
                own[~trained] = start[segment][key]
            rows.setdefault(segment, {})[key] = own
        return rows

    def own(self, phone: int) -> Ends:
        """One phone's own state; only of one that has trained."""
        own: Ends = {}
        for (segment, key), array in self._arrays.items():
            own.setdefault(segment, {})[key] = np.array(array[phone])
        return own

    def write(self, closed: Closed) -> None:
        """Take a cohort's own states."""
        if not any(closed.own.values()):
            return
        phones = np.array(closed.phones)
        for segment, states in closed.own.items():
            for key, rows in states.items():
                if (segment, key) not in self._arrays:
                    self._arrays[segment, key] = self._create(segment, key, rows)
                    self._reserve(segment, key, np.flatnonzero(self.trained))
                self._reserve(segment, key, phones[~self.trained[phones]])
                self._arrays[segment, key][phones] = rows
        self.trained[phones] = True
        if isinstance(self._folder, Path):
            with filesystem.naming(self._folder / TRAINED):
                np.save(self._folder / TRAINED, self.trained)

    def _create(self, segment: str, key: str, rows: Array) -> Array:
        shape = (self._count, *rows.shape[1:])
        if isinstance(self._folder, Uri):
            # Its file has no name: however this process ends, nothing is left to remove.
            file = self._files[segment, key] = tempfile.TemporaryFile()  # noqa: SIM115  closed by `clear`
            return np.memmap(file, rows.dtype, "w+", shape=shape)
        filesystem.make_folder(self._folder)
        created: Array = np.lib.format.open_memmap(self._folder / file_name(segment, key), "w+", rows.dtype, shape)
        return created

    def _reserve(self, segment: str, key: str, phones: Array) -> None:
        """See that there is room for phones' first rows. A write to memory that the disk has no room for kills."""
        array = self._arrays[segment, key]
        size = array.dtype.itemsize * int(np.prod(array.shape[1:]))
        if not (size and len(phones) and hasattr(os, "posix_fallocate")):
            return
        place = self._folder / file_name(segment, key)
        with filesystem.naming(place):
            if (segment, key) not in self._files:
                self._files[segment, key] = Path(array.filename).open("r+b")  # noqa: SIM115
            for first, last in _runs(phones):
                descriptor = self._files[segment, key].fileno()
                os.posix_fallocate(descriptor, array.offset + first * size, (last - first + 1) * size)

    def publish(self) -> None:
        """See that the rows lie in the run's folder. At a URI they are there once TRAINED is."""
        if not isinstance(self._folder, Uri):
            return
        self._folder.remove()
        for (segment, key), array in self._arrays.items():
            (self._folder / file_name(segment, key)).write(_as_file(array))
        if self._arrays:
            (self._folder / TRAINED).write(_as_file(self.trained))

    def snapshot(self) -> Iterator[tuple[str, State]]:
        """All rows, a thousand phones at a time, for a checkpoint."""
        phones = np.flatnonzero(self.trained)
        for start in range(0, len(phones), CHUNK):
            some = phones[start : start + CHUNK]
            state = {f"{segment}/{key}": array[some] for (segment, key), array in self._arrays.items()}
            yield f"{self._prefix}{start:09d}", {"phones": some, **state}

    def restore(self, state: State) -> None:
        """Take one part of a snapshot."""
        own: Ends = {}
        for name, rows in state.items():
            segment, _, key = name.partition("/")
            if name != "phones":
                own.setdefault(segment, {})[key] = rows
        self.write(Closed(tuple(state["phones"].tolist()), {}, own, 0))

    def mean(self, start: Ends) -> Ends:
        """The mean over all phones of their weights, those that never trained included; of integers the largest."""
        if all(is_statistic(key) for _, key in self._arrays):
            return start  # of which the average was made all the same
        shares = self.trained.sum() / self._count
        means: Ends = {segment: dict(state) for segment, state in start.items()}
        for (segment, key), array in self._arrays.items():
            if key not in start[segment]:
                continue
            phones = np.flatnonzero(self.trained)
            if not bits.is_inexact(array.dtype):
                means[segment][key] = np.maximum(start[segment][key], array[phones].max(0, initial=0))
                continue
            kind = np.complex128 if array.dtype.kind == "c" else np.float64
            total = np.zeros(array.shape[1:], kind)
            for first in range(0, len(phones), CHUNK):
                total += bits.wide(array[phones[first : first + CHUNK]]).sum(0, dtype=kind)
            mean = total / self._count
            if shares < 1:  # nothing times a mask of -inf is no number
                mean = mean + bits.wide(start[segment][key]) * (1 - shares)
            means[segment][key] = bits.narrow(np.asarray(mean), array.dtype)
        return means


class Rows:
    """The rows of an .npy file at a URI, read one at a time: all may be more than there is memory for."""

    def __init__(self, path: Uri) -> None:
        self._path = path

    def __getitem__(self, phone: int) -> Array:
        with self._path.open() as file:
            np.lib.format.read_magic(file)
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            size = dtype.itemsize * int(np.prod(shape[1:]))
            file.seek(phone * size, 1)
            return np.frombuffer(file.read(size), dtype).reshape(shape[1:])


def _runs(phones: Array) -> Iterator[tuple[int, int]]:
    """The first and the last of phones that are neighbours."""
    ordered = np.unique(phones)
    for some in np.split(ordered, np.flatnonzero(np.diff(ordered) != 1) + 1):
        yield int(some[0]), int(some[-1])


def file_name(segment: str, key: str) -> str:
    """The file of an array's rows."""
    return f"{segment}~{key.replace('/', '~')}.npy"


def _as_file(array: Array) -> Iterator[bytes]:
    """An array as an .npy file, some rows at a time."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
    yield header.getvalue()
    for first in range(0, len(array), CHUNK):
        yield array[first : first + CHUNK].tobytes()
