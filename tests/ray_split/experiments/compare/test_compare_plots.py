"""A comparison's plot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ray_split.experiments.compare.plots import figure_of
from ray_split.experiments.compare.results import read
from ray_split.experiments.plots import save
from tests.ray_split.experiments.compare.made_up_runs import write_run


def test_the_plot_has_a_line_a_schedule_and_none_against_bytes_where_nothing_crossed(tmp_path: Path) -> None:
    nothing = {"bytes_up": 0, "bytes_down": 0, "bytes_weights": 0}
    for seed in (0, 1):
        write_run(tmp_path, "unsplit", seed, [0.5, 0.7 + seed / 10], sizes=nothing)
        write_run(tmp_path, "parallel", seed, [0.4, None, 0.6])
    runs = read(tmp_path, ["unsplit", "parallel"], [0, 1])
    against_rounds, against_bytes = figure_of(runs, 0.7).axes
    drawn = {line.get_label(): line for line in against_rounds.lines}
    assert list(drawn) == ["unsplit", "parallel", "target 0.7"]
    assert [*np.asarray(drawn["unsplit"].get_ydata())] == [0.5, 0.75]
    assert [*np.asarray(drawn["parallel"].get_xdata())] == [1, 3]
    assert [line.get_label() for line in against_bytes.lines] == ["parallel", "target 0.7"]
    assert np.asarray(against_bytes.lines[0].get_xdata()) == pytest.approx([1300 / 1e6, 3900 / 1e6])
    assert save({"x.png": lambda: figure_of(runs, 0.7)}, tmp_path)
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_a_plot_of_failed_runs_alone_is_empty(tmp_path: Path) -> None:
    runs = read(tmp_path, ["unsplit"], [0])
    assert save({"x.png": lambda: figure_of(runs, None)}, tmp_path)
