"""Which cases `make test` runs, and which `make test-thorough` alone."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Any

import pytest

SELDOM = 1  # thorough cases of a test that run with `make test-thorough`, if it says nothing else


def thorough(*cases: Any) -> list[Any]:
    """Further cases of a parameter, for `make test-thorough`: they prove once more what those of `make test` prove.

    A tuple is a case of several parameters.
    """
    return [_marked(case) for case in cases]


def slow(*cases: Any) -> list[Any]:
    """Further cases for `make test-all` alone."""
    return [_marked(case, pytest.mark.slow) for case in cases]


def mostly_thorough(cases: Iterable[Any], *often: Any) -> list[Any]:
    """Cases in their order: those in `often` run with `make test`, the others with `make test-thorough`."""
    return [case if case in often else _marked(case) for case in cases]


def on_ray(case: Any) -> Any:
    """The one case of a test that is on Ray: it runs with `make test-thorough`, among the tests that need Ray.

    The test asks for the fixture itself, in this case alone.
    """
    return pytest.param(case, marks=[pytest.mark.thorough, pytest.mark.xdist_group("ray")])


def leave_few(items: Iterable[pytest.Item]) -> None:
    """Of a test's cases n run with `make test`, where it says `@pytest.mark.few(n)`; others are thorough.

    Of the thorough ones, however they came to be, one runs with `make test-thorough`, or m with `few(thorough=m)`, and
    the others are slow: CI has no time for more repetitions.
    """
    families: dict[str, list[pytest.Item]] = {}
    for item in items:
        if not item.get_closest_marker("slow"):
            families.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for cases in families.values():
        marker = cases[0].get_closest_marker("few")
        often = [case for case in cases if not case.get_closest_marker("thorough")]
        if marker is not None and marker.args:
            _leave(often, marker.args[0])
        # In an order of no meaning: each part of a product comes about as often as it stands in it.
        seldom = sorted((case for case in cases if case.get_closest_marker("thorough")), key=_mixed)
        for case in seldom[SELDOM if marker is None else marker.kwargs.get("thorough", SELDOM) :]:
            case.add_marker(pytest.mark.slow)


def _leave(cases: list[pytest.Item], number: int) -> None:
    kept = {position * len(cases) // number for position in range(number)}
    for position, case in enumerate(cases):
        if position not in kept:
            case.add_marker(pytest.mark.thorough)


def _mixed(case: pytest.Item) -> int:
    return zlib.crc32(case.nodeid.encode())


def _marked(case: Any, mark: pytest.MarkDecorator = pytest.mark.thorough) -> Any:
    return pytest.param(*case if isinstance(case, tuple) else (case,), marks=mark)
