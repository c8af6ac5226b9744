"""Finding what a setting names: one of ours, or `package.module:function` of the user's."""

from __future__ import annotations

import difflib
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from ray_split import scripts
from ray_split.failure import SettingsError, told

T = TypeVar("T")


def suggest(name: str, known: Iterable[str]) -> str:
    """'; did you mean X?' when a known name is close to `name`, else nothing."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def find(field: str, name: str, ours: Mapping[str, T]) -> T | Callable[..., Any]:
    """What `name` stands for: an entry of `ours`, or an object imported from 'package.module:function'.

    Raises SettingsError naming the field, the value and what it may be.
    """
    if name in ours:
        return ours[name]
    module_name, colon, attribute = name.partition(":")
    if not colon:
        known = ", ".join(sorted(ours))
        raise SettingsError(field, name, f"{known}, or package.module:function{suggest(name, ours)}")
    _import_from_here()
    try:
        found: Any = scripts.module(module_name)
    except (ImportError, ValueError, TypeError, SyntaxError) as error:
        raise SettingsError(field, name, f"an importable module: {error}") from error
    except Exception as error:  # the module's own
        raise SettingsError(field, name, f"a module that can be imported: {told(error)}") from error
    try:
        for part in attribute.split("."):
            found = getattr(found, part)
    except AttributeError as error:
        raise SettingsError(field, name, f"a function of {module_name}: {error}") from error
    if not callable(found):
        raise SettingsError(field, name, f"something that can be called, not a {type(found).__name__}")
    return found  # type: ignore[no-any-return]


def _import_from_here() -> None:
    """A console script starts with its own folder on sys.path, not the one the user stands in."""
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)


def call(field: str, function: Callable[..., T], kwargs: Mapping[str, Any], **offered: Any) -> T:
    """Call a model or data function with the user's kwargs, and of `offered` what its signature has a place for."""
    signature = inspect.signature(function)
    parameters = signature.parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    taken = {k: v for k, v in offered.items() if (k in parameters or takes_any) and v is not None}
    unknown = [k for k in kwargs if k not in parameters and not takes_any]
    if unknown:
        raise SettingsError(f"{field}.kwargs", ", ".join(unknown), f"of {', '.join(parameters) or 'nothing'}")
    try:
        signature.bind(**{**taken, **kwargs})
    except TypeError as error:
        raise SettingsError(f"{field}.kwargs", dict(kwargs), f"arguments of {function.__name__}: {error}") from error
    return function(**{**taken, **kwargs})
