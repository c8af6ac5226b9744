"""Nodes that die under a run, on a Ray cluster of several nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.programs import printed_by

pytestmark = pytest.mark.usefixtures("own_ray")

PROGRAM = "tests.clusters.node_death"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return printed_by(PROGRAM, str(tmp_path_factory.mktemp("nodes")))


@pytest.mark.slow
def test_several_nodes_end_with_the_bytes_of_one_process(tmp_path: Path) -> None:
    found = printed_by(PROGRAM, str(tmp_path), "undisturbed")
    assert found["several"]["bytes"] == found["whole"]
    assert found["several"]["lost"] == []


@pytest.mark.slow
def test_the_clients_node_dies_and_another_takes_over(found: dict[str, Any]) -> None:
    assert found["client"]["bytes"] == found["whole"]
    assert {name for lost in found["client"]["lost"] for name in lost} == {"client 0"}


@pytest.mark.slow
def test_the_servers_node_dies_and_the_run_waits_for_another(found: dict[str, Any]) -> None:
    assert found["server"]["bytes"] == found["whole"]
    assert {name for lost in found["server"]["lost"] for name in lost} == {"server"}
    assert found["server"]["seconds"] > 12


@pytest.mark.slow
def test_without_room_the_run_fails_after_wait_seconds_and_says_for_what(found: dict[str, Any]) -> None:
    needs = "no room within cluster.wait_seconds, 10: server: waits for 1 CPU and 1 GPU; the cluster has "
    assert found["never"]["error"].startswith(needs + "1 CPU and 0 GPUs")
    assert found["taken"]["error"].startswith(needs + "2 CPUs and 1 GPU, of which")
