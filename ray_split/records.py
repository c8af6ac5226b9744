"""What a run writes into its folder, beside the fed server's checkpoints and model: see README, 'Results'."""

from __future__ import annotations

import importlib.metadata
import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from torch.utils.tensorboard import SummaryWriter

from ray_split import __version__, checkpoint, config
from ray_split.failure import SettingsError
from ray_split.metrics import best_round
from ray_split.state import Array
from ray_split.task import names

SCHEMA_VERSION = 1
VERSIONS = {"ray-split": __version__} | {n: importlib.metadata.version(n) for n in ("ray", "torch", "numpy")}
CONFIG, METRICS, PHONES, SUMMARY, MODEL = (
    "config.yaml",
    "metrics.jsonl",
    "phones.parquet",
    "summary.json",
    "model.safetensors",
)
MAY_DIFFER = ("run.rounds", "run.resume", "run.eval_every", "run.max_failures", "checkpoint.", "cluster.")
"""Settings that may differ from the run that is resumed: they change how far, how often and where, not what."""


def inherit(settings: config.Config) -> config.Config:
    """A resumed run keeps what `auto` was settled to when it began: a GPU and a CPU don't give the same bits."""
    path = settings.run.folder / CONFIG
    if settings.run.resume == "never" or settings.server.num_gpus != "auto" or not path.exists():
        return settings
    return settings.with_values(server={"num_gpus": config.Config.from_yaml(path).server.num_gpus})


def claim(settings: config.Config) -> Path | None:
    """See that the output folder is this run's to write to; the checkpoint to resume from, None for a fresh start.

    Raises SettingsError if it holds another run, or one with other settings.
    """
    folder = settings.run.folder
    _check_is_folder(settings)
    if not folder.exists() or not any(folder.iterdir()):
        if settings.run.resume not in ("never", "auto"):
            raise SettingsError("run.resume", settings.run.resume, "the folder of a run")
        return None
    if not (folder / CONFIG).exists():
        raise SettingsError("run.name", settings.run.name, f"a name that is free: {folder} holds something else")
    if settings.run.resume == "never":
        allowed = f"a name that is free: {folder} holds a run (--run.resume goes on with it)"
        raise SettingsError("run.name", settings.run.name, allowed)
    # Through Config, which fills in settings that there were not yet when the run began.
    _check_same(settings, config.Config.from_yaml(folder / CONFIG).model_dump(mode="json"))
    complete = checkpoint.complete(folder / checkpoint.FOLDER)
    return complete[-1] if complete else None


def _check_is_folder(settings: config.Config) -> None:
    there = next(path for path in (settings.run.folder, *settings.run.folder.parents) if path.exists())
    if there.is_dir():
        return
    if there == settings.run.folder:
        raise SettingsError("run.name", settings.run.name, f"a name that is free: {there} is a file")
    raise SettingsError("run.storage_path", settings.run.storage_path, f"a folder; {there} is a file")


def _check_same(settings: config.Config, before: dict[str, Any]) -> None:
    now, then = _flat(settings.model_dump(mode="json")), _flat(before)
    names = [n for n in now if now[n] != then.get(n) and not n.startswith(MAY_DIFFER)]
    names = [n for n in names if n not in ("run.name", "run.storage_path")]
    if names:
        was = "; ".join(f"{n} was {then.get(n)!r}" for n in names)
        allowed = f"as in the run that is resumed: {was}"
        raise SettingsError(", ".join(names), [now[n] for n in names], allowed)


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict) and name != "kwargs":
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """What is no number any more as null: JSON has no NaN."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl; none if it isn't there."""
    path = folder / METRICS
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def read_quarantined(folder: Path) -> list[dict[str, Any]]:
    """The phones that a run goes on without: each with the round from which, and why. None if nothing is there."""
    path = folder / SUMMARY
    found: list[dict[str, Any]] = json.loads(path.read_text()).get("quarantined", []) if path.exists() else []
    return found


