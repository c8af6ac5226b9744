"""What a run writes into its folder, beside the fed server's checkpoints and model: docs/results.md has the columns.

Files are replaced whole, but for metrics.jsonl, which grows a line a round, and TensorBoard's. At a URI nothing can
grow: both are written anew with each checkpoint, from a folder of this machine.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute
import pyarrow.parquet
import torch

from ray_split import config, filesystem, logs
from ray_split.arrays import Array
from ray_split.config.user_code import by_value
from ray_split.errors import first_line, masked
from ray_split.filesystem import PARTIAL, Uri
from ray_split.logs import finite
from ray_split.results import adapter, checkpoint, disk_reserve, personal_state
from ray_split.results.folder_lock import Hold
from ray_split.results.left_behind import (
    BY_VALUE,
    CONFIG,
    MODEL,
    PHONES,
    SUMMARY,
    WITHOUT_EMA,
    ended_early,
    read_absent,
    read_quarantined,
    read_smaller,
    span,
)
from ray_split.results.provenance import now, provenance
from ray_split.results.rows import METRICS, read_rows
from ray_split.results.summary import FAILED, VIRTUAL, Totals
from ray_split.results.tensorboard import Board
from ray_split.version import __version__

logger = logs.get(__name__)

SCHEMA_VERSION = 1
VERSIONS: dict[str, Any] = {
    "ray-split": __version__,
    **{name: importlib.metadata.version(name) for name in ("ray", "torch", "numpy")},
    "python": platform.python_version(),
    "cpu": torch.backends.cpu.get_cpu_capability(),
}
EVENTS = "events.out.tfevents"  # of TensorBoard; how its files' names begin


class Records:
    """The files that the driver writes, a line a round."""

    def __init__(
        self,
        settings: config.Config,
        first_round: int,
        differing: dict[str, dict[str, str]] | None = None,
        hold: Hold | None = None,
        classes: Sequence[str] | None = None,
        groups: Sequence[str] | None = None,
    ) -> None:
        """`classes`: their names, if they have any; `groups`: of each phone the names of those whose samples it has."""
        self._classes = classes
        self._groups = None if groups is None else np.array(groups, object)
        self._differing = {} if differing is None else differing  # a backend's, which adds to it
        self._hold = hold
        self.folder = settings.run.folder
        self.saved = first_round
        """The round of the last checkpoint."""
        self.stopped_by: str | None = None
        """What ended the run before its last round, in order."""
        self._settings = settings
        self._phone_tables: list[dict[str, Array]] = []
        resumed = settings.run.resume != "never"
        self.quarantined = read_quarantined(self.folder) if resumed else []
        self.absent = [each for each in read_absent(self.folder) if each["round"] < first_round] if resumed else []
        self.smaller = read_smaller(self.folder) if resumed else []
        self._ended_early = ended_early(self.folder) if resumed else None
        self._provenance = provenance(self.folder, resumed)
        filesystem.make_folder(self.folder)
        # Run again, it is a run of its own: not one that goes on with this folder unasked.
        self._write(CONFIG, settings.with_values(run={"resume": "never"}).to_yaml())
        self._scratch = tempfile.TemporaryDirectory(prefix="ray_split_") if isinstance(self.folder, Uri) else None
        self._here = Path(self._scratch.name if self._scratch else str(self.folder))  # what grows line by line
        self._totals = Totals()
        self._cut_to(first_round)
        if given := by_value.text(settings):
            self._write(BY_VALUE, masked(given))
        self._quiet = _quiet_writers()
        try:
            with filesystem.naming(self._here / EVENTS):
                self._board = Board(settings, self._here, first_round)
        except BaseException:
            threading.excepthook = self._quiet
            raise

    def _is_ours(self) -> bool:
        """Whether nobody else took the folder meanwhile."""
        return self._hold is None or not self._hold.lost

    def _write(self, name: str, text: str) -> None:
        filesystem.write(self.folder / name, text.encode())

    def _cut_to(self, first_round: int) -> None:
        """Drop what lies beyond the checkpoint that the run goes on from."""
        rows = [row for row in read_rows(self.folder) if row["round"] < first_round]
        for row in rows:
            self._totals.add(row)
        self._grow("".join(json.dumps(row) + "\n" for row in rows))
        filesystem.make_folder(self.folder / PHONES)
        for part in filesystem.children(self.folder / PHONES):
            rounds = span(part)
            if part.name.startswith(PARTIAL) or (rounds and rounds[1] >= first_round):
                filesystem.remove(part)
            elif rounds is None:
                logger.warning("%s is none of a run's files: passed over", part)
        checkpoint.cut(self.folder / checkpoint.FOLDER, first_round)
        if not first_round:
            for name in (
                *(MODEL, WITHOUT_EMA, BY_VALUE, adapter.FOLDER),
                *(checkpoint.FOLDER, personal_state.FOLDER, personal_state.REMEMBERED),
            ):
                filesystem.remove(self.folder / name)

    @property
    def rounds(self) -> int:
        """How many rounds have a row."""
        return self._totals.rounds

    @property
    def last(self) -> dict[str, Any]:
        """The last round's row; empty if there is none."""
        return self._totals.last

    def rows(self) -> list[dict[str, Any]]:
        """All rows so far."""
        return read_rows(self._here)

    def ended_with(self, rounds: int) -> str | None:
        """What ended the run that is resumed after so many rounds, if it ended so."""
        return self._ended_early[1] if self._ended_early and self._ended_early[0] == rounds else None

    def would_be_best(self, row: dict[str, Any]) -> bool:
        """Whether a round's validation beats every round's before."""
        return self._totals.would_be_best(row)

    def round(self, row: dict[str, Any], phones: dict[str, Array], flush: bool) -> None:
        """Write a committed round; the phones' lines are held back until `flush`, with a checkpoint."""
        row, phones = finite(row), self._with_groups(phones)
        if self._hold:
            self._hold.check()
        with filesystem.naming(self._here / METRICS), (self._here / METRICS).open("a") as file:
            file.write(json.dumps(row) + "\n")
        self._totals.add(row)
        if len(phones["round"]):  # of a round may be nobody
            self._phone_tables.append(phones)
        self._board.add(row["round"], row)
        if flush:
            self.flush()

    def amend(self, row: dict[str, Any], phones: dict[str, Array] | None) -> None:
        """Write the last round again, with what is known of it now: a row with more columns, and its phones' lines.

        All that was held back must have been written.
        """
        row = finite(row)
        if self._hold:
            self._hold.check()
        before, rows = self._totals.last, self.rows()
        self._grow("".join(json.dumps(each) + "\n" for each in [*rows[:-1], row]))
        self._totals.amend(row)
        self._board.add(row["round"], {name: value for name, value in row.items() if name not in before})
        if phones is not None:
            self._amend_phones(row["round"], self._with_groups(phones))
        self.flush()

    def _with_groups(self, phones: dict[str, Array]) -> dict[str, Array]:
        """The lines with who each phone is, beside its number."""
        if self._groups is None:
            return phones
        return {"round": phones["round"], "phone": phones["phone"], "group": self._groups[phones["phone"]], **phones}

    def _grow(self, lines: str) -> None:
        """Replace all rows, here and at a URI."""
        self._write(METRICS, lines)
        if self._scratch:
            (self._here / METRICS).write_text(lines)

    def _amend_phones(self, round: int, phones: dict[str, Array]) -> None:
        """Put a round's lines in the place of those that are written, in the file that ends with them."""
        table = pyarrow.table({name: _column(values) for name, values in phones.items()})
        folder = self.folder / PHONES
        for part in filesystem.children(folder):
            if (rounds := span(part)) and rounds[1] == round:
                there = pyarrow.parquet.read_table(pyarrow.BufferReader(part.read_bytes()))
                kept = there.filter(pyarrow.compute.not_equal(there["round"], round))
                filesystem.write(part, _parquet([kept, table.cast(there.schema)]))
                return
        self._phone_tables.append(phones)

    def quarantine(self, round: int, phones: Sequence[int], reason: str) -> None:
        """Take down that the run goes on without these phones."""
        for phone in phones:
            named = {} if self._groups is None else {"group": str(self._groups[phone])}
            self.quarantined.append({"phone": phone, **named, "round": round, "reason": reason})

    def absence(self, round: int, phones: Sequence[int], reason: str) -> None:
        """Take down that remote phones are off in a round."""
        self.absent += [{"phone": phone, "round": round, "reason": reason} for phone in phones]

    def flush(self) -> None:
        """Write what was held back: the phones' lines, in one more file of the parquet data set; at a URI all rows.

        Rows are on the disk then: whoever resumes from the checkpoint that follows can't make them again.
        """
        with filesystem.naming(self._here / EVENTS):
            self._board.flush()
        with filesystem.naming(self._here / METRICS), (self._here / METRICS).open("a") as rows:
            filesystem.sync(rows.fileno())
        if self._scratch:
            for file in self._here.iterdir():
                filesystem.write(self.folder / file.name, file.read_bytes())
        if self._phone_tables:
            self._write_phones()

    def _write_phones(self) -> None:
        first, last = (int(self._phone_tables[i]["round"][0]) for i in (0, -1))
        path = self.folder / PHONES / f"rounds_{first:06d}_{last:06d}.parquet"
        tables = [pyarrow.table({name: _column(values) for name, values in t.items()}) for t in self._phone_tables]
        filesystem.write(path, _parquet(tables))
        self._phone_tables = []

    def summary(self, status: str, recoveries: int, error: str | None = None) -> dict[str, Any]:
        """Write summary.json; it is there from the start."""
        last, best, sums = self._totals.last, self._totals.best or {}, self._totals.sums
        seconds, samples, phone_rounds = sums["round_seconds"], sums["samples"], sums["phones"]
        scores = self._settings.task.metric_names
        summary = {
            "schema_version": SCHEMA_VERSION,
            "status": status,
            "error": error and masked(error),
            "stopped_by": self.stopped_by,
            **self._provenance,
            "ended": None if status == "running" else now(),
            "versions": {**VERSIONS, **({"nodes": [*self._differing.values()]} if self._differing else {})},
            "seed": self._settings.run.seed,
            "schedule": self._settings.schedule.name,
            "phones": self._settings.phones.count,
            "server_replicas": self._settings.server.replicas,
            "rounds": self._totals.rounds,
            **({} if self._classes is None else {"classes": list(self._classes)}),
            "checkpoint": self.saved,
            "test_accuracy": last.get("test_accuracy"),
            "best_val_accuracy": best.get("val_accuracy"),
            "test_accuracy_at_best_val": best.get("test_accuracy"),
            "test_loss": last.get("test_loss"),
            "test_nonfinite": last.get("test_nonfinite"),
            **_by_loss(best),
            **{f"test_{name}": last.get(f"test_{name}") for name in scores},
            **{f"test_{name}_at_best_val": best.get(f"test_{name}") for name in scores},
            "seconds": seconds,
            "samples_per_second": samples / seconds if seconds else None,
            "phone_rounds_per_second": phone_rounds / seconds if seconds else None,
            "bytes_up_total": sums["bytes_up"],
            "bytes_down_total": sums["bytes_down"],
            **{f"{name}_total": sums[name] for name in VIRTUAL if name in sums},
            **{name: sums[name] for name in FAILED},
            "recoveries": recoveries,
            "quarantined": self.quarantined,
            **({"absent": self.absent} if self._settings.phones.remote_phones else {}),
            **({"smaller": self.smaller} if self.smaller else {}),
            **{name: last.get(name) for name in ("phone_accuracy_mean", "phone_accuracy_p10", "phone_accuracy_worst")},
        }
        with _no_worse(status):
            if self._is_ours():
                disk_reserve.write(self.folder / SUMMARY, (json.dumps(summary, indent=1) + "\n").encode())
        return summary

    def close(self, status: str = "finished") -> None:
        """Write what is held back and close the files."""
        with _no_worse(status):
            self._board.close(status)
        threading.excepthook = self._quiet
        with _no_worse(status):
            if self._is_ours():
                self.flush()
        if self._scratch:
            self._scratch.cleanup()


