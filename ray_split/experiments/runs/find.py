"""The runs in a folder: a run is a folder with a summary.json, wherever it lies in a comparison's or a sweep's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ray_split import config, filesystem, logs
from ray_split.command_line.flags import fields_of
from ray_split.config import text, yaml12
from ray_split.config.plugins import suggest
from ray_split.errors import SettingsError, first_line
from ray_split.filesystem import Place, place
from ray_split.results import folder_lock
from ray_split.results.left_behind import CONFIG, SUMMARY, read_summary
from ray_split.results.rows import Row, read_rows

DEEPEST = 4  # folders within folders: a sweep's runs lie two below it
KILLED = "killed"

logger = logs.get(__name__)


@dataclass(frozen=True)
class Run:
    """A run's folder, read when something of it is asked for."""

    name: str  # of its folder, below the one that was looked through
    folder: Place
    summary: dict[str, Any]

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The settings, by their names: `optimizer.lr` and so on. Raises SettingsError if they can't be read.

        As they stand in the file: a run of another version may have others than ours.
        """
        path = self.folder / CONFIG
        try:
            found = yaml12.read(path.read_bytes())
        except (OSError, ValueError) as error:
            raise SettingsError("RUN", str(self.folder), f"one with a {CONFIG} that can be read: {error}") from error
        return flat(found if isinstance(found, dict) else {})

    @cached_property
    def rows(self) -> list[Row]:
        """Its lines of metrics.jsonl."""
        return read_rows(self.folder)

    @cached_property
    def status(self) -> str:
        """As the summary has it; `killed` if it says running and nobody writes there."""
        status = str(self.summary["status"])
        return KILLED if status == "running" and not folder_lock.is_held(self.folder) else status


def flat(values: dict[str, Any]) -> dict[str, Any]:
    """The settings in sections, by their full names: `{optimizer: {lr: 0.1}}` as `{optimizer.lr: 0.1}`."""
    return {name: value for name, _ in fields_of(config.Config) if (value := _within(values, name)) is not MISSING}


MISSING = object()


def _within(values: Any, name: str) -> Any:
    for part in name.split("."):
        if not isinstance(values, dict) or part not in values:
            return MISSING
        values = values[part]
    return values


def runs_in(folder: Place) -> list[Run]:
    """The runs in a folder, the latest first. Raises SettingsError if it isn't there or can't be read."""
    try:
        if not folder.exists():
            raise SettingsError("folder", str(folder), "a folder with runs; there is none of this name")
        found = list(_found(folder, "", DEEPEST))
    except OSError as error:
        raise SettingsError("folder", str(folder), f"one that can be read: {first_line(error)}") from error
    return sorted(found, key=lambda run: (run.summary.get("started") or "", run.name), reverse=True)


def _found(folder: Place, name: str, deep: int) -> Iterator[Run]:
    if (folder / SUMMARY).exists():
        run = _read(folder, name or folder.name)
        if run is not None:
            yield run
    elif deep:
        for child in filesystem.folders(folder):
            yield from _found(child, f"{name}/{child.name}".lstrip("/"), deep - 1)


def _read(folder: Place, name: str) -> Run | None:
    try:
        return Run(name, folder, read_summary(folder))
    except SettingsError as error:
        logger.warning("passed over: %s", error)
        return None


def run_at(given: str | None, storage: Place) -> Run:
    """The run that somebody means: by its folder, by its name below `storage`, or, without a word, the latest there.

    Raises SettingsError for none, with the name that comes closest.
    """
    if given is not None:
        for folder in (_place(given), storage / given):
            if (folder / SUMMARY).exists():
                return Run(folder.name, folder, read_summary(folder))
    runs = runs_in(storage) if given is None or storage.exists() else []
    if given is None and runs:
        return runs[0]
    near = suggest(given or "", [run.name for run in runs])
    raise SettingsError("RUN", given, f"the folder of a run, or the name of one in --storage, {storage}{near}")


def storage_of(given: str | None) -> Place:
    """Where runs lie: as it was said, or where they go by default. Raises SettingsError."""
    return _place(given if given is not None else str(config.Run().storage_path))


def _place(path: str) -> Place:
    try:
        return place(text.path(path))
    except ValueError as error:
        raise SettingsError("folder", path, str(error)) from error
