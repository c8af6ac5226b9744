"""The devices' tokens: who has one is a run's phone. Kept in a file that is its owner's alone."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Any

from ray_split.errors import SettingsError, shown

DEFAULT = "~/.ray_split/devices.json"
BYTES = 18  # 24 characters


def path_of(path: Path | None) -> Path:
    """The file of the tokens."""
    return (Path(DEFAULT) if path is None else path).expanduser().absolute()


def tokens_of(path: Path, count: int) -> list[str]:
    """The tokens of the first so many devices; those that are missing are made. Raises SettingsError."""
    kept = _read(path)
    if len(kept["devices"]) < count:
        kept["devices"] += [secrets.token_urlsafe(BYTES) for _ in range(count - len(kept["devices"]))]
        _write(path, kept)
    return list(kept["devices"][:count])


def operator_of(path: Path) -> str:
    """The token of who runs the gateway. Raises SettingsError."""
    kept = _read(path)
    if not kept["operator"]:
        kept["operator"] = secrets.token_urlsafe(BYTES)
        _write(path, kept)
    return str(kept["operator"])


def forget(path: Path) -> None:
    """Make all tokens void: of runs that begin from now on. Raises SettingsError."""
    _write(path, _empty())


def _empty() -> dict[str, Any]:
    return {"devices": [], "operator": ""}


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return _empty()
    except (OSError, ValueError) as error:
        raise _refused(path, error) from error
    fits = isinstance(found, dict) and found.keys() == _empty().keys() and isinstance(found["devices"], list)
    if not fits or not all(isinstance(token, str) for token in [*found["devices"], found["operator"]]):
        raise _refused(path, ValueError("it has no list of devices, or no operator"))
    return found


def _write(path: Path, kept: dict[str, Any]) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:  # noqa: PTH123  its mode
            json.dump(kept, file)
        partial.replace(path)
    except OSError as error:
        raise _refused(path, error) from error


def _refused(path: Path, error: Exception) -> SettingsError:
    wrong = f"{shown(str(path))} is no file of devices' tokens that can be used: {error}"
    return SettingsError("gateway.tokens", str(path), "Name another file, or remove this one", wrong)
