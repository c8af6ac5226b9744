"""Whether a run's folder is its to write to, and where it goes on: before anything is started or written there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from ray_split import config, filesystem, logs
from ray_split.config.user_code.by_value import BEGINS
from ray_split.data.stream import Stream
from ray_split.errors import SettingsError, first_line, listed, shown
from ray_split.filesystem import Place, Uri
from ray_split.results import checkpoint, disk_reserve, folder_lock, rows
from ray_split.results.folder_lock import HeldError, Hold
from ray_split.results.left_behind import CONFIG, MODEL, PHONES, SUMMARY, known_summary, unreadable
from ray_split.results.rows import METRICS
from ray_split.schedules import schedule_of

MAY_DIFFER = (
    "model.input_shape",  # as the data has it, which may not differ; older runs don't tell it
    *("run.name", "run.storage_path", "run.rounds", "run.resume", "run.eval_every", "run.max_failures"),
    *("run.stop", "run.callbacks", "run.test_every", "run.sample"),
    *("run.max_hours", "run.on_bad_phone", "run.log_format", "run.private", "checkpoint.", "cluster.", "server.lanes"),
    *("run.min_phones", "run.wait_for_phones", "gateway."),
    "data.decoders",
    "server.memory_fraction",
    "server.activation_checkpointing",  # the same bits
    "server.chunk",  # asked for otherwise, a smaller GPU can go on, to other last bits
    "server.num_cpus",  # as cluster.cpus_per_client: asked for otherwise, another machine can go on, to other last bits
)
"""Settings that may differ from the run that is resumed: they change how far, how often and where, not what.

So does server.replicas, where any number of them gives the same bits.
"""

SETTLED = {"num_gpus": "server", "num_cpus": "server", "cpus_per_client": "cluster"}
"""Settings, with their sections, that are auto until a run begins, and on which bits depend."""

MAPPINGS = ("kwargs", "left_out", "chunk")
"""Fields that are compared whole."""

logger = logs.get(__name__)


class Claimed(NamedTuple):
    """A folder that is this run's alone until it is released."""

    settings: config.Config
    checkpoint: Place | None
    hold: Hold


def inherit(settings: config.Config) -> config.Config:
    """A resumed run keeps what `auto` was settled to when it began, as far as bits depend on it: GPUs, and threads."""
    asked = {name: getattr(getattr(settings, section), name) for name, section in SETTLED.items()}
    if settings.run.resume == "never" or "auto" not in asked.values():
        return settings
    _check_place(settings)
    if not (settings.run.folder / CONFIG).exists():
        return settings
    before, values = _before(settings), dict[str, dict[str, Any]]()
    for name, section in SETTLED.items():
        if asked[name] == "auto":
            values.setdefault(section, {})[name] = getattr(getattr(before, section), name)
    return settings.with_values(**values)


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
    there = str(settings.run.folder.parent)
    wrong = f"{shown(there)} can't be read or written to: {first_line(error)}"
    return SettingsError("run.storage_path", there, "Set run.storage_path to another folder", wrong)


def _take(settings: config.Config) -> Hold:
    try:
        return folder_lock.take(settings.run.folder, settings.run.private)
    except HeldError as error:
        raise _held(settings, error) from None


FREE = "Choose another run.name"
A_RUN = "Give the folder of a run. 'ray-split runs FOLDER' lists the runs in a folder"
ANEW = "start a new run with another run.name"


def _held(settings: config.Config, error: HeldError) -> SettingsError:
    if settings.run.resume == "never":
        return SettingsError("run.name", settings.run.name, FREE, f"{shown(settings.run.name)} is in use: {error}")
    wrong = f"the run {shown(settings.run.name)} has not ended: {error}"
    return SettingsError("run.resume", settings.run.resume, "Wait until it has ended, or stop it", wrong)


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
        wrong = f"is {settings.run.rounds}, but the run already has {len(found)} rounds"
        raise SettingsError("run.rounds", settings.run.rounds, f"Set {len(found)} or more", wrong)

    def checked(path: Place) -> Place:
        if told := [why for round, why in lacking.items() if round < checkpoint.round_of(path)]:
            raise checkpoint.CheckpointError(f"{told[0]}, which {path.name} can't make again")
        return checkpoint.checked(path)

    try:
        newest = checkpoint.newest(folder / checkpoint.FOLDER, checked)
    except checkpoint.CheckpointError as error:
        wrong = f"the run in {shown(str(folder))} can't be resumed: {error}"
        raise SettingsError("run.resume", settings.run.resume, f"Resume another run, or {ANEW}", wrong) from error
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
            raise SettingsError("run.resume", settings.run.resume, A_RUN, f"there is no run in {shown(str(folder))}")
        return False
    if not (folder / CONFIG).exists():
        if settings.run.resume != "never":
            wrong = f"{shown(str(folder))} is not a run's folder: it has no {CONFIG}"
            raise SettingsError("run.resume", settings.run.resume, A_RUN, wrong)
        raise SettingsError(
            "run.name", settings.run.name, FREE, f"the folder {shown(str(folder))} exists and is not a run's"
        )
    if settings.run.resume == "never" and _came_to_nothing(folder):
        if hold is not None:
            logger.warning("%s: a run of this name failed before it had a round, and is replaced", folder)
        return False
    if settings.run.resume == "never":
        wrong = f"{shown(str(folder))} already holds a run"
        raise SettingsError("run.name", settings.run.name, f"{FREE}, or resume that run with --run.resume", wrong)
    return True


