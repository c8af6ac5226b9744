"""How the command ends: what went wrong, if anything did, and on the last line where the results are."""

from __future__ import annotations

import logging
import sys

from ray_split import logs
from ray_split.callbacks import Callback, progress

logger = logs.get(__name__)


class Ending(Callback):
    """Keeps where a run's results are, until all else is said: Ray has lines of its own at its end."""

    def __init__(self, log_format: str) -> None:
        self.callbacks: list[Callback] = [progress(log_format), self]
        self._format = log_format
        self._path: str | None = None

    def on_run_end(self, summary: dict[str, object], path: str) -> None:
        """The results are there, whatever the status."""
        self._path = path

    @property
    def began(self) -> bool:
        """Whether there was a run that ended."""
        return self._path is not None

    def say(self, complaint: str | None) -> None:
        """The last lines: to stderr what went wrong, to stdout the place; as JSON both to stderr."""
        if self._format == "json":
            self._log(complaint)
            return
        if complaint:
            print(complaint, file=sys.stderr, flush=True)
        if self._path:
            print(f"results: {self._path}", flush=True)

    def _log(self, complaint: str | None) -> None:
        with logs.written("json"), logs.run(self._path and self._path.rpartition("/")[2]):
            if complaint:
                logger.log(logging.ERROR, complaint)
            if self._path:
                logger.info("results: %s", self._path, extra=logs.about(results=self._path))
