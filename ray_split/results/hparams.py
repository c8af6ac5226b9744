"""A run's settings as a flat table, to compare runs by: in TensorBoard, MLflow and Weights & Biases."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ray_split import config
from ray_split.config import yaml12

Plain = bool | int | float | str
LEFT_OUT = re.compile(r"run\.(?!seed|rounds)|cluster\.|checkpoint\.")
"""Settings of where and how often, which make no other model."""


def hparams(settings: config.Config) -> dict[str, Plain]:
    """The settings by their full names, without credentials. What is neither number nor word is as YAML, in a line."""
    return _flat(yaml12.read(settings.to_yaml()))


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Plain]:
    found: dict[str, Plain] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and value and all(isinstance(each, str) for each in value):
            found |= _flat(value, f"{name}.")
        elif not LEFT_OUT.match(name):
            found[name] = _plain(value)
    return found


def _plain(value: Any) -> Plain:
    if value is None:
        return "none"
    return value if isinstance(value, bool | int | float | str) else yaml12.write_line(value)
