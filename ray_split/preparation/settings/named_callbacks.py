"""The callbacks that `run.callbacks` names: found before anything starts, and made for a run, one each."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

from ray_split import config
from ray_split.callbacks import Callback
from ray_split.config.user_code.by_value import ByValue, label, spoken
from ray_split.config.user_code.plugins import blamed, find
from ray_split.errors import SettingsError

FIELD = "run.callbacks"
CALLBACKS = {"mlflow": "Mlflow", "wandb": "Wandb"}
"""Ours, by name: a module of `ray_split.tracking`, called as the library that it needs, and its class."""


def check(run: config.Run) -> None:
    """See that what the settings name is there, without making any. Raises SettingsError."""
    if len(set(run.callbacks)) < len(run.callbacks):
        raise SettingsError(FIELD, run.callbacks, "a list of names, each once")
    for name in run.callbacks:
        _maker(name)


def made(run: config.Run) -> list[Callback]:
    """New ones. Raises SettingsError for what can't be made, or is none."""
    return [_made(name) for name in run.callbacks]


def _maker(name: str) -> Callable[..., Any]:
    if name in CALLBACKS:
        return _of_library(name)
    if isinstance(name, ByValue) and isinstance(name.value, Callback):
        own = f"rs.fit(settings, callbacks=[{label(name.value)}()])"
        wrong = f"{label(name.value)} is an object, but a class or a function that makes one is needed here"
        raise SettingsError(FIELD, name, f"Give the class, or pass the object to {own}", wrong)
    found = find(FIELD, name, CALLBACKS)
    assert callable(found)
    if isinstance(found, type) and not issubclass(found, Callback):
        raise SettingsError(
            FIELD,
            name,
            "Derive it from rs.Callback, or name another",
            f"{spoken(name)} is not a subclass of rs.Callback",
        )
    return found


def _of_library(name: str) -> Callable[..., Any]:
    if importlib.util.find_spec(name) is None:
        allowed = "Run: pip install 'ray-split[track]'"
        raise SettingsError(FIELD, name, allowed, f"{name} is not installed")
    with blamed(FIELD, name):
        found: Callable[..., Any] = getattr(importlib.import_module(f"ray_split.tracking.{name}"), CALLBACKS[name])
    return found


def _made(name: str) -> Callback:
    maker = _maker(name)
    with blamed(FIELD, name):
        callback = maker()
    if not isinstance(callback, Callback):
        allowed = "Return an object of a subclass of rs.Callback"
        raise SettingsError(FIELD, name, allowed, f"{spoken(name)} returned a {type(callback).__name__}")
    return callback
