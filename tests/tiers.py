"""Which cases `make test` runs, and which `make test-thorough` alone."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Any

import pytest


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
    """Of a test's cases that `@pytest.mark.few(n, thorough=m)` is said of n run with `make test`; others are thorough.

    Of the thorough ones, however they came to be, m run with `make test-thorough`, and the others are slow. Either
    number may be left out. For cases that come of tables, products and generators.
    """
    families: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("few") and not item.get_closest_marker("slow"):
            families.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for cases in families.values():
        marker = cases[0].get_closest_marker("few")
        assert marker is not None
        often = [case for case in cases if not case.get_closest_marker("thorough")]
        kept = {number * len(often) // marker.args[0] for number in range(marker.args[0])} if marker.args else None
        for number, case in enumerate(often):
            if kept is not None and number not in kept:
                case.add_marker(pytest.mark.thorough)
        if "thorough" in marker.kwargs:
            # In an order of no meaning: each part of a product comes about as often as it stands in it.
            seldom = sorted((case for case in cases if case.get_closest_marker("thorough")), key=_mixed)
            for case in seldom[marker.kwargs["thorough"] :]:
                case.add_marker(pytest.mark.slow)


def _mixed(case: pytest.Item) -> int:
    return zlib.crc32(case.nodeid.encode())


def _marked(case: Any, mark: pytest.MarkDecorator = pytest.mark.thorough) -> Any:
    return pytest.param(*case if isinstance(case, tuple) else (case,), marks=mark)
