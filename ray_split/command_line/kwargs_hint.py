"""Of a flag that there is not: whether it is an argument of the data's or the model's function, and how that is set."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from ray_split.errors import SettingsError

Arguments = Mapping[str, Collection[str]]
"""Of the sections `data` and `model`: what their functions take."""

PLAIN = re.compile(r"[\w.+-]+")


def kwargs_for(flag: str, value: str, arguments: Arguments, flags: Collection[str]) -> str:
    """How to set, by kwargs, what a flag that there is not is called after; '' if no function takes that.

    An argument that has a flag of its own, such as --model.num_classes, is set by that one.
    """
    *sections, last = flag.removeprefix("--").split(".")
    argument, shown = last.replace("-", "_"), value if PLAIN.fullmatch(value) else "..."
    for section, known in arguments.items():
        own = f"--{section}.{argument}" in flags
        if sections in ([], [section]) and argument in known and not own:
            return f"Write --{section}.kwargs '{{{argument}: {shown}}}'"
    return ""


def arguments_of(given: Mapping[str, Any]) -> Arguments:
    """What the functions take that flags name; and those of ours, of a section that names none that can be found."""
    from ray_split.config.user_code.plugins import find, signature_of  # here: a command that is right needs no torch
    from ray_split.data.sources.datasets import DATA_SETS
    from ray_split.models.registry import MODELS

    ours = {"data": DATA_SETS, "model": {name: known.build for name, known in MODELS.items()}}
    found = {}
    for section, functions in ours.items():
        field = f"{section}.name"
        try:
            chosen = [find(field, str(given[field]), functions)] if field in given else list(functions.values())
            found[section] = {each for one in chosen for each in signature_of(field, one).parameters}
        except SettingsError:  # the name of a library's model, or a wrong one, which is told once the flags are right
            found[section] = {each for one in functions.values() for each in signature_of(field, one).parameters}
    return found
