"""Whether any run of a sweep can begin is found out before Ray starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import ray_split as rs
from ray_split.experiments.command import parser_of
from ray_split.experiments.sweep import possible
from ray_split.experiments.sweep.settings import sweep_of

BASE = ["--model.name", "mlp", "--phones.count", "3", "--run.rounds", "1"]


def check(path: Path, *words: str) -> None:
    found = sweep_of([*BASE, *words, "--out", str(path / "out")], parser_of("sweep", ""))
    possible.check_possible(found.base, found.space)


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[rs.Config]:
    """The settings that were prepared."""
    settings, prepare = list[rs.Config](), possible.prepare

    def noted(each: rs.Config) -> Any:
        settings.append(each)
        return prepare(each)

    monkeypatch.setattr(possible, "prepare", noted)
    return settings


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--model.name", "nosuch"], r"^model\.name: there is no model 'nosuch'"),
        (["--model.cuts", "nowhere"], r"^model\.cuts: there is no layer 'nowhere'"),
        (["--model.name", "cnn1d"], r"^model\.name: cnn1d takes samples"),
        (["--phones.count", "5000"], r"^phones\.count"),
    ],
)
def test_a_setting_that_no_axis_changes_is_told_of_once(
    tmp_path: Path, tried: list[rs.Config], words: list[str], line: str
) -> None:
    with pytest.raises(rs.SettingsError, match=line):
        check(tmp_path, *words, "--over", "optimizer.lr=0.1,0.2,0.3", "--seeds", "0,1,2")
    assert len(tried) == 1
    assert not list(tmp_path.iterdir())


def test_one_point_that_can_begin_is_enough(tmp_path: Path, tried: list[rs.Config]) -> None:
    check(tmp_path, "--over", "model.cuts=[nowhere],[layers.0]", "--over", "optimizer.lr=0.1,0.2")
    assert [each.model.cuts for each in tried] == [["nowhere"], ["layers.0"]]


def test_if_all_values_of_an_axis_fail_the_first_is_told(tmp_path: Path, tried: list[rs.Config]) -> None:
    with pytest.raises(rs.SettingsError, match="there is no layer 'nowhere'"):
        check(tmp_path, "--over", "model.cuts=[nowhere],[neither]", "--over", "optimizer.lr=0.1,0.2")
    assert len(tried) == 2


def test_files_that_are_on_other_nodes_are_looked_for_there(tmp_path: Path, tried: list[rs.Config]) -> None:
    check(tmp_path, "--data.name", "image_folder", "--data.path", str(tmp_path / "away"), "--seeds", "0,1")
    assert len(tried) == 1
