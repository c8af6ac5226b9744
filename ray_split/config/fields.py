"""What the sections of the settings are made of: fields as people type them, and files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from ray_split.config import text, yaml12
from ray_split.config.user_code import by_value
from ray_split.config.yaml_errors import NotYamlError
from ray_split.errors import SettingsError, first_line, shown
from ray_split.filesystem import Place, Uri, is_waiting, place

MOST = 10**9  # of what is counted one by one: phones, rounds, samples of a batch
LARGEST, SMALLEST = 1e18, 1e-30  # the square of the one, and the other times a gradient, are of single precision


def as_mapping(value: Any) -> Any:
    """On a command line a mapping is written as YAML: '{width: 3}'."""
    if not isinstance(value, str):
        return value
    found = typed(value, "a mapping such as '{width: 3}'", free=True)
    return {} if found is None else found


def typed(text: str, example: str, free: bool = False) -> Any:
    """What is typed as YAML on a command line. Raises SettingsError, which says to write an `example`."""
    try:
        return yaml12.read(text, free=free)
    except NotYamlError as error:
        raise SettingsError("", text, error.do or f"Write {example}", error.problem) from error


def _names(value: Any) -> Any:
    """On a command line a list is written a,b; in YAML a layer called 1 reads as a number."""
    if isinstance(value, str):
        inner = value[1:-1] if value[:1] == "[" and value[-1:] == "]" else value
        value = [part.strip() for part in inner.split(",") if part.strip()]
    elif isinstance(value, int) or by_value.is_given(value):
        value = [value]
    return [str(part) if isinstance(part, int) else part for part in value] if isinstance(value, list) else value


def _bounded(value: Any) -> Any:
    """Of no more than a file may hold: what comes from Python may hold itself."""
    waiting, nodes = [(value, 0)], 0
    while waiting:
        each, depth = waiting.pop()
        inside = each.values() if isinstance(each, dict) else each if isinstance(each, (list, tuple)) else ()
        nodes += len(inside)
        if nodes > yaml12.MOST_NODES or depth > yaml12.DEEPEST:
            wrong = f"has more than {yaml12.MOST_NODES} values, or is nested deeper than {yaml12.DEEPEST} levels"
            raise SettingsError("", "", "Give less, or load it in your own function", wrong)
        waiting.extend((part, depth + 1) for part in inside)
    return value


def _no_bools(value: Any) -> Any:
    """Python takes true for 1."""
    if isinstance(value, dict) and any(isinstance(each, bool) for pair in value.items() for each in pair):
        raise ValueError("a mapping of whole numbers")
    return value


def _numbers(value: Any) -> Any:
    """On a command line a list is written 1,2."""
    return _names(value) if isinstance(value, str) and value != "balanced" else value


def _beyond_nothing(value: float) -> float:
    if value < SMALLEST:
        raise ValueError(f"at least {SMALLEST}")
    return value


Mapping = Annotated[dict[str, Any], BeforeValidator(as_mapping), AfterValidator(_bounded)]
WholeNumbers = Annotated[dict[int, int], BeforeValidator(lambda value: _no_bools(as_mapping(value)))]
Rounds = Annotated[dict[int, list[int]], BeforeValidator(lambda value: _no_bools(as_mapping(value)))]
Names = Annotated[list[str], BeforeValidator(_names)]
NamesOrGiven = Annotated[list[by_value.Name], BeforeValidator(_names)]
Count = Annotated[int, Field(ge=1, le=MOST)]
Few = Annotated[int, Field(ge=1, le=10_000)]
"""Of what is a process, or a thread, or a GPU."""

Positive = Annotated[float, Field(gt=0, le=LARGEST, allow_inf_nan=False), AfterValidator(_beyond_nothing)]
NotNegative = Annotated[float, Field(ge=0, le=LARGEST, allow_inf_nan=False)]
Weights = Annotated[list[Positive], Field(min_length=1)]
Shape = Annotated[list[Count | None], BeforeValidator(_numbers), Field(min_length=1)]
FolderName = Annotated[str, AfterValidator(text.folder_name)]
StoragePath = Annotated[str, AfterValidator(text.path)]
ToResume = Annotated[str, AfterValidator(lambda path: path if path in ("never", "auto") else text.path(path))]
FileOrName = Annotated[str, BeforeValidator(text.given), AfterValidator(lambda name: text.local(Path(name)) and name)]
Address = Annotated[str, AfterValidator(text.address)]
LocalPath = Annotated[Path, BeforeValidator(text.given), AfterValidator(text.local)]
ClassWeights = Annotated[Literal["balanced"] | Weights | None, BeforeValidator(_numbers)]


def in_one_line(name: Any) -> Any:
    """A model's name; a configuration in it may have been written over several lines of a shell."""
    return " ".join(name.split()) if isinstance(name, str) and name.startswith("hf-config:") else name


