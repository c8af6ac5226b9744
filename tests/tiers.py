"""Which cases `make test` runs, and which `make test-thorough` alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def thorough(*cases: Any) -> list[Any]:
    """Further cases of a parameter, for `make test-thorough`: they prove once more what those of `make test` prove.

    A tuple is a case of several parameters.
    """
    return [_marked(case) for case in cases]


def mostly_thorough(cases: Iterable[Any], *often: Any) -> list[Any]:
    """Cases in their order: those in `often` run with `make test`, the others with `make test-thorough`."""
    return [case if case in often else _marked(case) for case in cases]


def on_ray(case: Any) -> Any:
    """The one case of a test that is on Ray: it runs with `make test-thorough`, among the tests that need Ray.

    The test asks for the fixture itself, in this case alone.
    """
    return pytest.param(case, marks=[pytest.mark.thorough, pytest.mark.xdist_group("ray")])


def _marked(case: Any) -> Any:
    return pytest.param(*case if isinstance(case, tuple) else (case,), marks=pytest.mark.thorough)
