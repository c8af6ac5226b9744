"""A run for TensorBoard: its rows as scalars in groups, its settings as text, and as hparams to compare runs by."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams as as_summaries

from ray_split import config
from ray_split.results.hparams import hparams
from ray_split.results.tags import tag

COMPARED = ("train/loss", "val/loss", "val/accuracy", "test/loss", "test/accuracy")
"""The scalars that the table of hparams shows beside them."""


class Board:
    """Writes a run's events into a folder of this machine, from a round on."""

    def __init__(self, settings: config.Config, folder: Path, first_round: int) -> None:
        self._writer = SummaryWriter(str(folder), purge_step=first_round)
        code = "\n".join(f"    {line}" for line in settings.to_yaml().splitlines())  # a block of it, in Markdown
        self._writer.add_text("settings", code)
        experiment, start, self._end = as_summaries(hparams(settings), dict.fromkeys(COMPARED, 0.0))
        for summary in (experiment, start):
            self._writer.file_writer.add_summary(summary)

    def add(self, round: int, values: Mapping[str, float | None]) -> None:
        """Columns of a round's row."""
        for column, value in values.items():
            if column != "round" and value is not None:
                self._writer.add_scalar(tag(column), value, round)

    def flush(self) -> None:
        """Write what is held back."""
        self._writer.flush()

    def close(self, status: str) -> None:
        """Say that it is over, if it has finished, and close the file."""
        if status == "finished":
            self._writer.file_writer.add_summary(self._end)
        self._writer.close()
