"""The runs in a folder: a run is a folder with a summary.json, wherever it lies in a comparison's or a sweep's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ray_split import config, filesystem, logs
from ray_split.command_line.flags import fields_of
from ray_split.config import text, yaml12
from ray_split.config.user_code.plugins import suggest
from ray_split.errors import SettingsError, first_line, shown
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
            wrong = f"{shown(str(path))} can't be read: {getattr(error, 'strerror', None) or error}"
            raise SettingsError("", str(self.folder), "Name another run", wrong) from error
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
            raise SettingsError("", str(folder), "Check the path", f"there is no folder {shown(str(folder))}")
        found = list(_found(folder, "", DEEPEST))
    except OSError as error:
        wrong = f"the folder {shown(str(folder))} can't be read: {error.strerror or first_line(error)}"
        raise SettingsError("", str(folder), "Name another folder", wrong) from error
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
        if _place(given).exists():
            raise no_run_folder(_place(given), SUMMARY)
    runs = runs_in(storage) if given is None or storage.exists() else []
    if given is None and runs:
        return runs[0]
    raise _no_run(given, storage, [run.name for run in runs])


LISTS = "'ray-split runs FOLDER' lists the runs in a folder"


def _no_run(given: str | None, storage: Place, names: list[str]) -> SettingsError:
    where = shown(str(storage))
    if given is None:
        do = "Train one with 'ray-split train', or say with --storage FOLDER where your runs are"
        return SettingsError("", given, do, f"there is no run in {where}")
    lists = f"'ray-split runs {storage}' lists the runs there"
    if not names:
        lists = "Give the folder of a run, or say with --storage FOLDER where your runs are"
    return SettingsError("", given, suggest(given, names, lists), f"there is no run {shown(given)} in {where}")


def no_run_folder(folder: Place, lacks: str = CONFIG) -> SettingsError:
    """What is said of a folder that is no run's: it isn't there, or lacks a file."""
    if not folder.exists():
        return SettingsError("", str(folder), "Give the folder of a run", f"there is no folder {shown(str(folder))}")
    do = f"Give the folder of one run. 'ray-split runs {folder}' lists the runs in it"
    return SettingsError("", str(folder), do, f"{shown(str(folder))} is not a run's folder: it has no {lacks}")


def storage_of(given: str | None, flag: str = "--storage") -> Place:
    """Where runs lie: as it was said, or where they go by default. Raises SettingsError that names the flag."""
    return _place(given if given is not None else str(config.Run().storage_path), flag)


def _place(path: str, flag: str = "") -> Place:
    try:
        return place(text.path(path))
    except SettingsError as error:
        raise error.of(flag) from error
    except ValueError as error:
        raise SettingsError(flag, path, str(error)) from error
