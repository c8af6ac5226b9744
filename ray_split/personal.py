"""What is each phone's own, for as many phones as there are: in files, a row a phone. numpy alone, no torch.

personal/a~weights~block1.0.weight.npy has the shape (phones, ...); a row is written when its phone first trains.
The files are sparse: phones that never trained cost nothing. Read one: np.load(file, mmap_mode="r")[phone].
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ray_split.state import Array, Closed, Ends, State, is_statistic

CHUNK = 1000  # phones whose states are in memory at the same time
TRAINED = "trained.npy"
PREFIX = "personal_"


class Personal:
    """The rows of the phones that have trained."""

    def __init__(self, folder: Path, count: int) -> None:
        self._folder = folder
        self._count = count
        self._arrays: dict[tuple[str, str], Array] = {}
        self.trained = np.zeros(count, bool)

    @classmethod
    def open(cls, folder: Path) -> Personal:
        """The rows in a run's folder, to read. Raises FileNotFoundError if the run has none."""
        found = cls(folder, 0)
        found.trained = np.load(folder / TRAINED)
        for path in sorted(folder.glob("*.npy")):
            segment, _, key = path.stem.partition("~")
            if path.name != TRAINED:
                found._arrays[segment, key.replace("~", "/")] = np.load(path, mmap_mode="r")
        return found

    def clear(self) -> None:
        """Forget all rows."""
        self._arrays = {}
        self.trained[:] = False
        shutil.rmtree(self._folder, ignore_errors=True)

    def rows(self, phones: Array, start: Ends) -> Ends:
        """The phones' own states (phones, ...); of those that never trained what `start` has, or zeros."""
        rows: Ends = {}
        trained = self.trained[phones]
        for (segment, key), array in self._arrays.items():
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
                self._arrays[segment, key][phones] = rows
        self.trained[phones] = True
        np.save(self._folder / TRAINED, self.trained)

    def _create(self, segment: str, key: str, rows: Array) -> Array:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{segment}~{key.replace('/', '~')}.npy"
        created: Array = np.lib.format.open_memmap(path, "w+", rows.dtype, (self._count, *rows.shape[1:]))
        return created

    def snapshot(self) -> Iterator[tuple[str, State]]:
        """All rows, a thousand phones at a time, for a checkpoint."""
        phones = np.flatnonzero(self.trained)
        for start in range(0, len(phones), CHUNK):
            some = phones[start : start + CHUNK]
            state = {f"{segment}/{key}": array[some] for (segment, key), array in self._arrays.items()}
            yield f"{PREFIX}{start:09d}", {"phones": some, **state}

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
            if not np.issubdtype(array.dtype, np.floating):
                means[segment][key] = np.maximum(start[segment][key], array[phones].max(0, initial=0))
                continue
            total = np.zeros(array.shape[1:], np.float64)
            for first in range(0, len(phones), CHUNK):
                total += array[phones[first : first + CHUNK]].sum(0, dtype=np.float64)
            mean = total / self._count + start[segment][key] * (1 - shares)
            means[segment][key] = mean.astype(array.dtype)
        return means
