"""Finding what a setting names: one of ours, or `package.module:function` of the user's."""

from __future__ import annotations

import difflib
import importlib
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from ray_split.config.user_code import by_value, scripts
from ray_split.config.user_code.by_value import ByValue
from ray_split.config.user_code.record_checks import check_record
from ray_split.errors import SettingsError, failed, listed, shown, told

T = TypeVar("T")
R = TypeVar("R")
S = TypeVar("S", bound=BaseModel)

PASS_ON = (KeyboardInterrupt, scripts.TrainsWhenImportedError)
"""What is no fault of who raised it: somebody stops us, or we stopped an import."""

FIX = "Fix the function, or name another"

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


NEAR = 0.65  # how alike two names are, of 1: none is near phones by less
LONGEST_LIST = 200  # characters of what there is, where a name that is close is told already


def suggest(name: str, known: Iterable[str], there: str = "", show: Callable[[str], str] = str) -> str:
    """What to take instead of `name`: the known name that is close, if one is, and what there is.

    With a near match a long list of what there is is left out. `show` makes of a name what is typed. Of known names
    that are equally close it is the first.
    """
    close = _closest(name[:100], list(known))
    if close is None:
        return there
    return f"Did you mean {show(close)}? {there if len(there) < LONGEST_LIST else ''}".strip()


def _closest(name: str, known: Sequence[str]) -> str | None:
    near = set(difflib.get_close_matches(name, known, n=max(1, len(known)), cutoff=NEAR))
    matcher = difflib.SequenceMatcher(b=name)

    def alike(other: str) -> float:
        matcher.set_seq1(other)
        return matcher.ratio()

    return max((each for each in known if each in near), key=alike, default=None)


def find(field: str, name: str, ours: Mapping[str, T]) -> T | Callable[..., Any]:
    """What `name` stands for: an entry of `ours`, or an object imported from 'package.module:function'.

    Raises SettingsError naming the field, the value and what it may be; also for what is not to be imported unasked.
    """
    if name in ours:
        return ours[name]
    found = _imported(field, name, ours)
    if not callable(found):
        raise SettingsError(field, name, "Name a function or a class", f"{shown(name)} is a {type(found).__name__}")
    return found  # type: ignore[no-any-return]


def find_record(field: str, name: str, ours: Mapping[str, R], kind: type[R]) -> R:
    """As `find`, where entries are records; of a bare function of the user's it is a record with the defaults.

    Raises SettingsError.
    """
    if name in ours:
        return ours[name]
    found = _imported(field, name, ours)
    if isinstance(found, kind):
        check_record(field, name, found)
        return found
    if not callable(found):
        wrong = f"{shown(name)} is a {type(found).__name__}"
        raise SettingsError(field, name, f"Name a function or a ray_split.{called(kind)}", wrong)
    return kind(found)  # type: ignore[call-arg]  # a record's first field is its function


def with_main(settings: S) -> S:
    """The settings with what they name of `__main__` itself, which is another one in every process.

    Raises SettingsError.
    """

    def new(field: str, name: str) -> str:
        if field == "run.name" or not name.startswith("__main__:"):
            return name
        value = _imported(field, name, {})
        return by_value.given_data(value) if field == "data.name" else by_value.given(value)

    return by_value.renamed(settings, new)


def _imported(field: str, name: str, ours: Mapping[str, object]) -> Any:
    """What was given, or is imported."""
    if isinstance(name, ByValue):
        return _not_async(field, name, name.value)
    if by_value.is_record(name):
        what = name.rpartition(":")[2]
        wrong = f"{what} was made in a notebook or a script, so it can't be found by a name"
        raise SettingsError(field, name, f"Start from Python, and give {what} itself", wrong)
    module_name, colon, attribute = name.partition(":")
    if not colon:
        kind = kind_of(field)
        several = f"{kind}{'es' if kind.endswith('s') else 's'}"
        there = f"The {several} are {listed(sorted(ours))}. You can also name your own as package.module:function"
        raise SettingsError(field, name, suggest(name, ours, there), f"there is no {kind} {shown(name)}")
    check_trusted(field, name, "imported")
    _import_from_here()
    with _refused(field, name, module_name, _as_file(module_name, attribute)):
        found: Any = scripts.module(module_name)
    try:
        for part in attribute.split("."):
            found = getattr(found, part)
    except PASS_ON:
        raise
    except BaseException as error:  # a module may have a __getattr__
        raise _not_there(field, name, found, error) from error
    return _not_async(field, name, found)


def check_trusted(field: str, name: str, done: str) -> None:
    """Raises SettingsError where code that a folder's settings name would be `done`, and nobody trusts the folder."""
    if (folder := _untrusted.get()) is not None:
        wrong = f"{folder} names {shown(name)}, which is {done} only if you trust whoever wrote that folder"
        raise SettingsError(field, name, "If you do, add --trust to the command, or trust=True in Python", wrong)


def kind_of(field: str) -> str:
    """What the names of a field stand for, in a word or two."""
    return KINDS.get(field) or field.removesuffix(".name").rpartition(".")[2].replace("_", " ")


KINDS = {
    "--schedules": "schedule",
    "data.name": "data set",
    "data.augment": "augmentation",
    "run.callbacks": "callback",
    "task.metrics": "metric",
}