class Records:
    """The files that the driver writes, a line a round."""

    def __init__(self, settings: config.Config, first_round: int) -> None:
        self.folder = settings.run.folder
        self._settings = settings
        self._phone_tables: list[dict[str, Array]] = []
        self.quarantined = read_quarantined(self.folder) if settings.run.resume != "never" else []
        self.folder.mkdir(parents=True, exist_ok=True)
        # Run again, it is a run of its own: not one that goes on with this folder unasked.
        (self.folder / CONFIG).write_text(settings.with_values(run={"resume": "never"}).to_yaml())
        self._cut_to(first_round)
        self._board = SummaryWriter(str(self.folder), purge_step=first_round)

    def _cut_to(self, first_round: int) -> None:
        """Drop what lies beyond the checkpoint that the run goes on from."""
        self._rows = [row for row in read_rows(self.folder) if row["round"] < first_round]
        lines = [json.dumps(row) + "\n" for row in self._rows]
        partial = self.folder / f".partial_{METRICS}"
        partial.write_text("".join(lines))
        partial.replace(self.folder / METRICS)
        (self.folder / PHONES).mkdir(exist_ok=True)
        for part in (self.folder / PHONES).glob("*.parquet"):
            if int(part.stem.rpartition("_")[2]) >= first_round:
                part.unlink()
        if not first_round:
            (self.folder / MODEL).unlink(missing_ok=True)
            shutil.rmtree(self.folder / checkpoint.FOLDER, ignore_errors=True)

    def would_be_best(self, row: dict[str, Any]) -> bool:
        """Whether a round's validation beats every round's before."""
        return best_round([*self._rows, row]) is row

    def round(self, row: dict[str, Any], phones: dict[str, Array], flush: bool) -> None:
        """Write a committed round; the phones' lines are held back until `flush`, with a checkpoint."""
        row = _finite(row)
        with (self.folder / METRICS).open("a") as file:
            file.write(json.dumps(row) + "\n")
        self._rows.append(row)
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
        """Write the phones' lines that were held back: one more file of the parquet data set."""
        self._board.flush()
        if not self._phone_tables:
            return
        first, last = (int(self._phone_tables[i]["round"][0]) for i in (0, -1))
        path = self.folder / PHONES / f"rounds_{first:06d}_{last:06d}.parquet"
        tables = [
            pyarrow.table({n: pyarrow.array(v, from_pandas=True) for n, v in t.items()}) for t in self._phone_tables
        ]
        pyarrow.parquet.write_table(pyarrow.concat_tables(tables), path)
        self._phone_tables = []

    def summary(self, status: str, recoveries: int, error: str | None = None) -> dict[str, Any]:
        """Write summary.json; it is there from the start."""
        rows = self._rows
        last, best = (rows[-1] if rows else {}), best_round(rows) or {}
        seconds = sum(row["round_seconds"] for row in rows)
        samples = sum(row["samples"] for row in rows)
        phone_rounds = sum(row["phones"] for row in rows)
        scores = names(self._settings.task)
        summary = {
            "schema_version": SCHEMA_VERSION,
            "status": status,
            "error": error,
            "versions": VERSIONS,
            "seed": self._settings.run.seed,
            "schedule": self._settings.schedule.name,
            "phones": self._settings.phones.count,
            "rounds": len(rows),
            "test_accuracy": last.get("test_accuracy"),
            "best_val_accuracy": best.get("val_accuracy"),
            "test_accuracy_at_best_val": best.get("test_accuracy"),
            "test_loss": last.get("test_loss"),
            **_by_loss(best),
            **{f"test_{name}": last.get(f"test_{name}") for name in scores},
            **{f"test_{name}_at_best_val": best.get(f"test_{name}") for name in scores},
            "seconds": seconds,
            "samples_per_second": samples / seconds if seconds else None,
            "phone_rounds_per_second": phone_rounds / seconds if seconds else None,
            "bytes_up_total": sum(row["bytes_up"] for row in rows),
            "bytes_down_total": sum(row["bytes_down"] for row in rows),
            "recoveries": recoveries,
            "quarantined": self.quarantined,
            **{name: last.get(name) for name in ("phone_accuracy_mean", "phone_accuracy_p10", "phone_accuracy_worst")},
        }
        partial = self.folder / f".partial_{SUMMARY}"
        partial.write_text(json.dumps(summary, indent=1) + "\n")
        partial.replace(self.folder / SUMMARY)
        return summary

    def close(self) -> None:
        """Write what is held back and close the files."""
        self.flush()
        self._board.close()


def _by_loss(best: dict[str, Any]) -> dict[str, Any]:
    """Where there is no accuracy, the best round is that of the lowest validation loss."""
    if best.get("val_accuracy") is not None:
        return {"best_val_loss": None, "test_loss_at_best_val": None}
    return {"best_val_loss": best.get("val_loss"), "test_loss_at_best_val": best.get("test_loss")}
