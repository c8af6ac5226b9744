"""A run that begins on cluster.yaml's cluster without a worker."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jobs.ray_head import environment
from tests.conftest import HANG_SECONDS, ROOT

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_ray")]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What tests/deploy/autoscaled.py prints."""
    folder: Path = tmp_path_factory.mktemp("autoscaled")
    command = [sys.executable, "-m", "tests.deploy.autoscaled", str(folder)]
    env = environment()
    env.pop("RAY_ADDRESS", None)
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=HANG_SECONDS)
    assert done.returncode == 0, done.stderr[-5000:]
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def test_the_run_asks_for_its_nodes_and_they_go_when_it_is_over(found: dict[str, Any]) -> None:
    assert found["error"] is None
    assert found["before"] == ["head"]
    assert found["during"] == ["client", "head", "server"]
    assert found["after"] == ["head"]


def test_each_role_is_on_the_node_that_is_labelled_for_it(found: dict[str, Any]) -> None:
    """By what they ask for: nothing here places by label."""
    assert found["roles"] == {"Client": ["client", "client"], "Server": ["server"], "FedServer": ["head"]}
