"""What calls report, and the sums of it: per phone, per round."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Report(NamedTuple):
    """What one call tells the driver: numbers, never tensors."""

    phone: int = -1
    samples: int = 0
    loss: float = 0.0  # summed over the samples
    correct: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    bytes_weights: int = 0


@dataclass
class Sums:
    """Reports added up, in the order they were submitted."""

    samples: int = 0
    loss: float = 0.0
    correct: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    bytes_weights: int = 0

    def add(self, report: Report) -> None:
        """Add one report."""
        for name in self.__dataclass_fields__:
            setattr(self, name, getattr(self, name) + getattr(report, name))

    @property
    def mean_loss(self) -> float | None:
        """Mean loss over the samples; None of no samples."""
        return self.loss / self.samples if self.samples else None

    @property
    def accuracy(self) -> float | None:
        """Share of the samples that came out right; None of no samples."""
        return self.correct / self.samples if self.samples else None


@dataclass
class RoundSums:
    """A round's reports: in all, and per phone."""

    total: Sums = field(default_factory=Sums)
    phones: dict[int, Sums] = field(default_factory=dict)

    def add(self, reports: Iterable[Report]) -> None:
        """Add reports, in order."""
        for report in reports:
            self.total.add(report)
            if report.phone >= 0:
                self.phones.setdefault(report.phone, Sums()).add(report)

    def row(self, round: int, seconds: float) -> dict[str, Any]:
        """The round's line in metrics.jsonl, before evaluation."""
        total = self.total
        return {
            "round": round,
            "train_loss": total.mean_loss,
            "val_loss": None,
            "val_accuracy": None,
            "phones": len(self.phones),
            "samples": total.samples,
            "round_seconds": seconds,
            "bytes_up": total.bytes_up,
            "bytes_down": total.bytes_down,
            "bytes_weights": total.bytes_weights,
        }

    def phone_rows(self, round: int) -> list[dict[str, Any]]:
        """The round's lines in phones.parquet."""
        return [
            {
                "round": round,
                "phone": phone,
                "samples": sums.samples,
                "loss": sums.mean_loss,
                "accuracy": sums.accuracy,
                "bytes_up": sums.bytes_up,
                "bytes_down": sums.bytes_down,
                "bytes_weights": sums.bytes_weights,
            }
            for phone, sums in sorted(self.phones.items())
        ]


def best_round(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The row with the highest validation accuracy, the first of equals; None if there was no validation."""
    scored = [row for row in rows if row.get("val_accuracy") is not None]
    return max(scored, key=lambda row: row["val_accuracy"]) if scored else None
