"""What a tracker is told of a run: its settings at the start, each round's figures, and its summary."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from typing import Any

from ray_split import config, logs
from ray_split.callbacks import Callback
from ray_split.errors import first_line
from ray_split.results.left_behind import known_summary
from ray_split.results.tags import tag

logger = logs.get(__name__)

Figures = dict[str, float]


class Tracker(Callback):
    """Tells a tracker of a run. Without one it does not begin; what goes wrong later is said, once, and ends no run."""

    def __init__(self) -> None:
        self._on = False

    def begin(self, settings: config.Config, run: str) -> None:
        """Open the tracker's run for ours, which `run` names: the one that there is, if ours is resumed."""
        raise NotImplementedError

    def log(self, round: int, figures: Figures) -> None:
        """A round's figures, by their tags."""
        raise NotImplementedError

    def end(self, status: str, figures: Figures) -> None:
        """The run is over, with the figures of its summary."""
        raise NotImplementedError

    def on_run_start(self, settings: config.Config, where: list[str], first_round: int) -> None:
        """Open the tracker's run."""
        self.begin(settings, identity(settings))
        self._on = True

    def on_round_end(self, row: dict[str, Any]) -> None:
        """Hand the row on."""
        figures = {tag(name): value for name, value in numbers(row).items() if name != "round"}
        self._try(lambda: self.log(row["round"], figures))

    def on_run_end(self, summary: dict[str, Any], path: str) -> None:
        """Close the tracker's run."""
        figures = {f"summary/{name}": value for name, value in numbers(summary).items() if name != "schema_version"}
        self._try(lambda: self.end(summary["status"], figures))

    def _try(self, tell: Callable[[], None]) -> None:
        if not self._on:
            return
        try:
            tell()
        except Exception as error:  # noqa: BLE001  whatever the library says of it: nobody trains for a tracker's sake
            self._on = False
            name = type(self).__name__
            logger.warning("%s is told no more of this run: %s: %s", name, type(error).__name__, first_line(error))


def numbers(values: Mapping[str, Any]) -> Figures:
    """Those of the values that are numbers, and finite."""
    found = {k: v for k, v in values.items() if isinstance(v, int | float) and not isinstance(v, bool)}
    return {name: float(value) for name, value in found.items() if math.isfinite(value)}


def identity(settings: config.Config) -> str:
    """A name that no other run has, and that stays when the run is resumed: of its folder and its first start."""
    started = (known_summary(settings.run.folder) or {}).get("started")
    return hashlib.sha256(f"{settings.run.folder} {started} {settings.run.seed}".encode()).hexdigest()[:16]
