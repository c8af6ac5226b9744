"""The variables and functions outside of a function that its code names: of its own module, and of others."""

from __future__ import annotations

import dis
import functools
import sys
from collections.abc import Iterator
from types import CodeType, FunctionType, ModuleType, SimpleNamespace
from typing import Any

from torch import nn

from ray_split.cutting.references import cells_of

DEPTH = 2  # calls that are followed
THEIRS = frozenset([*sys.stdlib_module_names, "torch", "torchvision", "numpy", "ray_split"])
ATTRIBUTES = ("LOAD_ATTR", "LOAD_METHOD", "STORE_ATTR")
BETWEEN = ("COPY", "DUP_TOP", "CACHE", "PUSH_NULL")


def reached(function: FunctionType, depth: int = DEPTH) -> Iterator[FunctionType]:
    """The function, and those that it calls by name, and these in turn; none of torch's or Python's own."""
    yield function
    named = [*globals_of(function), *cells_of(function).items()] if depth else []
    for _, value in named:
        if is_somebodys(value):
            yield from reached(value, depth - 1)


def is_somebodys(value: Any) -> bool:
    """Whether it is a function that is none of torch's or Python's own."""
    return isinstance(value, FunctionType) and not _is_theirs(value.__module__)


def globals_of(function: FunctionType) -> list[tuple[str, Any]]:
    """What a function's code names outside of it, by name: `x`, and of somebody's module `module.x`."""
    found: dict[str, Any] = {}
    for name, attribute in _named(function.__code__):
        value = function.__globals__.get(name)
        if not isinstance(value, ModuleType):
            found[name] = value
        elif attribute is not None and not _is_theirs(value.__name__):
            found[f"{name}.{attribute}"] = getattr(value, attribute, None)
    return sorted(found.items(), key=lambda item: item[0])


@functools.lru_cache(maxsize=10_000)
def _named(code: CodeType) -> tuple[tuple[str, str | None], ...]:
    """The globals that code names, and of each place the attribute of it that comes next."""
    instructions = [each for each in dis.get_instructions(code) if each.opname not in BETWEEN]
    pairs = zip(instructions, [*instructions[1:], None], strict=True)
    return tuple(dict.fromkeys(
        (one.argval, after.argval if after is not None and after.opname in ATTRIBUTES else None)
        for one, after in pairs if one.opname in ("LOAD_GLOBAL", "STORE_GLOBAL")
    ))  # fmt: skip


def is_record(value: Any) -> bool:
    """Whether it is an object of somebody's class, that may keep something; a class or a layer is none."""
    kind = type(value)
    if isinstance(value, (type, FunctionType, ModuleType, nn.Module)) or callable(value):
        return False
    return kind is SimpleNamespace or (hasattr(value, "__dict__") and not _is_theirs(kind.__module__))


def _is_theirs(module: str | None) -> bool:
    return (module or "builtins").partition(".")[0] in THEIRS
