"""Whether a run's folder is its to write to, and where it goes on: before anything is started or written there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from ray_split import config, filesystem, logs
from ray_split.data.stream import Stream
from ray_split.errors import SettingsError, first_line
from ray_split.filesystem import Place, Uri
from ray_split.results import checkpoint, disk_reserve, folder_lock, rows
from ray_split.results.folder_lock import HeldError, Hold
from ray_split.results.left_behind import CONFIG, MODEL, PHONES, SUMMARY, known_summary, unreadable
from ray_split.results.rows import METRICS
from ray_split.schedules import schedule_of

MAY_DIFFER = (
    *("run.name", "run.storage_path", "run.rounds", "run.resume", "run.eval_every", "run.max_failures"),
    *("run.max_hours", "run.on_bad_phone", "run.log_format", "run.private", "checkpoint.", "cluster.", "server.lanes"),
)
"""Settings that may differ from the run that is resumed: they change how far, how often and where, not what.

So does server.replicas, where any number of them gives the same bits.
"""

MAPPINGS = ("kwargs", "left_out")
"""Fields that are compared whole."""

logger = logs.get(__name__)


class Claimed(NamedTuple):
    """A folder that is this run's alone until it is released."""

    settings: config.Config
    checkpoint: Place | None
    hold: Hold


def inherit(settings: config.Config) -> config.Config:
    """A resumed run keeps what `auto` was settled to when it began: a GPU and a CPU don't give the same bits."""
    if settings.run.resume == "never" or settings.server.num_gpus != "auto":
        return settings
    _check_place(settings)
    if not (settings.run.folder / CONFIG).exists():
        return settings
    return settings.with_values(server={"num_gpus": _before(settings).server.num_gpus})


@contextmanager
def claimed(settings: config.Config, any_name: bool = False) -> Iterator[Claimed]:
    """Have a run's folder alone, and see where it goes on; as `claim`. `any_name`: if it is taken, by another name."""
    found = next(found for name in _names(settings, any_name) if (found := _try(settings, name, any_name)))
    if filesystem.is_in_memory(found.hold.folder):
        logger.warning("%s is in this process's memory, and gone when the process ends", found.hold.folder)
    try:
        with filesystem.as_open_as(found.hold.folder):
            yield found
    finally:
        _release(found.hold)


def _names(settings: config.Config, any_name: bool) -> Iterator[str]:
    name = str(settings.run.name)
    yield name
    if any_name:
        yield from (f"{name}_{number}" for number in count(2))


def _try(settings: config.Config, name: str, any_name: bool) -> Claimed | None:
    """None if the name is taken, and another will do."""
    settings = settings.with_values(run={"name": name})
    try:
        _begun(settings)
        hold = _take(settings)
        try:
            disk_reserve.keep(hold.folder)
            return Claimed(settings, claim(settings, hold), hold)
        except BaseException:
            _release(hold)
            raise
    except SettingsError as error:
        if any_name and error.field == "run.name":
            return None
        raise
    except OSError as error:
        raise _unwritable(settings, error) from error


def _release(hold: Hold) -> None:
    if not hold.lost:
        disk_reserve.give(hold.folder)
    hold.release()


def _unwritable(settings: config.Config, error: Exception) -> SettingsError:
    allowed = f"a place that can be read and written to: {first_line(error)}"
    return SettingsError("run.storage_path", str(settings.run.folder.parent), allowed)


def _take(settings: config.Config) -> Hold:
    try:
        return folder_lock.take(settings.run.folder, settings.run.private)
    except HeldError as error:
        raise _held(settings, error) from None


def _held(settings: config.Config, error: HeldError) -> SettingsError:
    if settings.run.resume == "never":
        return SettingsError("run.name", settings.run.name, f"a name that is free: {error}")
    return SettingsError("run.resume", settings.run.resume, f"of a run that has ended: {error}")


