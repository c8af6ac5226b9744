"""What calls report, and the sums of it: per phone, per round."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ray_split.arrays import Array

NONFINITE = "nonfinite"
"""A tally beside those of the scores: how many samples' outputs are not finite, of how many."""


class Report(NamedTuple):
    """What one call tells the driver: numbers, never tensors. Arrays have an element for each of the phones."""

    phones: Array | None = None
    samples: Array | int = 0
    loss: Array | float = 0.0  # summed over the samples
    correct: Array | float = 0  # not a number where there is no right and wrong
    bytes_up: Array | int = 0
    bytes_down: Array | int = 0
    bytes_weights: Array | int = 0
    tallies: Mapping[str, Array] | None = None  # of the scores, in evaluation: over all of its phones' samples

    @property
    def exchanges(self) -> int:
        """How many exchanges it tells of: one for each of the phones, where something crossed to the server."""
        return 0 if self.phones is None or not np.any(self.bytes_up) else len(self.phones)


COLUMNS = Report._fields[1:-1]


def padded_sum(reports: Sequence[Report]) -> Report:
    """The steps of a cohort added up. Its phones with fewer steps are its last ones."""
    first = reports[0]
    assert first.phones is not None
    sums: dict[str, Any] = {}
    for column in COLUMNS:
        total = np.zeros(len(first.phones), np.asarray(getattr(first, column)).dtype)
        for report in reports:
            assert report.phones is not None
            total[: len(report.phones)] += getattr(report, column)
        sums[column] = total
    return Report(first.phones, **sums)


def added(tallies: Iterable[Mapping[str, Array]]) -> dict[str, Array]:
    """Tallies added up, by name."""
    sums: dict[str, Array] = {}
    for each in tallies:
        for name, tally in each.items():
            sums[name] = sums[name] + tally if name in sums else tally
    return sums


class Spent(NamedTuple):
    """Where an actor's time of a round went, in seconds."""

    compute: float = 0.0  # in its calls
    waiting: float = 0.0  # for what others had not sent yet
    transfer: float = 0.0  # from when all was sent and it was free, to the beginning of its call


class Sums:
    """Reports added up, in the order they were submitted."""

    def __init__(self) -> None:
        self._reports: list[Report] = []

    def add(self, report: Report) -> None:
        """Add one report."""
        self._reports.append(report)

    def total(self, column: str) -> Any:
        """The sum over all reports."""
        return sum(np.sum(getattr(report, column)).item() for report in self._reports)

    @property
    def mean_loss(self) -> float | None:
        """Mean loss over the samples; None of no samples."""
        samples = self.total("samples")
        return float(self.total("loss") / samples) if samples else None

    @property
    def accuracy(self) -> float | None:
        """Share of the samples that came out right; None of no samples, and where there is no right and wrong."""
        samples = self.total("samples")
        return _number(self.total("correct") / samples) if samples else None

    @property
    def tallies(self) -> dict[str, Array]:
        """The tallies of the scores, over all samples."""
        return added(report.tallies or {} for report in self._reports)

    @property
    def nonfinite(self) -> tuple[int, int]:
        """In evaluation of how many samples the outputs are not finite, and of how many samples that is."""
        broken, total = self.tallies.get(NONFINITE, (0, 0))
        return int(broken), int(total)

    @property
    def phones_nonfinite(self) -> Array:
        """The phones whose loss is not finite, of those that are told of one by one."""
        phones, sums = self.by_phone()
        found: Array = phones[~np.isfinite(sums["loss"])]
        return found

    @property
    def phone_mean(self) -> float | None:
        """The mean over phones of each one's accuracy; None as `accuracy`."""
        accuracy = self._phone_accuracy()
        return _number(accuracy.mean()) if len(accuracy) else None

    @property
    def phones_scored(self) -> int:
        """How many phones were evaluated on samples of their own."""
        return int(np.count_nonzero(self.by_phone()[1]["samples"]))

    def _phone_accuracy(self) -> Array:
        _, sums = self.by_phone()
        own: Array = sums["correct"][sums["samples"] > 0] / sums["samples"][sums["samples"] > 0]
        return own

    def over_phones(self) -> dict[str, float]:
        """The phones' accuracies on their own samples: mean, 10th percentile and worst."""
        accuracy = self._phone_accuracy()
        if not len(accuracy) or np.isnan(accuracy).any():
            return {}
        return {
            "phone_accuracy_mean": float(accuracy.mean()),
            "phone_accuracy_p10": float(np.percentile(accuracy, 10)),
            "phone_accuracy_worst": float(accuracy.min()),
        }

    def by_phone(self) -> tuple[Array, dict[str, Array]]:
        """The phones that reported, and of each its sums."""
        own = [report for report in self._reports if report.phones is not None]
        if not own:
            return np.zeros(0, np.int64), {column: np.zeros(0) for column in COLUMNS}
        phones, places = np.unique(np.concatenate([r.phones for r in own if r.phones is not None]), return_inverse=True)
        sums = {}
        for column in COLUMNS:
            values = np.concatenate(
                [np.broadcast_to(getattr(r, column), len(r.phones)) for r in own if r.phones is not None]
            )
            added = np.zeros(len(phones), values.dtype)
            np.add.at(added, places, values)
            sums[column] = added
        return phones, sums


