"""What the actors' processes have mapped, read from the system while a run goes on."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

import ray_split as rs
from tests.failures.test_kills import processes
from tests.runs.equality.test_same_bytes import config, model_bytes


class Maps(rs.Callback):
    """Whose process has torch, after each round; after the second the fed server is killed, and made again."""

    def __init__(self) -> None:
        self.found: list[dict[str, bool]] = []

    def on_round_end(self, row: dict[str, Any]) -> None:
        actors = processes("ALIVE")
        self.found.append({name: "libtorch" in Path(f"/proc/{pid}/maps").read_text() for name, pid in actors})
        if row["round"] == 1:
            os.kill(dict(actors)["FedServer"], signal.SIGKILL)


@pytest.mark.parametrize(
    "changes",
    [
        {"schedule": {"name": "splitfed_v3"}, "phones": {"held_out": 0.2}},  # each phone's own states
        pytest.param(
            {"aggregator": {"name": "trimmed_mean"}, "schedule": {"name": "splitfed_v1"}}, marks=pytest.mark.slow
        ),
    ],
    ids=["personal", "robust"],
)
@pytest.mark.thorough
def test_the_fed_servers_process_never_maps_torch(tmp_path: Path, ray_session: object, changes: dict[str, Any]) -> None:
    maps, settings = Maps(), config(tmp_path, "remote", "ray").with_values(**changes)
    result = rs.fit(settings, callbacks=[maps])
    assert maps.found == [{"Client": True, "FedServer": False, "Server": True}] * 4
    assert result.metrics["recoveries"] == 1
    local = settings.with_values(run={"name": "local"}, cluster={"backend": "inprocess"})
    assert model_bytes(result.path) == model_bytes(rs.fit(local, callbacks=[]).path)
