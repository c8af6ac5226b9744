from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ray_split.results.provenance import command, provenance


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    done = subprocess.run(["git", *who, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_commit_of_the_folder_is_told_and_whether_something_changed_since(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert (provenance(tmp_path, False)["git_commit"], provenance(tmp_path, False)["git_changes"]) == (None, None)
    git(tmp_path, "init", "-q")
    (tmp_path / "model.py").write_text("a = 1\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert (provenance(tmp_path, False)["git_commit"], provenance(tmp_path, False)["git_changes"]) == (commit, False)
    (tmp_path / "model.py").write_text("a = 2\n")
    assert provenance(tmp_path, False)["git_changes"] is True


def test_without_git_a_run_has_no_commit(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance(tmp_path, False)["git_commit"] is None


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (["/venv/bin/ray-split", "train", "--run.name", "two words"], "ray-split train --run.name 'two words'"),
        (["/somewhere/jobs/train.py", "--a", "1"], "train.py --a 1"),
        (["/lib/package/__main__.py", "x"], "python -m package x"),
        (["-c"], "python -c"),
        ([""], "python"),
        (["ray-split", "--run.storage_path", "s3://key:secret@bucket/x"], "ray-split --run.storage_path s3://bucket/x"),
    ],
)
def test_the_command_can_be_typed_again_and_shows_no_password(monkeypatch, typed, told):
    monkeypatch.setattr(sys, "argv", typed)
    assert command() == told


def test_a_run_that_is_resumed_keeps_the_time_of_its_first_start(tmp_path):
    (tmp_path / "summary.json").write_text(json.dumps({"status": "stopped", "started": "2026-01-02T03:04:05Z"}))
    assert provenance(tmp_path, True)["started"] == "2026-01-02T03:04:05Z"
    assert provenance(tmp_path, False)["started"] > "2026-01-02T03:04:05Z"