class RoundSums(Sums):
    """A round's reports: in all, and per phone."""

    def __init__(self) -> None:
        super().__init__()
        self.spent: dict[str, Spent] = {}
        self.crossed: dict[str, int] = {}  # columns of what crossed between the gateway and devices

    def extend(self, reports: Iterable[Report]) -> None:
        """Add reports, in order."""
        self._reports.extend(reports)

    def row(self, round: int, seconds: float) -> dict[str, Any]:
        """The round's line in metrics.jsonl, before evaluation."""
        sums = {column: self.total(column) for column in COLUMNS}
        return {
            "round": round,
            "train_loss": self.mean_loss,
            "val_loss": None,
            "val_accuracy": None,
            "phones": len(self.by_phone()[0]),
            "samples": sums["samples"],
            "exchanges": sum(report.exchanges for report in self._reports),
            "round_seconds": seconds,
            "bytes_up": sums["bytes_up"],
            "bytes_down": sums["bytes_down"],
            "bytes_weights": sums["bytes_weights"],
            **{f"{r}_{name}_seconds": s for r, spent in self.spent.items() for name, s in spent._asdict().items()},
        }

    def phone_table(self, round: int, own: Sums | None = None) -> dict[str, Array]:
        """The round's lines in phones.parquet, by column: of the phones that trained, or were evaluated alone."""
        trained, sums = self.by_phone()
        tested, test = own.by_phone() if own else (trained[:0], {column: np.zeros(0) for column in COLUMNS})
        phones = np.union1d(trained, tested)
        columns = {name: _spread(phones, trained, sums[name]) for name in ("samples", *COLUMNS[3:])}
        return {
            "round": np.full(len(phones), round),
            "phone": phones,
            "samples": columns["samples"],
            **_means(phones, trained, sums),
            **{name: columns[name] for name in COLUMNS[3:]},
            **{f"test_{name}": values for name, values in _means(phones, tested, test).items()},
        }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _spread(phones: Array, some: Array, values: Array) -> Array:
    """Values of some of the phones, and 0 for the others."""
    found = np.zeros(len(phones), np.int64)
    found[np.searchsorted(phones, some)] = values
    return found


def _means(phones: Array, some: Array, sums: dict[str, Array]) -> dict[str, Array]:
    """Loss and accuracy of some of the phones; not a number for the others."""
    samples = np.zeros(len(phones))
    samples[np.searchsorted(phones, some)] = sums["samples"]
    means = {}
    for name, column in (("loss", "loss"), ("accuracy", "correct")):
        means[name] = np.full(len(phones), np.nan)
        means[name][np.searchsorted(phones, some)] = sums[column]
        means[name][samples == 0] = np.nan
        means[name] /= np.maximum(samples, 1)
    return means


def mean_spent(spent: Sequence[Spent]) -> Spent:
    """The mean over the actors that did something."""
    busy = [each for each in spent if each.compute > 0] or list(spent)
    return Spent(*(sum(values) / len(busy) for values in zip(*busy, strict=True)))


def best_round(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The row with the highest validation accuracy, the first of equals; None if there was no validation.

    Where there is no accuracy, as in a regression, the row with the lowest validation loss.
    """
    scored = [row for row in rows if row.get("val_accuracy") is not None]
    if scored:
        return max(scored, key=lambda row: row["val_accuracy"])
    scored = [row for row in rows if row.get("val_loss") is not None and math.isfinite(row["val_loss"])]
    return min(scored, key=lambda row: row["val_loss"]) if scored else None
