"""Checkpoints: the state at a round's start, written whole or not at all, and read without running any code.

checkpoints/round_000012/  a.safetensors b.safetensors c.safetensors checkpoint.json

Whatever is cut off while one is written or dropped, those before it are untouched and what is half there is not taken
for one. On this machine a checkpoint is written beside its place and renamed. At a URI, where a folder can't be renamed
at once, its manifest is written last, and is the first to go.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from ray_split import filesystem, logs
from ray_split.filesystem import PARTIAL, Place, Uri
from ray_split.messages import tensors
from ray_split.messages.state import State

VERSION = 1
MANIFEST = "checkpoint.json"
FOLDER = "checkpoints"
NAME = re.compile(r"round_(\d{6,})")

T = TypeVar("T")
logger = logs.get(__name__)


class CheckpointError(RuntimeError):
    """A checkpoint that is incomplete, damaged, or of another version."""


def save(folder: Place, round: int, states: Iterable[tuple[str, State]], num_to_keep: int | None = None) -> Place:
    """Write the named states at the start of `round` under `folder`; then drop the oldest beyond `num_to_keep`.

    What was left half-written is dropped too.
    """
    final = folder / folder_name(round)
    written = _begin(final)
    checksums = {}
    for name, state in states:
        content = tensors.dump(state)
        filesystem.write(written / f"{name}.safetensors", content)
        checksums[f"{name}.safetensors"] = hashlib.sha256(content).hexdigest()
    manifest: dict[str, Any] = {"version": VERSION, "round": round, "sha256": checksums}
    manifest["own_sha256"] = _checksum(manifest)
    filesystem.write(written / MANIFEST, json.dumps(manifest, indent=1).encode())
    _end(written, final)
    cut(folder, round, num_to_keep)
    return final


def cut(folder: Place, round: int, num_to_keep: int | None = None) -> None:
    """Drop what is no checkpoint of the start of `round` or before, and the oldest of those that are."""
    kept = [path for path in complete(folder) if round_of(path) <= round][-(num_to_keep or 0) :]
    for path in filesystem.children(folder):
        if path.name.startswith(PARTIAL) or (NAME.fullmatch(path.name) and path not in kept):
            _drop(path)


def _begin(final: Place) -> Place:
    """An empty folder to write the checkpoint into."""
    if not isinstance(final, Path):
        _drop(final)
        return final
    written = final.with_name(PARTIAL + final.name)
    filesystem.remove(written)
    written.mkdir(parents=True)
    return written


def _end(written: Place, final: Place) -> None:
    if not (isinstance(written, Path) and isinstance(final, Path)):
        return
    filesystem.sync_folder(written)
    _set_aside(final)
    written.rename(final)
    filesystem.sync_folder(final.parent)


def _set_aside(path: Path) -> Path:
    """Under another name a checkpoint is none any more, however little of it has been removed."""
    aside = path.with_name(f"{PARTIAL}old_{path.name}")
    filesystem.remove(aside)
    return path.rename(aside) if path.exists() else aside


def _drop(path: Place) -> None:
    if isinstance(path, Path):
        filesystem.remove(path if path.name.startswith(PARTIAL) else _set_aside(path))
        return
    filesystem.remove(path / MANIFEST)
    filesystem.remove(path)


def folder_name(round: int) -> str:
    """The name of a checkpoint's folder."""
    return f"round_{round:06d}"


def round_of(path: Place) -> int:
    """The round that a checkpoint is the start of, by its folder's name."""
    return int(path.name.rpartition("_")[2])


def load(path: Place) -> tuple[int, dict[str, State]]:
    """The round that a checkpoint is the start of, and the states. Raises CheckpointError."""
    round, states = parts(path)
    return round, dict(states)


def parts(path: Place) -> tuple[int, Iterator[tuple[str, State]]]:
    """As `load`, but one state in memory at a time. Raises CheckpointError, also while the states are read."""
    with _telling(path):
        manifest = json.loads((path / MANIFEST).read_text())
        if manifest["version"] != VERSION:
            raise CheckpointError(f"{path}: version {manifest['version']}, this is version {VERSION}")
        if manifest.pop("own_sha256") != _checksum(manifest):
            raise CheckpointError(f"{path / MANIFEST} is damaged: its checksum differs")
        if path.name != folder_name(manifest["round"]):
            raise CheckpointError(f"{path} says that it is of round {manifest['round']}")
        return int(manifest["round"]), _states(path, dict(manifest["sha256"]))


def _states(path: Place, checksums: dict[str, str]) -> Iterator[tuple[str, State]]:
    for name, checksum in checksums.items():
        with _telling(path):
            content = (path / name).read_bytes()
            if hashlib.sha256(content).hexdigest() != checksum:
                raise CheckpointError(f"{path / name} is damaged: its checksum differs")
            state = tensors.load(content)
        yield name.removesuffix(".safetensors"), state


@contextmanager
def _telling(path: Place) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(path, Uri) and isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
            raise  # what can't be reached now is not damaged
        raise CheckpointError(f"{path} is not a complete checkpoint: {error}") from error


def complete(folder: Place) -> list[Place]:
    """The checkpoints under `folder` that were written to their end, oldest first. What is in them is not read."""
    return [path for path in _named(folder) if (path / MANIFEST).exists()]


def _named(folder: Place) -> list[Place]:
    return sorted((path for path in filesystem.children(folder) if NAME.fullmatch(path.name)), key=round_of)


def newest(folder: Place, take: Callable[[Place], T]) -> T | None:
    """What `take` makes of the newest checkpoint that it does not raise CheckpointError for; None if there is none.

    Says which it passes over. Raises CheckpointError if there are some, and none is whole.
    """
    # Here nothing that was cut off leaves such a folder without a manifest: it was lost later. At a URI it does.
    there = _named(folder) if isinstance(folder, Path) else complete(folder)
    problems: list[CheckpointError] = []
    for path in reversed(there):
        try:
            taken = take(path)
        except CheckpointError as error:
            problems.append(error)
            continue
        for problem in problems:
            logger.warning("%s; going on from the checkpoint before it", problem)
        return taken
    if problems:
        raise CheckpointError(f"none of the checkpoints in {folder} can be used: {problems[-1]}") from problems[-1]
    return None


def checked(path: Place) -> Place:
    """The checkpoint, once all of it has been read. Raises CheckpointError."""
    for _ in parts(path)[1]:
        pass
    return path


def write_model(path: Place, weights: State) -> None:
    """Write a model's state dict as safetensors, replacing what is there at once."""
    filesystem.write(path, tensors.dump(weights))


def _checksum(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
