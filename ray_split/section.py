"""What the sections of the settings are made of: fields as people type them, and files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from ray_split.failure import SettingsError


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


Mapping = Annotated[dict[str, Any], BeforeValidator(as_mapping)]
Names = Annotated[list[str], BeforeValidator(_names)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Weights = Annotated[list[Positive], Field(min_length=1)]
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


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file of settings. Raises SettingsError."""
    try:
        values = yaml.safe_load(Path(path).read_text())
    except OSError as error:
        raise SettingsError("--config", str(path), f"a readable YAML file: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError("--config", str(path), f"a YAML file: {' '.join(str(error).split())}") from error
    if not isinstance(values or {}, dict) or not all(isinstance(name, str) for name in values or {}):
        raise SettingsError("--config", str(path), "a YAML file of sections, each with its fields")
    return values or {}
