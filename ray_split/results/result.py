"""What a run leaves behind, as an object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ray_split.config import html
from ray_split.errors import masked
from ray_split.filesystem import Place, full, place

if TYPE_CHECKING:
    import pandas

SHOWN = (
    "status", "error", "stopped_by", "schedule", "phones", "rounds", "train_loss", "test_accuracy", "test_loss",
    "best_val_accuracy", "test_accuracy_at_best_val", "best_val_loss", "test_loss_at_best_val", "seconds",
)  # fmt: skip
"""Of the metrics, in a notebook's table."""


@dataclass(frozen=True, repr=False)
class Result:
    """A run's results; the names are those of Ray Train's Result."""

    path: str
    metrics: dict[str, Any]  # of the last round, with the summary's
    checkpoint: str | None  # the path of the last complete one
    error: str | None  # why the run did not finish

    @classmethod
    def from_path(cls, path: str | Place) -> Result:
        """The results of the run in a folder. Raises FileNotFoundError if there is none.

        Raises SettingsError if the summary can't be read. Rows that can't be read are left out, and a line says so.
        """
        from ray_split.results import checkpoint
        from ray_split.results.left_behind import read_summary
        from ray_split.results.rows import read_rows

        folder = place(path)
        summary = read_summary(folder)
        rows = read_rows(folder)
        complete = checkpoint.complete(folder / checkpoint.FOLDER)
        error = summary.get("error") if summary["status"] != "finished" else None
        return cls(
            path=full(folder),
            metrics={**(rows[-1] if rows else {}), **summary},
            checkpoint=full(complete[-1]) if complete else None,
            error=error,
        )

    @property
    def classes(self) -> list[str] | None:
        """The names of the classes, in the order of the model's outputs; None if the data set has none for them."""
        found: list[str] | None = self.metrics.get("classes")
        return found

    def __repr__(self) -> str:
        """Without the credentials that may be in a URI."""
        return masked(
            f"Result(path={self.path!r}, metrics={self.metrics!r}, checkpoint={self.checkpoint!r}, "
            f"error={self.error!r})"
        )

    def _repr_html_(self) -> str:
        """For notebooks: how it ended, and its scores."""
        rows = {name: self.metrics[name] for name in SHOWN if self.metrics.get(name) is not None}
        return html.table("ray_split.Result", {**rows, "path": self.path})

    @property
    def metrics_dataframe(self) -> pandas.DataFrame:
        """metrics.jsonl as a pandas data frame, a row a round."""
        import pandas

        from ray_split.results.rows import read_rows

        return pandas.DataFrame(read_rows(place(self.path)))