def segments(names: list[str]) -> list[str]:
    """Names of segments. Raises ValueError."""
    if set(names) - {"a", "b", "c"} or len(set(names)) < len(names):
        raise ValueError("some of a, b and c, each at most once")
    return names


class Section(BaseModel):
    """A group of settings. Unknown fields are refused; a number is never taken for a string that looks like one."""

    model_config = ConfigDict(ser_json_inf_nan="constants", extra="forbid", validate_default=True, frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_bool_as_number(cls, value: Any, info: ValidationInfo) -> Any:
        kind = cls.model_fields[info.field_name].annotation if info.field_name else None
        several = value if isinstance(value, list) else [value]
        if kind is not bool and any(isinstance(each, bool) for each in several):
            raise ValueError("a number or a name")
        for each in several:
            if isinstance(each, str):
                text.check(each, lines=not text.is_kind(kind, str, Path))
        return _as_in_a_file(value) if isinstance(value, str) and text.is_kind(kind, int, float) else value


def _as_in_a_file(value: str) -> Any:
    """1e3 and 0x10 are whole numbers in a file; pydantic reads neither in a word."""
    found = yaml12.number(value) if not value.isdecimal() else None
    if isinstance(found, float) and found.is_integer() and "e" in value.lower():
        return found
    return found if isinstance(found, int) and value[:2] in ("0x", "0o") else value


SECTIONS = "Write the name of a section, such as 'phones:', and below it its settings, such as '  count: 3'"


def read_yaml(path: str | Place) -> dict[str, Any]:
    """The mapping in a YAML file of settings. Raises SettingsError."""
    path = str(path)
    if not path:
        raise SettingsError("--config", path, "the path of a file of settings")
    try:
        content = _content(place(path))
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        raise SettingsError("--config", path, *_not_read(path, error)) from error
    try:
        values = yaml12.read(content)
    except NotYamlError as error:
        raise SettingsError("--config", path, error.do, error.said_of(shown(path))) from error
    values = {} if values is None else values
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise SettingsError("--config", path, SECTIONS, f"{shown(path)} has no sections")
    return values


def _not_read(path: str, error: Exception) -> tuple[str, str]:
    """What to do about a file that can't be read, and what is wrong."""
    if isinstance(error, FileNotFoundError):
        return "Check the path", f"there is no file {shown(path)}"
    if isinstance(error, IsADirectoryError):
        return "Give the path of a YAML file of settings", f"{shown(path)} is a folder"
    reason = getattr(error, "strerror", None) or first_line(error)
    return "Give the path of a YAML file of settings that can be read", f"{shown(path)} can't be read: {reason}"


def in_file(error: SettingsError, path: str | Place) -> SettingsError:
    """The same error with the file and the line that has the setting, if one has."""
    line = yaml12.line_of(_content(place(str(path))), error.field.split("."))
    if line is None:
        return error
    where = f"line {line} of {shown(str(path))}"
    return error.of(where) if error.wrong.endswith(shown(error.field)) else error.with_note(where)


def _content(file: Place) -> bytes:
    """No more of a file than settings are: it may be a device that has no end."""
    if isinstance(file, Path) and is_waiting(file):
        raise ValueError("this is a pipe or a terminal, and a file is needed")
    with file.open() if isinstance(file, Uri) else file.open("rb") as opened:
        return bytes(opened.read(yaml12.MOST_BYTES + 1))
