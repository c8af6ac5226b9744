"""A digest of what a function, a class or an object is: of its code, not its name, and of what that code uses.

It is the same in every process of one version of Python, while what it is of is the same; comments and where it stands
don't count. What can be imported counts by its name.
"""

from __future__ import annotations

import dis
import functools
import hashlib
import pickle
import sys
from collections.abc import Iterator
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

LETTERS = 12

ATOMS = (type(None), bool, int, float, complex, str, bytes, type(...))
NAMED = (FunctionType, BuiltinFunctionType, type)
PASSING = ("__dict__", "__weakref__", "__module__", "__firstlineno__", "__static_attributes__", "_abc_impl")
"""Of a class, what says nothing of what it does."""

UNREADABLE = (TypeError, ValueError, AttributeError, NotImplementedError, RuntimeError, pickle.PicklingError)
"""What objects raise that can't be taken apart: an open file, a lock."""


def digest(value: Any) -> str:
    """Twelve hexadecimal digits."""
    parts = _Parts()
    parts.add(value)
    return parts.hash.hexdigest()[:LETTERS]


def importable(value: Any) -> str | None:
    """'package.module:name', if that is where it is found in every process; None of what `__main__` has, and others."""
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if not isinstance(value, NAMED) or module in (None, "__main__") or name is None:
        return None
    try:
        found = functools.reduce(getattr, name.split("."), sys.modules[module])
    except (KeyError, AttributeError):
        return None
    return f"{module}:{name}" if found is value else None


class _Parts:
    """Takes a value apart, and hashes the parts in an order that is always the same."""

    def __init__(self) -> None:
        self.hash = hashlib.sha256()
        self._seen: dict[int, tuple[int, Any]] = {}  # by id: the how-manyth, and the object, which keeps the id taken

    def _say(self, kind: str, content: bytes = b"") -> None:
        self.hash.update(f"{kind} {len(content)} ".encode() + content)

    def add(self, value: Any) -> None:
        """Hash one more value."""
        if isinstance(value, ATOMS):
            self._say(type(value).__name__, repr(value).encode("utf-8", "backslashreplace"))
        elif (name := importable(value)) is not None:
            self._say("import", name.encode())
        elif type(value) is tuple:  # equal ones may be one or several, as the compiler likes
            self._several("tuple", value)
        elif id(value) in self._seen:
            self._say("again", str(self._seen[id(value)][0]).encode())
        else:
            self._seen[id(value)] = len(self._seen), value
            self._new(value)

    def _several(self, kind: str, values: Any) -> None:
        self._say(kind, str(len(values)).encode())
        for each in values:
            self.add(each)

    def _new(self, value: Any) -> None:
        if isinstance(value, CodeType):
            self._several("code", _of_code(value))
        elif isinstance(value, FunctionType):
            self._several("function", list(_of_function(value)))
        elif isinstance(value, type):
            self._several("class", list(_of_class(value)))
        elif isinstance(value, MethodType):
            self._several("method", [value.__func__, value.__self__])
        elif isinstance(value, (staticmethod, classmethod)):
            self._several(type(value).__name__, [value.__func__])
        elif isinstance(value, property):
            self._several("property", [value.fget, value.fset, value.fdel])
        elif isinstance(value, ModuleType):
            self._say("module", value.__name__.encode())
        elif isinstance(value, (set, frozenset)):
            self._several("set", sorted(digest(each) for each in value))
        elif type(value) is list:
            self._several("list", value)
        elif type(value) is dict:
            self._several("dict", [part for item in value.items() for part in item])
        elif (array := _as_array(value)) is not None:
            self._say(f"{value.dtype} {tuple(value.shape)}", array.tobytes())
        else:
            self._object(value)

    def _object(self, value: Any) -> None:
        """By what pickle would write of it; of what can't be pickled the class is all."""
        try:
            reduced = value.__reduce_ex__(4)
            parts = [list(part) if isinstance(part, Iterator) else part for part in reduced]
        except UNREADABLE:
            parts = [type(value)]
        self._several("object", parts)


def _of_code(code: CodeType) -> list[Any]:
    counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    return [code.co_code, code.co_consts, code.co_names, code.co_varnames, code.co_freevars, counts]


def _of_function(function: FunctionType) -> Iterator[Any]:
    yield from (function.__code__, function.__defaults__, function.__kwdefaults__, function.__dict__)
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield from (name, cell.cell_contents)
        except ValueError:  # empty as yet
            yield name
    for name in sorted(set(_globals_of(function.__code__))):
        if name in function.__globals__:
            yield from (name, function.__globals__[name])


def _globals_of(code: CodeType) -> Iterator[str]:
    """The global names that code uses, that within it too."""
    yield from (each.argval for each in dis.get_instructions(code) if each.opname in ("LOAD_GLOBAL", "LOAD_NAME"))
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _globals_of(inner)


def _of_class(kind: type) -> Iterator[Any]:
    yield from (kind.__qualname__, kind.__bases__)
    for name, value in sorted(vars(kind).items()):
        if name not in PASSING:
            yield from (name, value)


def _as_array(value: Any) -> Any:
    """A numpy array as it is, a tensor as its bytes; None of anything else. Imports neither library."""
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        flat = value.detach().cpu().contiguous().flatten()
        return flat.view(torch.uint8).numpy()
    is_array = numpy is not None and isinstance(value, numpy.ndarray) and not value.dtype.hasobject
    return value if is_array else None
