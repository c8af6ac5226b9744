"""Functions, classes and data that are given to the settings themselves, where a name may stand.

What can be imported becomes its name, 'package.module:function'. Anything else, of a notebook's cell, a script's
`__main__`, or made within a function, goes to the actors by value. Its name is 'by value 1f3a5c9e21b4:function', with a
digest of what it is: that is what config.yaml holds. The name tells when a run is resumed with another function, and
leads nowhere: nothing can be imported by it.
"""

from __future__ import annotations

import dataclasses
import inspect
import linecache
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ValidatorFunctionWrapHandler, WrapValidator

from ray_split.config.user_code.digest import digest, importable

S = TypeVar("S", bound=BaseModel)

BEGINS = "by value"
PLAIN = (str, bytes, bool, int, float, type(None), list, tuple, set, Mapping, Path, BaseModel)
"""What settings are made of, in files too."""

AT_THE_DRIVER = ("data.name", "data.partition.name", "run.callbacks")
"""Of what no actor needs: it may be large, or can't leave the process."""


class ByValue(str):
    """The name of what was given, and with it `value`, which is pickled along."""

    value: Any

    def __new__(cls, name: str, value: Any) -> ByValue:
        made = super().__new__(cls, name)
        made.value = value
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return ByValue, (str(self), self.value)


def is_given(value: Any) -> bool:
    """Whether it is no setting as a file has it, but the thing itself. A DatasetDict of Hugging Face's is a dict."""
    return not isinstance(value, PLAIN) or type(value).__module__.startswith("datasets.")


def is_data(value: Any) -> bool:
    """The same of data, which may be a pair too."""
    several = value if isinstance(value, list) else []
    return isinstance(value, tuple) or is_given(value) or any(is_given(each) for each in several)


def is_record(name: str) -> bool:
    """Whether a name says that something was given by value, which isn't there."""
    return name.startswith(BEGINS) and not isinstance(name, ByValue)


def spoken(name: str) -> str:
    """A name as people say it: of what was given by value its own, without the digest."""
    return name.rpartition(":")[2] if name.startswith(BEGINS) else name


def given(value: Any) -> str:
    """What stands for something in the settings: the name that it is imported by, or ByValue."""
    return importable(value) or ByValue(f"{BEGINS} {digest(value)}:{label(value)}", value)


def given_data(value: Any) -> str:
    """As `given`, without a digest: of data that is of its content, once it is loaded."""
    return importable(value) or ByValue(f"{BEGINS}:{label(value)}", value)


def loaded(name: str, content: Any) -> str:
    """The name of data with the digest of its content, if it was given by value."""
    if not isinstance(name, ByValue):
        return name
    return ByValue(f"{BEGINS} {digest(content)}:{label(name.value)}", name.value)


def label(value: Any) -> str:
    """A name for people: a function's or a class's own, of another object its class's."""
    inner = _inner(value)
    return str(getattr(inner, "__name__", type(inner).__name__)).strip("<>")


def _inner(value: Any) -> Any:
    """The function that a partial or a record, such as an rs.Schedule, is of; anything else as it is."""
    if isinstance(value, partial):
        return _inner(value.func)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        first = getattr(value, dataclasses.fields(value)[0].name)
        return first if callable(first) else value
    return value


def _or_given(is_it: Callable[[Any], bool], name: Callable[[Any], str]) -> WrapValidator:
    def validated(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
        if isinstance(value, ByValue):
            return value
        return name(value) if is_it(value) else validate(value)

    return WrapValidator(validated)


OR_GIVEN = _or_given(is_given, given)
Name = Annotated[str, OR_GIVEN]
"""A name, or the function, class or record itself."""

DataName = Annotated[str, _or_given(is_data, given_data)]
"""The same, or data: a table, a Dataset, (inputs, labels)."""


def names(settings: BaseModel, prefix: str = "") -> Iterator[tuple[str, str]]:
    """All settings that are words, by their full names; of lists each word."""
    for field in type(settings).model_fields:
        value = getattr(settings, field)
        if isinstance(value, BaseModel):
            yield from names(value, f"{prefix}{field}.")
        else:
            several = value if isinstance(value, list) else [value]
            yield from ((f"{prefix}{field}", each) for each in several if isinstance(each, str))


def renamed(settings: S, new: Callable[[str, str], str]) -> S:
    """The settings with what `new` makes of each word's full name and the word; the same ones if that changes none."""
    if all(new(*each) is each[1] for each in names(settings)):
        return settings
    return type(settings)(**_renamed(settings, new, ""))


def _renamed(section: BaseModel, new: Callable[[str, str], str], prefix: str) -> dict[str, Any]:
    def one(path: str, value: Any) -> Any:
        if isinstance(value, BaseModel):
            return _renamed(value, new, f"{path}.")
        if isinstance(value, list):
            return [one(path, each) for each in value]
        return new(path, value) if isinstance(value, str) else value

    return {field: one(f"{prefix}{field}", getattr(section, field)) for field in type(section).model_fields}


def for_actors(settings: S) -> S:
    """The settings as actors get them: without what they have no use for."""
    return renamed(settings, lambda path, name: str(name) if path in AT_THE_DRIVER else name)


def text(settings: BaseModel) -> str:
    """The source of all that was given by value, for people; empty if nothing was."""
    found: dict[ByValue, list[str]] = {}
    for path, name in names(settings):
        if isinstance(name, ByValue):
            found.setdefault(name, []).append(path)
    return "\n\n".join(f"# {', '.join(paths)}: {name}\n{source(name.value)}" for name, paths in found.items())


def source(value: Any) -> str:
    """The source of a function or a class, of another object its class's; of what is imported or has none its name."""
    inner = _inner(value)
    code = inner if isinstance(inner, (FunctionType, type)) else type(inner)
    if place := importable(code):
        return f"# {place}\n"
    try:
        return inspect.getsource(code)
    except (OSError, TypeError):
        return _cell(code) or f"# no source: {code.__module__}.{code.__qualname__}\n"


def _cell(kind: Any) -> str:
    """The notebook's cell that a class is of: inspect finds functions of cells alone."""
    code = next((each.__code__ for each in vars(kind).values() if isinstance(each, FunctionType)), None)
    return "".join(linecache.getlines(code.co_filename)) if code is not None else ""
