"""Finding what a setting names: one of ours, or `package.module:function` of the user's."""

from __future__ import annotations

import difflib
import importlib
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ray_split.config import scripts
from ray_split.errors import SettingsError, told

T = TypeVar("T")
R = TypeVar("R")

PASS_ON = (KeyboardInterrupt, scripts.TrainsWhenImportedError)
"""What is no fault of who raised it: somebody stops us, or we stopped an import."""

_untrusted: ContextVar[str | None] = ContextVar("untrusted", default=None)


@contextmanager
def named_by(folder: object, trust: bool) -> Iterator[None]:
    """Within this the settings are those that a folder holds: unless it is trusted, only names of ours are found.

    Whoever writes to a folder could name anything; `os:system` is a function too.
    """
    token = _untrusted.set(None if trust else str(folder))
    try:
        yield
    finally:
        _untrusted.reset(token)


def suggest(name: str, known: Iterable[str]) -> str:
    """'; did you mean X?' when a known name is close to `name`, else nothing."""
    close = difflib.get_close_matches(name[:100], list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def find(field: str, name: str, ours: Mapping[str, T]) -> T | Callable[..., Any]:
    """What `name` stands for: an entry of `ours`, or an object imported from 'package.module:function'.

    Raises SettingsError naming the field, the value and what it may be; also for what is not to be imported unasked.
    """
    if name in ours:
        return ours[name]
    found = _imported(field, name, ours)
    if not callable(found):
        raise SettingsError(field, name, f"something that can be called, not a {type(found).__name__}")
    return found  # type: ignore[no-any-return]


def find_record(field: str, name: str, ours: Mapping[str, R], kind: type[R]) -> R:
    """As `find`, where entries are records; of a bare function of the user's it is a record with the defaults.

    Raises SettingsError.
    """
    if name in ours:
        return ours[name]
    found = _imported(field, name, ours)
    if isinstance(found, kind):
        return found
    if not callable(found):
        allowed = f"a function or a {called(kind)}, not a {type(found).__name__}"
        raise SettingsError(field, name, allowed)
    return kind(found)  # type: ignore[call-arg]  # a record's first field is its function


def _imported(field: str, name: str, ours: Mapping[str, object]) -> Any:
    module_name, colon, attribute = name.partition(":")
    if not colon:
        known = ", ".join(sorted(ours))
        raise SettingsError(field, name, f"{known}, or package.module:function{suggest(name, ours)}")
    if (folder := _untrusted.get()) is not None:
        allowed = f"imported only if you trust {folder}, which names it: trust=True, or --trust in a command"
        raise SettingsError(field, name, allowed)
    _import_from_here()
    with _refused(field, name, "an importable module", _as_file(module_name, attribute)):
        found: Any = scripts.module(module_name)
    with _refused(field, name, f"a function of {module_name}"):
        for part in attribute.split("."):
            found = getattr(found, part)
    if _is_async(found):
        raise SettingsError(
            field, name, "a function that isn't async: a call of that makes a coroutine, and is no result"
        )
    return found


@contextmanager
def _refused(field: str, name: str, allowed: str, instead: str | None = None) -> Iterator[None]:
    try:
        yield
    except PASS_ON:
        raise
    except BaseException as error:  # whatever it is, a setting named it
        raise SettingsError(field, name, instead or f"{allowed}: {_why(error)}") from error


def _as_file(module: str, attribute: str) -> str | None:
    """What is said to the name of a file where a module's is asked for."""
    if not module.endswith(".py"):
        return None
    folder, _, file = module.removeprefix("./").removesuffix(".py").rpartition("/")
    if folder.startswith(("/", "~", "..")):
        return f"{file}:{attribute}, with {folder} as the folder to start in or on PYTHONPATH"
    return f"{'.'.join(filter(None, [*folder.split('/'), file]))}:{attribute}, a module's name without .py"


def _is_async(found: Any) -> bool:
    """Of an object, whether its calls are."""
    called = found if inspect.isroutine(found) or isinstance(found, (type, partial)) else type(found).__call__
    return inspect.iscoroutinefunction(called) or inspect.isasyncgenfunction(called)


def _why(error: BaseException) -> str:
    """What came up, and in which line of the user's, if it was in one."""
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg} ({Path(error.filename or '?').name}:{error.lineno})"
    if isinstance(error, (ImportError, AttributeError)) and not theirs(error):
        return " ".join(str(error).split())
    return told(error)


def theirs(error: BaseException) -> bool:
    """Whether code that we imported raised an error, and not its import."""
    frames, trace = list[str](), error.__traceback__
    while trace is not None:
        frames.append(trace.tb_frame.f_code.co_filename)
        trace = trace.tb_next
    return any(
        not name.startswith("<") and name not in (__file__, scripts.__file__, importlib.__file__) for name in frames
    )


def _import_from_here() -> None:
    """A console script starts with its own folder on sys.path, not the one the user stands in."""
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)


def call(field: str, function: Callable[..., T], kwargs: Mapping[str, Any], **offered: Any) -> T:
    """Call a model or data function with the user's kwargs, and of `offered` what its signature has a place for.

    Raises SettingsError if it doesn't take them.
    """
    signature = signature_of(f"{field}.name", function)
    parameters = signature.parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    taken = {k: v for k, v in offered.items() if (k in parameters or takes_any) and v is not None}
    unknown = [k for k in kwargs if k not in parameters and not takes_any]
    if unknown:
        raise SettingsError(f"{field}.kwargs", ", ".join(unknown), f"of {', '.join(parameters) or 'nothing'}")
    try:
        signature.bind(**{**taken, **kwargs})
    except TypeError as error:
        raise SettingsError(f"{field}.kwargs", dict(kwargs), f"arguments of {called(function)}: {error}") from error
    return function(**{**taken, **kwargs})


@contextmanager
def blamed(field: str, name: str, kwargs: Mapping[str, Any] | None = None) -> Iterator[None]:
    """What a function of the user's raises within it is told of the setting that names it, or of its kwargs.

    Raises SettingsError.
    """
    try:
        yield
    except (SettingsError, *PASS_ON):
        raise
    except BaseException as error:
        if kwargs:
            where, takes = f"{field.rpartition('.')[0]}.kwargs", "what its function takes"
            raise SettingsError(where, dict(kwargs), f"{takes}; it raised {told(error)}") from error
        raise SettingsError(field, name, f"a function that works; it raised {told(error)}") from error


def called(function: Any) -> str:
    """A function's name, or what it is."""
    return str(getattr(function, "__name__", None) or type(function).__name__)


def signature_of(field: str, function: Callable[..., Any]) -> inspect.Signature:
    """What a function takes. Raises SettingsError for one that doesn't say."""
    try:
        return inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise SettingsError(field, called(function), f"a function that says what it takes: {error}") from error
