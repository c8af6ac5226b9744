"""What a model keeps outside of its parameters and buffers: plain attributes, class attributes, globals, closures.

A snapshot is compared with a later one; nothing is ever put back.
"""

from __future__ import annotations

import ast
import collections
import enum
import functools
import inspect
import itertools
import random
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import fx, nn

from ray_split.cutting.outside_names import globals_of, is_record, is_somebodys, reached
from ray_split.cutting.references import DEPTH, INTERNAL, LONGEST, cells_of, slots_of

OUTSIDE = "the variable "  # begins the name of what is neither a layer's nor its class's
SIMPLE = (type(None), bool, int, str, bytes, complex, enum.Enum, type, torch.dtype, torch.device, range, slice)
SEQUENCES = (list, tuple, set, frozenset, collections.deque)


class Place(NamedTuple):
    """Where something is kept: a layer's name and class, and the attribute; or a variable that its code uses."""

    layer: str
    kind: type
    attribute: str

    def __str__(self) -> str:
        """As people name it, with the line that sets it where that is found."""
        line, owner = line_of(self.kind, self.attribute), f"{self.layer or 'the model'} ({self.kind.__name__})"
        outside = self.attribute.startswith(OUTSIDE)
        named = f"{self.attribute} that {owner} uses" if outside else f"{owner}.{self.attribute}"
        return named + (f" ({line})" if line else "")


Snapshot = dict[Place, Any]


def snapshot(model: nn.Module) -> Snapshot:
    """Everything that is kept in plain places, in a form to compare. Of torch's own layers numbers and words alone."""
    found: Snapshot = {}
    kinds: set[type] = set()
    known = frozenset(map(id, model.modules()))
    for name, module in model.named_modules():
        kind = type(module)
        own = {attribute: value for attribute, value in vars(module).items() if attribute not in INTERNAL}
        if kind.__module__.startswith("torch."):
            found |= {Place(name, kind, a): value for a, value in own.items() if isinstance(value, (int, float, str))}
            continue
        for attribute, value in own.items():
            found[Place(name, kind, attribute)] = frozen(value, known=known)
            if is_somebodys(value):
                found |= {Place(name, kind, variable): frozen(kept) for variable, kept in _outside(value)}
        if kind not in kinds:
            kinds.add(kind)
            found |= {Place(name, kind, attribute): frozen(value) for attribute, value in _of_class(kind)}
    return found


def changed(before: Snapshot, after: Snapshot) -> list[Place]:
    """What is another than it was."""
    absent = object()
    return [place for place, value in after.items() if before.get(place, absent) != value]


def _of_class(kind: type) -> Iterator[tuple[str, Any]]:
    """A class's own values, and the plain variables that its functions use from outside."""
    for owner in kind.__mro__:
        if owner.__module__.startswith(("torch.", "builtins")):
            continue
        for name, value in vars(owner).items():
            function = inspect.unwrap(value) if callable(value) else value
            if isinstance(function, FunctionType):
                yield from _outside(function)
            elif not name.startswith("__") and _is_plain(value):
                yield f"__class__.{name}", value


def _outside(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """The variables outside of a function that it uses, and those of the functions that it calls by name."""
    for each in reached(function):
        for name, value in globals_of(each):
            if _is_plain(value) or is_record(value):
                yield f"{OUTSIDE}{name}", value
        for name, value in cells_of(each).items():
            if _is_plain(value):
                yield f"{OUTSIDE}{name}", value


def proxied(model: nn.Module) -> list[Place]:
    """Where what tracing put in the place of values was kept, outside of the model."""
    kinds = dict.fromkeys(type(module) for module in model.modules())
    found = [(kind, attribute, value) for kind in kinds for attribute, value in _of_class(kind)]
    names = {type(module): name for name, module in reversed(list(model.named_modules()))}
    return [Place(names[kind], kind, attribute) for kind, attribute, value in found if _has_proxy(value)]


def _has_proxy(value: Any) -> bool:
    items = value.values() if isinstance(value, dict) else value if isinstance(value, SEQUENCES) else [value]
    return any(isinstance(item, fx.Proxy) for item in [*items, *getattr(value, "__dict__", {}).values()])


def _is_plain(value: Any) -> bool:
    kinds = (*SIMPLE, *SEQUENCES, float, dict, torch.Tensor, np.ndarray, itertools.count, *GENERATORS)
    return isinstance(value, kinds) and not isinstance(value, type)


GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)