def _not_there(field: str, name: str, found: Any, error: BaseException) -> SettingsError:
    """What is said of a module that lacks what was named."""
    module, _, attribute = name.partition(":")
    names = [each for each in dir(found) if not each.startswith("_")]
    if not attribute:
        wrong = f"{shown(name)} lacks the name of a function after the colon"
        return SettingsError(field, name, f"Write {module}:FUNCTION", wrong)
    own = [each for each in names if callable(getattr(found, each, None)) and _is_of(getattr(found, each), module)]
    there = f"It has {listed(own)}" if own else f"Define {attribute} in {module}, or name another function"
    wrong = f"the module {shown(module)} has no function {shown(attribute)}"
    if not isinstance(error, AttributeError) or theirs(error):
        wrong += f": {told(error)}"
    return SettingsError(field, name, suggest(attribute, names, there, lambda near: f"{module}:{near}"), wrong)


def _is_of(value: Any, module: str) -> bool:
    return getattr(value, "__module__", None) == module


def _not_async(field: str, name: str, found: Any) -> Any:
    if _is_async(found):
        wrong = f"{shown(name)} is async, so calling it gives a coroutine instead of a result"
        raise SettingsError(field, name, "Define it with def instead of async def", wrong)
    return found


@contextmanager
def _refused(field: str, name: str, module: str, instead: str | None = None) -> Iterator[None]:
    try:
        yield
    except PASS_ON:
        raise
    except BaseException as error:  # whatever it is, a setting named it
        if instead:
            raise SettingsError(field, name, "", f"write {instead} instead of {shown(name)}") from error
        raise SettingsError(field, name, *_not_importable(module, error)) from error


def _not_importable(module: str, error: BaseException) -> tuple[str, str]:
    """What to do about a module, and what is wrong."""
    top = module.partition(".")[0]
    if isinstance(error, ModuleNotFoundError) and error.name and f"{module}.".startswith(f"{error.name}."):
        file = f"{top}.py" if top == module else f"the folder {top}"
        do = f"Check the spelling, run ray-split from the folder that holds {file}, or install the module"
        return do, f"there is no Python module {shown(error.name)}"
    if not all(part.isidentifier() for part in module.split(".")):
        return "Write package.module:function", f"{shown(module)} is not the name of a Python module"
    return f"Correct {module}, or name another module", f"importing {shown(module)} failed: {_why(error)}"


def _as_file(module: str, attribute: str) -> str | None:
    """What is said to the name of a file where a module's is asked for."""
    if not module.endswith(".py"):
        return None
    folder, _, file = module.removeprefix("./").removesuffix(".py").rpartition("/")
    if folder.startswith(("/", "~", "..")):
        return f"{file}:{attribute}, and run ray-split from {folder} (or add that to PYTHONPATH),"
    return f"{'.'.join(filter(None, [*folder.split('/'), file]))}:{attribute}, without .py,"


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


def call(field: str, function: Callable[..., T], kwargs: Mapping[str, Any], who: str = "", /, **offered: Any) -> T:
    """Call a model or data function with the user's kwargs, and of `offered` what its signature has a place for.

    `who`: what people call it. Raises SettingsError if it doesn't take them.
    """
    signature = signature_of(f"{field}.name", function)
    parameters = signature.parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    taken = {k: v for k, v in offered.items() if (k in parameters or takes_any) and v is not None}
    unknown = [k for k in kwargs if k not in parameters and not takes_any]
    if unknown:
        raise unknown_kwargs(f"{field}.kwargs", who or function, unknown, list(parameters))
    try:
        signature.bind(**{**taken, **kwargs})
    except TypeError as error:
        wrong = f"{shown(dict(kwargs))} doesn't fit {who or called(function)}: {error}"
        raise SettingsError(f"{field}.kwargs", dict(kwargs), _takes(who or function, parameters), wrong) from error
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
            wrong = f"with {shown(dict(kwargs))}, {failed(by_value.spoken(name), error)}"
            where = f"{field.rpartition('.')[0]}.kwargs"
            raise SettingsError(where, dict(kwargs), "Change these arguments, or fix the function", wrong) from error
        raise SettingsError(field, name, FIX, failed(by_value.spoken(name), error)) from error


def unknown_kwargs(
    field: str, function: Callable[..., Any] | str, unknown: Sequence[str], known: Sequence[str]
) -> SettingsError:
    """What is said of arguments that a function, or what people know by that name, doesn't take."""
    who = function if isinstance(function, str) else called(function)
    several = "argument" if len(unknown) == 1 else "arguments"
    wrong = f"{who} takes no {several} {', '.join(map(shown, unknown))}"
    there = _takes(who, known)
    return SettingsError(field, ", ".join(unknown), suggest(unknown[0], known) or there, wrong)


def _takes(function: Callable[..., Any] | str, known: Iterable[str]) -> str:
    who = function if isinstance(function, str) else called(function)
    return f"{who} takes {listed(known)}"


def called(function: Any) -> str:
    """A function's name, or what it is."""
    return str(getattr(function, "__name__", None) or type(function).__name__)


def signature_of(field: str, function: Callable[..., Any]) -> inspect.Signature:
    """What a function takes. Raises SettingsError for one that doesn't say."""
    try:
        return inspect.signature(function)
    except (TypeError, ValueError) as error:
        wrong = f"Python can't tell which arguments {called(function)} takes: {error}"
        raise SettingsError(
            field, called(function), "Wrap it in a function of your own, made with def", wrong
        ) from error
