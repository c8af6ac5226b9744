"""Rows as text."""

from __future__ import annotations

import pytest

from ray_split.experiments import tables


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0, "0"), (12.0, "12"), (12.345, "12.3"), (1234.5, "1234"), (0.01234, "0.0123"), (1e-5, "0.0000100")],
)
def test_numbers_have_three_figures_and_no_exponent(value: float | None, text: str) -> None:
    assert tables.figures(value) == text
