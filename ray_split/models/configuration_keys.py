"""Which keys a configuration of transformers may have: it takes any in silence, a misspelt one too."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from ray_split.config.user_code.plugins import suggest
from ray_split.errors import SettingsError, shown

OF_ALL = (
    "attn_implementation", "experts_implementation", "num_labels", "partial_rotary_factor", "rope_scaling",
    "rope_theta", "torch_dtype",
)  # fmt: skip
"""What transformers takes for any family beside the fields of its configuration."""


def check_keys(name: str, family: str, configuration: type[Any], keys: Iterable[str]) -> None:
    """See that a family knows these keys, which a person wrote. Raises SettingsError.

    Some keys are no fields, and the family's code reads them all the same (DeBERTa's position_buckets): it knows every
    word in its source.
    """
    fields = {field.name for field in dataclasses.fields(configuration)} | set(configuration.attribute_map)
    unknown = [key for key in keys if key not in fields and key not in OF_ALL]
    if unknown and (unknown := [key for key in unknown if key not in _words(configuration)]):
        do = suggest(unknown[0], fields, f"Leave it out; what there is tells transformers.{configuration.__name__}")
        raise SettingsError("model.name", name, do, f"a configuration of {family} has no {shown(unknown[0])}")


def _words(configuration: type[Any]) -> Collection[str]:
    files = Path(inspect.getfile(configuration)).parent.glob("*.py")
    return {word for file in files for word in re.findall(r"\w+", file.read_text(encoding="utf-8"))}