def _came_to_nothing(folder: Place) -> bool:
    """Whether a folder's run failed without a round: nothing of it is worth keeping."""
    if (known_summary(folder) or {}).get("status") != "failed" or (folder / MODEL).exists():
        return False
    empty = not (folder / METRICS).exists() or not (folder / METRICS).read_bytes().strip()
    return empty and not checkpoint.complete(folder / checkpoint.FOLDER)


def _before(settings: config.Config) -> config.Config:
    """The settings of the run in the folder. Through Config, which fills in what there was not yet when it began."""
    path = settings.run.folder / CONFIG
    try:
        return config.Config.from_yaml(path)
    except SettingsError as error:
        said = error.of("") if error.field == "--config" else error  # nobody gave that flag
        wrong = f"the settings of the run can't be used: {said}"
        raise SettingsError("run.resume", settings.run.resume, "", wrong) from error


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
            wrong = f"{shown(str(path))} is a folder, but must be a file"
            raise SettingsError("run.resume", settings.run.resume, f"Move that folder away, or {ANEW}", wrong)
    seed = (known_summary(folder) or {}).get("seed", settings.run.seed)
    if seed != settings.run.seed:
        wrong = f"{SUMMARY} in {shown(str(folder))} is from another run, with seed {seed!r}"
        raise SettingsError("run.resume", settings.run.resume, f"Remove {SUMMARY}, or {ANEW}", wrong)


def _check_lost(settings: config.Config, found: list[rows.Row]) -> None:
    """Where no checkpoint is left a run begins anew, if it never had one. Raises SettingsError if it had."""
    folder = settings.run.folder
    had = _last_saved(folder, found, _before(settings).checkpoint.every)
    half_written = folder / checkpoint.FOLDER / f"{filesystem.PARTIAL}{checkpoint.folder_name(had)}"
    if (folder / MODEL).exists() or (had and not half_written.exists()):
        there = [name for name in (METRICS, MODEL) if (folder / name).exists()]
        wrong = (
            f"there is no checkpoint in {shown(str(folder / checkpoint.FOLDER))} to resume from, "
            f"and what {listed(there)} has would be lost"
        )
        raise SettingsError("run.resume", settings.run.resume, f"Put the checkpoints back, or {ANEW}", wrong)


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
        wrong = f"{SUMMARY} in {shown(str(folder))} can't be read, and only there it says which phones were left out"
        raise SettingsError("run.resume", settings.run.resume, f"Put {SUMMARY} back, or {ANEW}", wrong)
    if found:
        logger.warning("%s is not there or can't be read: made anew from the rows", folder / SUMMARY)


def _check_place(settings: config.Config) -> None:
    folder = settings.run.folder
    if isinstance(folder, Uri):
        if settings.run.private:
            raise SettingsError("run.private", True, "false at a URI, because the store decides who may read")
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
        raise SettingsError("run.name", settings.run.name, FREE, f"{shown(str(there))} is a file")
    storage = settings.run.storage_path
    raise SettingsError(
        "run.storage_path",
        storage,
        "Set run.storage_path to another folder",
        f"{shown(storage)} can't be a folder, because {there} is a file",
    )


def _check_memory(settings: config.Config, folder: Uri) -> None:
    if filesystem.is_in_memory(folder) and settings.cluster.backend == "ray":
        wrong = f"{shown(str(folder.parent))} is in the memory of one process, which the run's actors don't see"
        raise SettingsError(
            "run.storage_path", str(folder.parent), "Set a folder, or a URI such as s3://bucket/folder", wrong
        )


def _check_reached(folder: Uri) -> None:
    try:
        filesystem.try_out(folder)
    except (OSError, ValueError, ImportError, NotImplementedError) as error:
        there = str(folder.parent)
        wrong = f"{shown(there)} can't be written to: {type(error).__name__}: {first_line(error)}"
        allowed = "Set run.storage_path to a local path, or another URI"
        raise SettingsError("run.storage_path", there, allowed, wrong) from None  # it may tell the credentials


def _check_same(settings: config.Config, before: dict[str, Any]) -> None:
    now, then = _flat(settings.model_dump(mode="json")), _flat(before)
    may = (*MAY_DIFFER, *(("server.replicas",) if schedule_of(settings.schedule).replicas == "same_bits" else ()))
    names = [n for n in now if now[n] != then.get(n) and not n.startswith(may)]
    if names:
        was = "; ".join(f"{n} was {then.get(n)!r}, not {now[n]!r}" for n in names)
        if any(BEGINS in str(now[n]) and BEGINS in str(then.get(n)) for n in names):
            was += " (its code, what that uses, or the data has changed)"
        wrong = f"can't change when a run is resumed: {was}"
        raise SettingsError(
            ", ".join(names),
            [now[n] for n in names],
            f"Set {'that' if len(names) == 1 else 'these'} as before, or {ANEW}",
            wrong,
        )


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict) and name not in MAPPINGS:
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found
