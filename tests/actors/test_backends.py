"""Both backends are what the driver knows as one."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from actors.inprocess import InProcessBackend
from actors.ray_backend.backend import RayBackend
from ray_split.driver.backend import Backend


def methods(of: type) -> dict[str, list[str]]:
    public = {name: getattr(of, name) for name in vars(of) if not name.startswith("_")}
    return {name: list(inspect.signature(each).parameters) for name, each in public.items() if callable(each)}


@pytest.mark.parametrize("backend", [InProcessBackend, RayBackend])
def test_a_backend_has_every_method_that_the_driver_calls_with_the_same_arguments(backend: type[Any]) -> None:
    asked, there = methods(Backend), methods(backend)
    assert len(asked) >= 11
    assert {name: there.get(name) for name in asked} == asked
