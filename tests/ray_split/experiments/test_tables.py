"""Rows as text."""

from __future__ import annotations

from pathlib import Path

import pytest

from ray_split.errors import SettingsError
from ray_split.experiments import tables


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0, "0"), (12.0, "12"), (12.345, "12.3"), (1234.5, "1234"), (0.01234, "0.0123"), (1e-5, "0.0000100")],
)
def test_numbers_have_three_figures_and_no_exponent(value: float | None, text: str) -> None:
    assert tables.figures(value) == text


def test_columns_are_as_wide_as_their_widest_text() -> None:
    lines = tables.aligned([["name", "n"], ["a", "100"]])
    assert lines == [["name", "  n"], ["a   ", "100"]]
    assert tables.to_markdown(lines) == "| name |   n |\n| --- | --- |\n| a    | 100 |\n"


def test_a_folder_that_can_not_be_written_to_is_a_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(SettingsError, match="out: "):
        tables.write_csv({"x": [{"a": 1}]}, tmp_path / "file" / "out")
    tables.write_csv({"x": [{"a": 1, "b": "c,d"}]}, tmp_path / "out")
    assert (tmp_path / "out" / "x.csv").read_text() == 'a,b\n1,"c,d"\n'


def test_latex_escapes_every_sign_that_means_something() -> None:
    plain = r"a_b & 5% #1 {x} $ ~ ^ \ <>"
    expected = r"a\_b \& 5\% \#1 \{x\} \$ \textasciitilde{} \textasciicircum{} \textbackslash{} "
    assert tables.escaped(plain) == expected + r"\textless{}\textgreater{}"
