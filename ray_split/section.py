"""What the sections of the settings are made of: fields as people type them, and files."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from ray_split.failure import SettingsError, first_line
from ray_split.storage import Place, place


def as_mapping(value: Any) -> Any:
    """On a command line a mapping is written as YAML: '{width: 3}'."""
    if isinstance(value, str):
        try:
            return yaml.safe_load(value) or {}
        except yaml.YAMLError as error:
            raise ValueError(f"a YAML mapping such as '{{width: 3}}' ({' '.join(str(error).split())})") from error
    return value


def _names(value: Any) -> Any:
    """On a command line a list is written a,b; in YAML a layer called 1 reads as a number."""
    if isinstance(value, str):
        value = [part.strip() for part in value.strip("[]").split(",") if part.strip()]
    elif isinstance(value, int):
        value = [value]
    return [str(part) if isinstance(part, int) else part for part in value] if isinstance(value, list) else value


def _numbers(value: Any) -> Any:
    """On a command line a list is written 1,2."""
    return _names(value) if isinstance(value, str) and value != "balanced" else value


def _one_folder(name: str) -> str:
    if not name or "/" in name or name in (".", ".."):
        raise ValueError("the name of one folder")
    return name


def _place(path: str) -> str:
    if not path:
        raise ValueError("a local path or a URI")
    return path


Mapping = Annotated[dict[str, Any], BeforeValidator(as_mapping)]
Names = Annotated[list[str], BeforeValidator(_names)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Weights = Annotated[list[Positive], Field(min_length=1)]
FolderName = Annotated[str, AfterValidator(_one_folder)]
StoragePath = Annotated[str, AfterValidator(_place)]
ClassWeights = Annotated[Literal["balanced"] | Weights | None, BeforeValidator(_numbers)]


def segments(names: list[str]) -> list[str]:
    """Names of segments. Raises ValueError."""
    if set(names) - {"a", "b", "c"}:
        raise ValueError("any of a, b, c")
    return names


class Section(BaseModel):
    """A group of settings. Unknown fields are refused; a number is never taken for a string that looks like one."""

    model_config = ConfigDict(extra="forbid", validate_default=True, frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_bool_as_number(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and info.field_name and cls.model_fields[info.field_name].annotation is not bool:
            raise ValueError("a valid integer, number or name, not yes or no")
        return value


def read_yaml(path: str | Place) -> dict[str, Any]:
    """The mapping in a YAML file of settings. Raises SettingsError."""
    try:
        values = yaml.safe_load(place(path).read_text())
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError("--config", str(path), f"a YAML file: {' '.join(str(error).split())}") from error
    except (OSError, ValueError, ImportError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise SettingsError("--config", str(path), f"a readable YAML file: {reason}") from error
    if not isinstance(values or {}, dict) or not all(isinstance(name, str) for name in values or {}):
        raise SettingsError("--config", str(path), "a YAML file of sections, each with its fields")
    return values or {}