def _quiet_writers() -> Callable[[threading.ExceptHookArgs], object]:
    """TensorBoard's thread hands what goes wrong to the next call, and is not to print it too. The hook before."""
    before = threading.excepthook

    def hook(arguments: threading.ExceptHookArgs) -> None:
        if type(arguments.thread).__name__ != "_AsyncWriterThread":
            before(arguments)

    threading.excepthook = hook
    return before


def _parquet(tables: list[pyarrow.Table]) -> bytes:
    content = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.concat_tables(tables), content)
    written: bytes = content.getvalue().to_pybytes()
    return written


def _column(values: Array) -> pyarrow.Array:
    """A column of numbers, or of words and None: also if all are None."""
    return pyarrow.array(values, pyarrow.string() if values.dtype == object else None, from_pandas=True)


@contextmanager
def _no_worse(status: str) -> Iterator[None]:
    """A run that failed says why, and not that this can't be written down: it may have failed for that."""
    try:
        yield
    except OSError as error:
        if status not in ("failed", "stopped"):
            raise
        logger.warning("not written: %s", first_line(error))


def _by_loss(best: dict[str, Any]) -> dict[str, Any]:
    """Where there is no accuracy, the best round is that of the lowest validation loss."""
    if best.get("val_accuracy") is not None:
        return {"best_val_loss": None, "test_loss_at_best_val": None}
    return {"best_val_loss": best.get("val_loss"), "test_loss_at_best_val": best.get("test_loss")}
