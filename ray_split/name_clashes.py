"""A user's folder or file that has the name of a package of ours, where Python looks first."""

from __future__ import annotations

from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from ray_split.errors import SettingsError, shown

PACKAGES = {"ray_split": "api.py", "actors": "inprocess.py"}  # what the wheel holds, and a file that tells it


def check_not_hidden() -> None:
    """See that our packages are what Python finds, here and in the actors' processes. Raises SettingsError."""
    for name, file in PACKAGES.items():
        found = _place(PathFinder.find_spec(name))  # not what is imported by now: what a new process would find
        if found is not None and not (found / file).is_file():  # of a checkout of ours, or of what is installed
            wrong = f"{shown(str(found))} has the same name as a package of ray-split, and Python finds it first"
            raise SettingsError("PYTHONPATH", str(found), f"Rename {found.name}, or start in another folder", wrong)


def _place(spec: ModuleSpec | None) -> Path | None:
    """The folder of a package, or a module's file; none of a folder that is no package and hides nothing."""
    if spec is None or spec.origin is None:
        return None
    file = Path(spec.origin).resolve()
    return file.parent if file.name == "__init__.py" else file
