"""A run that code from before the rooms began is gone on with, and read, by today's: the same bytes."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import ray_split as rs
from tests.conftest import ROOT
from tests.reference import assert_same_weights
from tests.tiers import slow

OLDER = "5f8185f"  # the last commit in which all modules stood in one folder
BEGIN = """
import sys
import ray_split as rs
from tests.tiers import slow

class Stopped(rs.Callback):
    def on_round_end(self, row):
        if row["round"] == 1:
            raise KeyboardInterrupt

settings = rs.Config.from_yaml(sys.argv[1]).with_values(run={"storage_path": sys.argv[2], "name": sys.argv[3]})
try:
    rs.fit(settings, callbacks=[Stopped()] if sys.argv[3] == "begun" else [])
except KeyboardInterrupt:
    pass
"""


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout of it."""
    if subprocess.run(["git", "cat-file", "-e", OLDER], cwd=ROOT, capture_output=True).returncode:
        pytest.skip(f"this checkout's history has no {OLDER}")
    archive = subprocess.run(["git", "archive", OLDER], cwd=ROOT, capture_output=True, check=True).stdout
    folder = tmp_path_factory.mktemp("older")
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
    return folder


@pytest.mark.thorough
@pytest.mark.parametrize("schedule", ["splitfed_v1", *slow("splitfed_v3")])
def test_it_resumes_and_loads(tmp_path: Path, older: Path, schedule: str) -> None:
    held_out: dict[str, float] = {"held_out": 0.2} if schedule == "splitfed_v3" else {}
    given: dict[str, Any] = {
        "model": {"name": "mlp"}, "data": {"batch_size": 8}, "schedule": {"name": schedule},
        "phones": {"count": 4, "local_steps": 2, **held_out}, "optimizer": {"momentum": 0.9},
        "cluster": {"backend": "inprocess", "client_actors": 2}, "run": {"rounds": 4},
    }  # fmt: skip
    settings = rs.Config(**given)
    # What is given alone: fields that came later mean nothing to the older code.
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(given))
    for name in ("begun", "whole"):
        command = [sys.executable, "-c", BEGIN, str(tmp_path / "settings.yaml"), str(tmp_path), name]
        done = subprocess.run(command, cwd=older, capture_output=True, text=True)
        assert "Traceback" not in done.stderr, done.stderr
    resumed = rs.fit(settings.with_values(run={"resume": str(tmp_path / "begun")}), callbacks=[])
    assert len(resumed.metrics_dataframe) == 4
    assert_same_weights(rs.load_model(str(tmp_path / "whole")), resumed.path)
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("begun", "whole")]
    assert files[0] == files[1]
    if held_out:
        own = [rs.load_model(str(tmp_path / name), phone=1).state_dict() for name in ("begun", "whole")]
        assert all(torch.equal(own[0][key], own[1][key]) for key in own[1])
