"""Whether a run's folder is its to write to, and where it goes on: before anything is started or written there."""

from __future__ import annotations

from typing import Any

from ray_split import checkpoint, config, storage
from ray_split.failure import SettingsError, first_line
from ray_split.records import CONFIG
from ray_split.schedules import same_with_replicas
from ray_split.storage import PARTIAL, Place, Uri

MAY_DIFFER = (
    *("run.name", "run.storage_path", "run.rounds", "run.resume", "run.eval_every", "run.max_failures"),
    *("run.max_hours", "run.on_bad_phone", "run.log_format", "checkpoint.", "cluster.", "server.lanes"),
)
"""Settings that may differ from the run that is resumed: they change how far, how often and where, not what.

So does server.replicas, where any number of them gives the same bits.
"""

MAPPINGS = ("kwargs", "left_out")
"""Fields that are compared whole."""


def inherit(settings: config.Config) -> config.Config:
    """A resumed run keeps what `auto` was settled to when it began: a GPU and a CPU don't give the same bits."""
    path = settings.run.folder / CONFIG
    if settings.run.resume == "never" or settings.server.num_gpus != "auto":
        return settings
    _check_place(settings)
    if not path.exists():
        return settings
    return settings.with_values(server={"num_gpus": config.Config.from_yaml(path).server.num_gpus})


def claim(settings: config.Config) -> Place | None:
    """See that the output folder is this run's to write to; the checkpoint to resume from, None for a fresh start.

    That is the newest one that is whole. Raises SettingsError if the folder can't be written to, if it holds another
    run or one with other settings, or if it has checkpoints and none is whole.
    """
    folder = settings.run.folder
    _check_place(settings)
    if all(path.name.startswith(PARTIAL) for path in storage.children(folder)):
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
    try:
        return checkpoint.newest(folder / checkpoint.FOLDER, checkpoint.checked)
    except checkpoint.CheckpointError as error:
        raise SettingsError("run.resume", settings.run.resume, f"of a run with a checkpoint: {error}") from error


def _check_place(settings: config.Config) -> None:
    folder = settings.run.folder
    if isinstance(folder, Uri):
        _check_reached(folder)
        return
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if there.is_dir():
        return
    if there == folder:
        raise SettingsError("run.name", settings.run.name, f"a name that is free: {there} is a file")
    raise SettingsError("run.storage_path", settings.run.storage_path, f"a folder; {there} is a file")


def _check_reached(folder: Uri) -> None:
    try:
        storage.try_out(folder)
    except (OSError, ValueError, ImportError, NotImplementedError) as error:
        allowed = f"a local path, or a URI that can be written to: {type(error).__name__}: {first_line(error)}"
        raise SettingsError("run.storage_path", str(folder.parent), allowed) from None  # it may tell the credentials


def _check_same(settings: config.Config, before: dict[str, Any]) -> None:
    now, then = _flat(settings.model_dump(mode="json")), _flat(before)
    may = (*MAY_DIFFER, *(("server.replicas",) if same_with_replicas(settings.schedule) else ()))
    names = [n for n in now if now[n] != then.get(n) and not n.startswith(may)]
    if names:
        was = "; ".join(f"{n} was {then.get(n)!r}" for n in names)
        allowed = f"as in the run that is resumed: {was}"
        raise SettingsError(", ".join(names), [now[n] for n in names], allowed)


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict) and name not in MAPPINGS:
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found