def claim(settings: config.Config, hold: Hold | None = None) -> Place | None:
    """See that the output folder is this run's to write to; the checkpoint to resume from, None for a fresh start.

    That is the newest one that is whole, and before which no rows are missing. Raises SettingsError if the folder can't
    be written to, if somebody else writes there, if it holds another run or one with other settings, or if what it has
    can't be gone on from: nothing begins again unasked.
    """
    folder = settings.run.folder
    if not _begun(settings, hold):
        return None
    _check_same(settings, _before(settings).model_dump(mode="json"))
    _check_own(settings)
    found, lacking = rows.found(folder).rows, _lacking(folder)
    if len(found) > settings.run.rounds:
        raise SettingsError(
            "run.rounds", settings.run.rounds, f"at least {len(found)}: so many rounds are there already"
        )

    def checked(path: Place) -> Place:
        if told := [why for round, why in lacking.items() if round < checkpoint.round_of(path)]:
            raise checkpoint.CheckpointError(f"{told[0]}, which {path.name} can't make again")
        return checkpoint.checked(path)

    try:
        newest = checkpoint.newest(folder / checkpoint.FOLDER, checked)
    except checkpoint.CheckpointError as error:
        allowed = f"of a run that can be gone on with: {error}"
        raise SettingsError("run.resume", settings.run.resume, allowed) from error
    if newest is None:
        _check_lost(settings, found)
    return newest


def _begun(settings: config.Config, hold: Hold | None = None) -> bool:
    """Whether the folder holds a run that is to be gone on with. SettingsError if that can't be told from its files."""
    folder = settings.run.folder
    _check_place(settings)
    try:
        folder_lock.look(folder, hold.owner.token if hold else None)
    except HeldError as error:
        raise _held(settings, error) from None
    except OSError as error:
        raise _unwritable(settings, error) from error
    if all(folder_lock.passes(path) for path in filesystem.children(folder)):
        if settings.run.resume not in ("never", "auto"):
            raise SettingsError("run.resume", settings.run.resume, "the folder of a run")
        return False
    if not (folder / CONFIG).exists():
        if settings.run.resume != "never":
            allowed = f"of the folder of a run, with its {CONFIG}: {folder} holds something else"
            raise SettingsError("run.resume", settings.run.resume, allowed)
        raise SettingsError("run.name", settings.run.name, f"a name that is free: {folder} holds something else")
    if settings.run.resume == "never":
        allowed = f"a name that is free: {folder} holds a run (--run.resume goes on with it)"
        raise SettingsError("run.name", settings.run.name, allowed)
    return True


def _before(settings: config.Config) -> config.Config:
    """The settings of the run in the folder. Through Config, which fills in what there was not yet when it began."""
    path = settings.run.folder / CONFIG
    try:
        return config.Config.from_yaml(path)
    except SettingsError as error:
        allowed = f"of a run whose settings can be read; in {path} {error}"
        raise SettingsError("run.resume", settings.run.resume, allowed) from error


def _lacking(folder: Place) -> dict[int, str]:
    """Rounds of which something is not there that a checkpoint after them can't bring back, and what."""
    found = rows.found(folder).rows
    last = max([checkpoint.round_of(path) for path in checkpoint.complete(folder / checkpoint.FOLDER)], default=0)
    lacking = {n: f"{folder / METRICS} has no row of {rows.shown([n])}" for n in rows.missing(found, last)}
    with_phones = [row["round"] for row in found if row["round"] < last and row["phones"]]
    if not (folder / PHONES).exists():
        if with_phones:  # going on without it was chosen
            logger.warning("%s is not there: it begins anew, without the rounds before", folder / PHONES)
        return lacking
    return unreadable(folder, with_phones) | lacking


