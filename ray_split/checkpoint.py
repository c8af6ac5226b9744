"""Checkpoints: the state at a round's start, written whole or not at all, and read without running any code.

checkpoints/round_000012/  a.safetensors b.safetensors c.safetensors checkpoint.json
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as dump_arrays

from ray_split.state import State

VERSION = 1
MANIFEST = "checkpoint.json"
FOLDER = "checkpoints"


class CheckpointError(RuntimeError):
    """A checkpoint that is incomplete, damaged, or of another version."""


def save(folder: Path, round: int, states: Iterable[tuple[str, State]], num_to_keep: int | None = None) -> Path:
    """Write the named states at the start of `round` under `folder`; then drop the oldest beyond `num_to_keep`."""
    final = folder / folder_name(round)
    partial = folder / f".partial_{final.name}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    checksums = {}
    for name, state in states:
        content = dump_arrays({key: np.asarray(array, order="C") for key, array in state.items()})
        _write(partial / f"{name}.safetensors", content)
        checksums[f"{name}.safetensors"] = hashlib.sha256(content).hexdigest()
    manifest: dict[str, Any] = {"version": VERSION, "round": round, "sha256": checksums}
    manifest["own_sha256"] = _checksum(manifest)
    _write(partial / MANIFEST, json.dumps(manifest, indent=1).encode())
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    _sync_folder(folder)
    for old in complete(folder)[: -num_to_keep if num_to_keep else 0]:
        shutil.rmtree(old)
    return final


def folder_name(round: int) -> str:
    """The name of a checkpoint's folder."""
    return f"round_{round:06d}"


def load(path: Path) -> tuple[int, dict[str, State]]:
    """The round that a checkpoint is the start of, and the states. Raises CheckpointError."""
    round, states = parts(path)
    return round, dict(states)


def parts(path: Path) -> tuple[int, Iterator[tuple[str, State]]]:
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


def _states(path: Path, checksums: dict[str, str]) -> Iterator[tuple[str, State]]:
    for name, checksum in checksums.items():
        with _telling(path):
            content = (path / name).read_bytes()
            if hashlib.sha256(content).hexdigest() != checksum:
                raise CheckpointError(f"{path / name} is damaged: its checksum differs")
            state = load_arrays(content)
        yield name.removesuffix(".safetensors"), state


@contextmanager
def _telling(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is not a complete checkpoint: {error}") from error


def complete(folder: Path) -> list[Path]:
    """The checkpoints under `folder` that were written to their end, oldest first."""
    return sorted(path.parent for path in folder.glob(f"round_*/{MANIFEST}"))


def write_model(path: Path, weights: State) -> None:
    """Write a model's state dict as safetensors, replacing what is there at once."""
    partial = path.with_name(f".partial_{path.name}")
    _write(partial, dump_arrays({key: np.asarray(array, order="C") for key, array in weights.items()}))
    partial.replace(path)


def _checksum(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
