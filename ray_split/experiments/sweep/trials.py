"""A run as a trial of Ray Tune: the room it reserves, and its rounds reported one by one."""

from __future__ import annotations

import queue
import signal
import threading
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from actors.ray_backend.placement_group import nodes, room  # first: it sets what ray reads when it is imported
from ray_split.experiments.sweep.axes import settings_at
from ray.tune import PlacementGroupFactory, Trainable
from actors.resources import placement
from ray_split import config
from ray_split.api import fit
from ray_split.callbacks import Callback
from ray_split.errors import RunFailedError, RunStoppedError, SettingsError, told

NOT_FOLDERS = str.maketrans(dict.fromkeys("/\\: ", "_"))


def name_of(point: Mapping[str, Any]) -> str:
    """A folder for the run at a point: readable, and no two alike. A trial that is run again finds its own."""
    text = ",".join(f"{axis.rpartition('.')[2]}={value}" for axis, value in sorted(point.items()))
    return f"{text.translate(NOT_FOLDERS)[:80]}_{sha256(repr(sorted(point.items())).encode()).hexdigest()[:8]}"


def resources(base: config.Config, point: Mapping[str, Any]) -> PlacementGroupFactory:
    """The room of a trial's server and clients, had whole or not at all. The trial's own process asks for none."""
    settings, there = settings_at(base, point), list(nodes().values())
    wanted = placement.needs(settings, there)
    asked = room(wanted, placement.apart(settings, wanted))
    labels = {"bundle_label_selector": asked.labels} if asked.labels else {}
    return PlacementGroupFactory([{}, *asked.bundles], strategy=asked.strategy, **labels)


class Reports(Callback):
    """Hands each round's row to the trial, and goes on once it is taken. Raises RunStoppedError when told to stop."""

    def __init__(self, rows: queue.Queue[Any], stop: threading.Event) -> None:
        self._rows, self._stop = rows, stop

    def on_round_end(self, row: dict[str, Any]) -> None:
        """Tune decides by this row whether there is to be another."""
        self._rows.put({**row, "rounds": row["round"] + 1})
        self._check()

    def on_progress(self, round: int, done: int, total: int, samples_per_second: float) -> None:
        """Within a round too: a trial that is stopped gives its room back soon."""
        self._check()

    def _check(self) -> None:
        if self._stop.is_set():
            raise RunStoppedError(15)


class TrialFailedError(RuntimeError):
    """A run of the sweep failed: a line that says why."""


def _told(error: Exception) -> str:
    return " ".join(str(error).split()) if isinstance(error, (SettingsError, RunFailedError)) else told(error)


class Trial(Trainable):  # type: ignore[misc]
    """A run at a point of the search space. A step is a round; one that is stopped ends in order."""

    def setup(self, point: dict[str, Any], base: config.Config) -> None:
        """Start the run beside this thread; it resumes if it was begun before."""
        self._settings = settings_at(base, point).with_values(run={"name": name_of(point), "resume": "auto"})
        self._rows: queue.Queue[Any] = queue.Queue(maxsize=1)
        self._stop = threading.Event()
        self._last: dict[str, Any] = {}
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            result = fit(self._settings, [Reports(self._rows, self._stop)], progress=False)
            self._rows.put({"done": True, "path": str(result.path)})
        except Exception as error:  # noqa: BLE001  another thread raises it
            self._rows.put(error)
        except RunStoppedError:
            return

    def step(self) -> dict[str, Any]:
        """The next round's row. Raises TrialFailedError."""
        found = self._rows.get()
        if isinstance(found, Exception):
            raise TrialFailedError(_told(found)) from found
        self._last = {**self._last, **found}
        return self._last

    def save_checkpoint(self, folder: str) -> dict[str, Any]:
        """Nothing: the run keeps its own checkpoints, and a trial that begins again goes on from them."""
        return {}

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Nothing, as above."""

    def cleanup(self) -> None:
        """Stop the run, if it goes on: its actors go, and its summary says stopped."""
        self._stop.set()
        while self._thread.is_alive():
            self._drained()
            self._thread.join(1.0)
        # Nothing is left to be ended in order. Ray's own handler raises SystemExit, wherever that then comes up.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _drained(self) -> None:
        while not self._rows.empty():
            self._rows.get_nowait()
