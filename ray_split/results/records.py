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

import pyarrow
import pyarrow.parquet
import torch
from torch.utils.tensorboard import SummaryWriter

from ray_split import config, filesystem, logs
from ray_split.arrays import Array
from ray_split.errors import first_line, masked
from ray_split.filesystem import PARTIAL, Uri
from ray_split.logs import finite
from ray_split.results import checkpoint, disk_reserve, personal_state
from ray_split.results.folder_lock import Hold
from ray_split.results.left_behind import CONFIG, MODEL, PHONES, SUMMARY, read_quarantined, span
from ray_split.results.provenance import now, provenance
from ray_split.results.rows import METRICS, read_rows
from ray_split.results.summary import FAILED, VIRTUAL, Totals
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
    ) -> None:
        """`classes`: their names, if they have any."""
        self._classes = classes
        self._differing = {} if differing is None else differing  # a backend's, which adds to it
        self._hold = hold
        self.folder = settings.run.folder
        self.saved = first_round
        """The round of the last checkpoint."""
        self._settings = settings
        self._phone_tables: list[dict[str, Array]] = []
        resumed = settings.run.resume != "never"
        self.quarantined = read_quarantined(self.folder) if resumed else []
        self._provenance = provenance(self.folder, resumed)
        filesystem.make_folder(self.folder)
        # Run again, it is a run of its own: not one that goes on with this folder unasked.
        self._write(CONFIG, settings.with_values(run={"resume": "never"}).to_yaml())
        self._scratch = tempfile.TemporaryDirectory(prefix="ray_split_") if isinstance(self.folder, Uri) else None
        self._here = Path(self._scratch.name if self._scratch else str(self.folder))  # what grows line by line
        self._totals = Totals()
        self._cut_to(first_round)
        self._quiet = _quiet_writers()
        try:
            with filesystem.naming(self._here / EVENTS):
                self._board = SummaryWriter(str(self._here), purge_step=first_round)
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
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        self._write(METRICS, lines)
        if self._scratch:
            (self._here / METRICS).write_text(lines)
        filesystem.make_folder(self.folder / PHONES)
        for part in filesystem.children(self.folder / PHONES):
            rounds = span(part)
            if part.name.startswith(PARTIAL) or (rounds and rounds[1] >= first_round):
                filesystem.remove(part)
            elif rounds is None:
                logger.warning("%s is none of a run's files: passed over", part)
        checkpoint.cut(self.folder / checkpoint.FOLDER, first_round)
        if not first_round:
            for name in (MODEL, checkpoint.FOLDER, personal_state.FOLDER):
                filesystem.remove(self.folder / name)

    @property
    def rounds(self) -> int:
        """How many rounds have a row."""
        return self._totals.rounds

    def would_be_best(self, row: dict[str, Any]) -> bool:
        """Whether a round's validation beats every round's before."""
        return self._totals.would_be_best(row)

    def round(self, row: dict[str, Any], phones: dict[str, Array], flush: bool) -> None:
        """Write a committed round; the phones' lines are held back until `flush`, with a checkpoint."""
        row = finite(row)
        if self._hold:
            self._hold.check()
        with filesystem.naming(self._here / METRICS), (self._here / METRICS).open("a") as file:
            file.write(json.dumps(row) + "\n")
        self._totals.add(row)
        if len(phones["round"]):  # of a round may be nobody
            self._phone_tables.append(phones)
        for name, value in row.items():
            if name != "round" and value is not None:
                self._board.add_scalar(name, value, row["round"])
        if flush:
            self.flush()

    def quarantine(self, round: int, phones: Sequence[int], reason: str) -> None:
        """Take down that the run goes on without these phones."""
        self.quarantined += [{"phone": phone, "round": round, "reason": reason} for phone in phones]

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
        content = pyarrow.BufferOutputStream()
        pyarrow.parquet.write_table(pyarrow.concat_tables(tables), content)
        filesystem.write(path, content.getvalue().to_pybytes())
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
            **{name: last.get(name) for name in ("phone_accuracy_mean", "phone_accuracy_p10", "phone_accuracy_worst")},
        }
        with _no_worse(status):
            if self._is_ours():
                disk_reserve.write(self.folder / SUMMARY, (json.dumps(summary, indent=1) + "\n").encode())
        return summary

    def close(self, status: str = "finished") -> None:
        """Write what is held back and close the files."""
        with _no_worse(status):
            self._board.close()
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
