"""The devices' tokens: the same each time, until they are made void; in a file that is its owner's alone."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

import ray_split as rs
from ray_split.devices.tokens import forget, operator_of, tokens_of


def test_tokens_stay_and_more_are_made(tmp_path: Path) -> None:
    path = tmp_path / "own" / "devices.json"
    two = tokens_of(path, 2)
    assert tokens_of(path, 3)[:2] == tokens_of(path, 2) == two
    assert len({*tokens_of(path, 3), operator_of(path)}) == 4
    assert all(len(token) == 24 for token in two)
    assert operator_of(path) == operator_of(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_forgotten_tokens_are_void(tmp_path: Path) -> None:
    path = tmp_path / "devices.json"
    before = {*tokens_of(path, 2), operator_of(path)}
    forget(path)
    assert before.isdisjoint({*tokens_of(path, 2), operator_of(path)})


@pytest.mark.parametrize("text", ["", "[]", '{"devices": [1], "operator": ""}', '{"devices": []}', "\x00"])
def test_another_file_is_refused_and_left_as_it_is(tmp_path: Path, text: str) -> None:
    path = tmp_path / "devices.json"
    path.write_text(text)
    with pytest.raises(rs.SettingsError, match=r"gateway\.tokens: .* is no file of devices' tokens"):
        tokens_of(path, 1)
    assert path.read_text() == text
