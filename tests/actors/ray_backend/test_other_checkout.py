"""A cluster whose Python finds another checkout of ours than the driver's: the run says so, and trains."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.ray_head import environment, head
from tests.conftest import ROOT


@pytest.mark.slow
@pytest.mark.slow
def test_it_is_said_where_the_actors_code_lies(tmp_path: Path, own_ray: None, monkeypatch: pytest.MonkeyPatch) -> None:
    other, elsewhere = tmp_path / "other", tmp_path / "elsewhere"
    elsewhere.mkdir()
    for package in ("ray_split", "actors"):
        shutil.copytree(ROOT / package, other / package, ignore=shutil.ignore_patterns("__pycache__"))
    with (other / "ray_split" / "seeds.py").open("a") as changed:
        changed.write("\n# A line more.\n")
    monkeypatch.setenv("PYTHONPATH", str(other))
    flags = ["--model.name", "mlp", "--phones.count", "2", "--cluster.client_actors", "1", "--run.rounds", "1"]
    command = [sys.executable, "-m", "ray_split.cli", "train", *flags, "--run.storage_path", str(elsewhere)]
    with head() as (address, _):
        env = environment(RAY_ADDRESS=address, PYTHONPATH=str(ROOT))
        done = subprocess.run(command, cwd=elsewhere, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [line] = [line for line in done.stderr.splitlines() if "another checkout" in line]
    assert "ray_split" in line and f"in {other / 'ray_split'}, with other code" in line
    assert "client 0" in line and "server" in line and "fed server" in line
