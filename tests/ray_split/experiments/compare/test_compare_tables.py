"""A comparison's table as CSV, Markdown and LaTeX."""

from __future__ import annotations

import csv
import io

import pytest

from ray_split.experiments.compare import tables
from ray_split.experiments.compare.results import Run, lines


def test_the_csv_has_plain_numbers(made_up: list[Run]) -> None:
    text = tables.to_csv(lines(made_up, 0.9), 0.9)
    unsplit, sequential, splitfed_v3, parallel = csv.DictReader(io.StringIO(text))
    assert unsplit["schedule"] == "unsplit"
    counts = ("finished", "failed", "personal", "target", "reached")
    assert [unsplit[name] for name in counts] == ["2", "0", "0", "0.9", "2"]
    assert [splitfed_v3[name] for name in counts] == ["1", "1", "1", "0.9", "0"]
    assert float(unsplit["bytes_to_target_mean"]) == 3250
    assert float(unsplit["accuracy_std"]) == pytest.approx(0.0707106781)
    assert (sequential["rounds_to_target_mean"], sequential["rounds_to_target_std"]) == ("3.0", "")
    assert (parallel["accuracy_mean"], parallel["failed"]) == ("", "2")


def test_the_markdown_is_for_people(made_up: list[Run]) -> None:
    text = tables.to_markdown(lines(made_up, 0.9), 0.9)
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    assert cells == [
        ["schedule", "test accuracy", "rounds to 0.9", "kB to 0.9", "training s to 0.9", "up (B)", "down (B)",
         "weights (B)", "phone-rounds/s"],
        ["-" * 13, *(":".rjust(len(rule), "-") for rule in cells[1][1:])],
        ["unsplit", "0.8500 ± 0.0707", "2.50", "3.25", "4.50", "25", "50", "250", "15"],
        ["sequential", "0.4500 ± 0.4950", "3 (1 of 2)", "3.90 (1 of 2)", "6 (1 of 2)", "25", "50", "250", "10"],
        ["splitfed_v3†‡", "0.8000", "-", "-", "-", "25", "50", "250", "10"],
        ["parallel‡", "failed", *"-------"],
    ]  # fmt: skip
    assert len({len(line) for line in text.splitlines() if line[:1] == "|"}) == 1
    assert "† accuracies are means over the phones' own models" in text
    assert "‡ splitfed_v3 seed 1 failed: Boom_1: 5 % & more second line" in text


def test_the_latex_is_a_tabular_with_nothing_unescaped(made_up: list[Run]) -> None:
    text = tables.to_latex(lines(made_up, 0.9), 0.9)
    assert r"\begin{tabular}{lrrrrrrrr}" in text
    assert text.index(r"\toprule") < text.index(r"\midrule") < text.index(r"\bottomrule") < text.index(r"\end{tabular}")
    assert r"unsplit & 0.8500 $\pm$ 0.0707 & 2.50 & 3.25 & 4.50 & 25 & 50 & 250 & 15 \\" in text
    assert r"splitfed\_v3$^{\dagger}$$^{\ddagger}$ & 0.8000" in text
    assert r"failed: Boom\_1: 5 \% \& more second line" in text
    rows = [line for line in text.splitlines() if " & " in line and "multicolumn" not in line]
    assert [line.count(" & ") for line in rows] == [8] * 5
