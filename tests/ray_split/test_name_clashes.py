from __future__ import annotations

from pathlib import Path

import pytest

import ray_split as rs

CODE = """
from torch import nn

def net(num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, num_classes))
"""


def settings(folder: Path) -> rs.Config:
    return rs.Config(
        phones={"count": 2, "local_steps": 1}, cluster={"backend": "inprocess"},
        run={"storage_path": str(folder / "results"), "name": "x", "rounds": 1},
    )  # fmt: skip


def make(folder: Path, name: str, package: bool = True) -> Path:
    path = folder / name
    path.mkdir(exist_ok=True)
    if package:
        (path / "__init__.py").write_text("")
    return path


@pytest.mark.parametrize("name", ["actors", "ray_split"])
def test_a_folder_of_the_users_that_hides_ours_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = make(tmp_path, name)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        rs.SettingsError, match=f"the same name as a package of ray-split, .* Rename {name}, or start in"
    ) as caught:
        rs.fit(settings(tmp_path), callbacks=[])
    assert str(path) in str(caught.value)
    assert not (tmp_path / "results").exists()


def test_a_file_hides_as_a_folder_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "actors.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(rs.SettingsError, match=r"Rename actors\.py, or start in"):
        rs.fit(settings(tmp_path), callbacks=[])


def test_what_hides_nothing_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "actors", package=False)  # no package: Python looks on
    make(tmp_path, "jobs")
    monkeypatch.syspath_prepend(tmp_path)
    assert rs.fit(settings(tmp_path), callbacks=[]).metrics["round"] == 0


def test_a_folder_that_is_on_no_path_hides_nothing(tmp_path: Path) -> None:
    make(tmp_path, "actors")
    assert rs.fit(settings(tmp_path), callbacks=[]).error is None
