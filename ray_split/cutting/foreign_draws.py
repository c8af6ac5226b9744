"""Random numbers of Python's or numpy's generators in a forward, found in its code: no run seeds them.

The trial of a cut model sees what a first forward draws. A draw that comes later, or now and then, is in the code.
"""

from __future__ import annotations

import dis
import inspect
import random
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import numpy as np
from torch import nn

from ray_split.cutting.cut_error import DRAW_FROM_TORCH
from ray_split.errors import SettingsError

LIBRARIES = ("torch", "torchvision", "timm", "transformers", "peft", "ray_split")


def check_draws(name: str, model: nn.Module) -> None:
    """Raises SettingsError for the first line of a layer's forward, or of what it calls there, that draws so."""
    for kind in {type(module): None for module in model.modules()}:
        if kind.__module__.partition(".")[0] in LIBRARIES:
            continue
        for function in _called(kind):
            for line, what in _draws(function):
                where = f"{Path(function.__code__.co_filename).name}:{line}"
                drawn = f"{kind.__name__} draws random numbers from {what} ({where}), which a run can't repeat"
                raise SettingsError("model.name", name, DRAW_FROM_TORCH, drawn)


def _called(kind: type) -> Iterator[FunctionType]:
    """A class's forward, and those of its methods that are named from there on."""
    names, seen = ["forward"], {"forward"}
    while names:
        function = inspect.unwrap(getattr(kind, names.pop(), None))  # type: ignore[arg-type]
        if not isinstance(function, FunctionType) or function.__module__.partition(".")[0] in LIBRARIES:
            continue
        yield function
        more = [n for n in _named(function.__code__) if n not in seen and callable(getattr(kind, n, None))]
        names += more
        seen |= {*more}


def _named(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _named(constant)


def _draws(function: FunctionType) -> Iterator[tuple[int, str]]:
    """The lines that load a function of such a generator, by a chain of names such as np.random.rand."""
    value: Any = None
    lines = {offset: line for offset, line in dis.findlinestarts(function.__code__)}
    line = function.__code__.co_firstlineno
    for instruction in dis.get_instructions(function):
        line, name = lines.get(instruction.offset) or line, str(instruction.argval)
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            value = function.__globals__.get(name)
        elif instruction.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            value = getattr(value, name, None)
        else:
            value = None
        if what := _generator_of(value):
            yield line, what


def _generator_of(value: Any) -> str | None:
    """Whose generator a function draws from, if it is one of a module's own."""
    owner = getattr(value, "__self__", None)
    if owner is getattr(random.random, "__self__", None):
        return "Python's random"
    return "numpy" if owner is not None and owner is getattr(np.random.rand, "__self__", None) else None