def _check_own(settings: config.Config) -> None:
    """Raises SettingsError where a run's file is a folder, or its summary is another run's."""
    folder = settings.run.folder
    for name in (METRICS, MODEL, SUMMARY):
        path = folder / name
        if isinstance(path, Path) and path.is_dir():
            raise SettingsError(
                "run.resume", settings.run.resume, f"of a run whose files are files: {path} is a folder"
            )
    seed = (known_summary(folder) or {}).get("seed", settings.run.seed)
    if seed != settings.run.seed:
        allowed = f"of a run with its own {SUMMARY}: the one in {folder} is of a run with seed {seed!r}; remove it"
        raise SettingsError("run.resume", settings.run.resume, allowed)


def _check_lost(settings: config.Config, found: list[rows.Row]) -> None:
    """Where no checkpoint is left a run begins anew, if it never had one. Raises SettingsError if it had."""
    folder = settings.run.folder
    had = _last_saved(folder, found, _before(settings).checkpoint.every)
    half_written = folder / checkpoint.FOLDER / f"{filesystem.PARTIAL}{checkpoint.folder_name(had)}"
    if (folder / MODEL).exists() or (had and not half_written.exists()):
        there = [name for name in (METRICS, MODEL) if (folder / name).exists()]
        allowed = (
            f"of a run with a checkpoint: none is left in {folder / checkpoint.FOLDER}, and what {' and '.join(there)} "
            f"hold would be lost; put the checkpoints back, or begin under another run.name"
        )
        raise SettingsError("run.resume", settings.run.resume, allowed)


def _last_saved(folder: Place, found: list[rows.Row], every: int) -> int:
    """The round of the last checkpoint that there must have been; 0 if there may have been none."""
    told = (known_summary(folder) or {}).get("checkpoint")
    if type(told) is int:
        return told
    last = max((row["round"] for row in found), default=0)  # its row comes after the checkpoint at its start
    return last // every * every


def check_quarantine(settings: config.Config, stream: Stream) -> None:
    """Raises SettingsError if a run went on without phones, and summary.json, which alone says which, is lost."""
    folder = settings.run.folder
    if known_summary(folder) is not None:
        return
    found = rows.found(folder).rows
    if any(row.get("left_out", 0) > stream.count_left_out(row["round"]) for row in found):
        allowed = f"of a run whose {SUMMARY} can be read: it alone says which phones the run goes on without"
        raise SettingsError("run.resume", settings.run.resume, allowed)
    if found:
        logger.warning("%s is not there or can't be read: made anew from the rows", folder / SUMMARY)


def _check_place(settings: config.Config) -> None:
    folder = settings.run.folder
    if isinstance(folder, Uri):
        if settings.run.private:
            raise SettingsError("run.private", True, "false at a URI: who may read there is the store's to say")
        _check_memory(settings, folder)
        _check_reached(folder)
        return
    try:
        there = next(path for path in (folder, *folder.parents) if path.exists())
        filesystem.children(folder)  # it may be read
    except (OSError, ValueError) as error:
        raise _unwritable(settings, error) from error
    if there.is_dir():
        return
    if there == folder:
        raise SettingsError("run.name", settings.run.name, f"a name that is free: {there} is a file")
    raise SettingsError("run.storage_path", settings.run.storage_path, f"a folder; {there} is a file")


def _check_memory(settings: config.Config, folder: Uri) -> None:
    if filesystem.is_in_memory(folder) and settings.cluster.backend == "ray":
        allowed = (
            "a place that all processes see: memory:// is one's own memory, and each of the run's actors has another"
        )
        raise SettingsError("run.storage_path", str(folder.parent), allowed)


def _check_reached(folder: Uri) -> None:
    try:
        filesystem.try_out(folder)
    except (OSError, ValueError, ImportError, NotImplementedError) as error:
        allowed = f"a local path, or a URI that can be written to: {type(error).__name__}: {first_line(error)}"
        raise SettingsError("run.storage_path", str(folder.parent), allowed) from None  # it may tell the credentials


def _check_same(settings: config.Config, before: dict[str, Any]) -> None:
    now, then = _flat(settings.model_dump(mode="json")), _flat(before)
    may = (*MAY_DIFFER, *(("server.replicas",) if schedule_of(settings.schedule).replicas == "same_bits" else ()))
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
