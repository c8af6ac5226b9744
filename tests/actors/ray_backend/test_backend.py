"""Placement on real Ray: who asked for what, and where it runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import ray_split as rs
from tests.conftest import alive_actors


class Look(rs.Callback):
    """Looks at the actors while the run goes on."""

    def __init__(self) -> None:
        self.where: list[str] = []
        self.resources: dict[str, list[dict[str, float]]] = {}

    def on_run_start(self, settings: rs.Config, where: list[str], first_round: int) -> None:
        self.where = where
        for actor in alive_actors():
            self.resources.setdefault(actor.class_name, []).append(asked(actor.required_resources or {}))


def asked(resources: dict[str, float]) -> dict[str, float]:
    """What an actor takes of its placement group, as CPUs and GPUs."""
    found = {re.fullmatch(r"(CPU|GPU)_group_[0-9a-f]{8,}", name): amount for name, amount in resources.items()}
    return {match[1]: amount for match, amount in found.items() if match}


def look(path: Path, **sections: Any) -> tuple[rs.Result, Look]:
    seen = Look()
    run = {"storage_path": str(path), "name": "r", "rounds": 1}
    settings = rs.Config(phones={"count": 2, "local_steps": 1}, run=run, **sections)
    return rs.fit(settings, callbacks=[seen]), seen


@pytest.mark.thorough
def test_the_server_takes_a_gpu_if_the_cluster_has_one_and_clients_take_cpus(
    tmp_path: Path, ray_session: object
) -> None:
    result, seen = look(tmp_path, cluster={"client_actors": 2})
    assert seen.resources["Server"] == [{"CPU": 1.0, "GPU": 1.0}]
    assert seen.resources["Client"] == [{"CPU": 1.0}] * 2
    assert seen.resources["FedServer"] == [{}]
    assert rs.Config.from_yaml(Path(result.path) / "config.yaml").server.num_gpus == 1


@pytest.mark.thorough
def test_without_a_gpu_the_server_runs_on_the_cpu_and_says_so(tmp_path: Path, ray_session: object) -> None:
    _, seen = look(tmp_path, server={"num_gpus": 0}, cluster={"client_actors": 1})
    assert seen.resources["Server"] == [{"CPU": 1.0}]
    assert seen.where[0].startswith("server on CPU (the cluster has no GPU")


@pytest.mark.thorough
def test_more_actors_than_cpus_are_refused_and_none_is_started(tmp_path: Path, ray_session: object) -> None:
    with pytest.raises(rs.SettingsError, match=r"cluster\.client_actors: is 9, but .* room for only 8"):
        look(tmp_path, cluster={"client_actors": 9})
    assert not (tmp_path / "r").exists()