def frozen(value: Any, depth: int = DEPTH, known: frozenset[int] = frozenset()) -> Any:
    """A value in a form that can be compared, and doesn't change with it. `known`: the model's layers, by their ids."""
    if isinstance(value, SIMPLE):
        return value
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, (nn.Parameter, fx.Proxy)) or id(value) in known or not depth:
        return type(value).__name__
    if isinstance(value, nn.Module):  # that is no layer of the model
        return _of_layer(value, depth, known)
    if isinstance(value, torch.Tensor):
        return _of_tensor(value)
    if isinstance(value, np.ndarray):
        return value.shape, str(value.dtype), value.tobytes() if value.dtype != object else None
    if isinstance(value, GENERATORS):
        return _of_generator(value)
    if isinstance(value, (dict, collections.UserDict)):
        return {str(key): frozen(item, depth - 1, known) for key, item in itertools.islice(value.items(), LONGEST)}
    if isinstance(value, SEQUENCES):
        items = [frozen(item, depth - 1, known) for item in itertools.islice(value, LONGEST)]
        return type(value).__name__, len(value), items
    if isinstance(value, itertools.count):
        return repr(value)
    if isinstance(value, MethodType):
        return frozen(value.__self__, depth - 1, known)
    if isinstance(value, functools.partial):
        return frozen([value.func, value.args, value.keywords], depth - 1, known)
    if isinstance(value, FunctionType):
        return frozen([vars(value), cells_of(value)], depth - 1, known)
    if isinstance(value, ModuleType):
        return value.__name__
    slots = {name: getattr(value, name) for name in slots_of(value) if hasattr(value, name)}
    return type(value).__name__, frozen({**getattr(value, "__dict__", {}), **slots}, depth - 1, known)


def _of_layer(layer: nn.Module, depth: int, known: frozenset[int]) -> Any:
    tensors = [_of_tensor(tensor) for tensor in (*layer.parameters(), *layer.buffers())]
    plain = [
        {a: frozen(v, depth - 1, known) for a, v in vars(module).items() if a not in INTERNAL}
        for module in layer.modules()
    ]
    return type(layer).__name__, tensors, plain


def _of_tensor(value: torch.Tensor) -> Any:
    described = tuple(value.shape), str(value.dtype), value._version
    if value.is_meta or value.is_sparse or not value.numel():
        return described
    return *described, torch.hash_tensor(value.detach().contiguous().cpu()).item()


def _of_generator(value: Any) -> Any:
    if isinstance(value, torch.Generator):
        return value.get_state().numpy().tobytes()
    if isinstance(value, np.random.Generator):
        return repr(value.bit_generator.state)
    return repr(value.get_state()) if isinstance(value, np.random.RandomState) else value.getstate()


def line_of(kind: type, attribute: str) -> str:
    """The line outside of __init__ at which a class's code names an attribute of its own, with its file; or nothing."""
    name, found = attribute.removeprefix(OUTSIDE).rpartition(".")[2], list[tuple[bool, str]]()
    outside = attribute.startswith(OUTSIDE)
    for owner in kind.__mro__:
        if owner.__module__.startswith(("torch.", "builtins")):
            continue
        for value in vars(owner).values():
            function = inspect.unwrap(value) if callable(value) else None
            if isinstance(function, FunctionType) and function.__name__ != "__init__":
                for each in reached(function) if outside else [function]:
                    found += _lines_of(each, name)
    return min(found, default=(False, ""))[1]


def _lines_of(function: FunctionType, name: str) -> list[tuple[bool, str]]:
    try:
        lines, first = inspect.getsourcelines(function)
        tree = ast.parse(textwrap.dedent("".join(lines)))
    except (OSError, TypeError, SyntaxError):  # made at run time, or a lambda within a line
        return []
    file = Path(function.__code__.co_filename).name
    return [(not sets, f"{file}:{first + line - 1}") for line, sets in _lines(tree, name)]


def _lines(tree: ast.Module, attribute: str) -> Iterator[tuple[int, bool]]:
    """Each line that names it, and whether it sets it."""
    for node in ast.walk(tree):
        own = isinstance(node, ast.Attribute) and node.attr == attribute
        if own or (isinstance(node, ast.Name) and node.id == attribute):
            assert isinstance(node, (ast.Attribute, ast.Name))
            yield node.lineno, isinstance(node.ctx, ast.Store)
