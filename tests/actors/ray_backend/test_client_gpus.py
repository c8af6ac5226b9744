"""Clients with a share of a GPU, as Ray gives it: a logical one, on which torch computes nothing here."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import ray_split as rs
from actors.ray_backend.backend import connect


class Asked(rs.Callback):
    """Looks at what the run's actors and their room have of GPUs."""

    def __init__(self) -> None:
        self.bundles: list[float] = []
        self.actors: list[float] = []

    def on_round_end(self, row: dict[str, object]) -> None:
        from ray.util import placement_group_table

        from tests.conftest import alive_actors

        groups = [group for group in placement_group_table().values() if group["state"] == "CREATED"]
        self.bundles = [bundle.get("GPU", 0.0) for group in groups for bundle in group["bundles"].values()]
        asked = [each.required_resources for each in alive_actors()]  # of a group's room: GPU_group_...
        self.actors = [max([each[name] for name in each if name.startswith("GPU")], default=0.0) for each in asked]


def config(folder: Path, backend: str, **cluster: object) -> rs.Config:
    return rs.Config(
        phones={"count": 4, "local_steps": 2},
        schedule={"name": "splitfed_v1"},
        server={"num_gpus": 0.5, "num_cpus": 1},
        cluster={"backend": backend, "client_actors": 2, "share_cpus": "never", "cpus_per_client": 1, **cluster},
        run={"storage_path": str(folder), "name": backend, "rounds": 1},
    )


@pytest.mark.thorough
def test_each_client_has_its_share_of_a_gpu_and_without_a_card_the_bits_of_a_cpu(
    tmp_path: Path, ray_session: object
) -> None:
    asked = Asked()
    found = rs.fit(config(tmp_path, "ray", client_gpus=0.25), callbacks=[asked])
    assert sorted(asked.bundles) == [0.25, 0.25, 0.5]
    assert sorted(asked.actors) == [0, 0.25, 0.25, 0.5]
    if not torch.cuda.is_available():
        expected = rs.fit(config(tmp_path, "inprocess"), callbacks=[])
        left = [(Path(each.path) / "model.safetensors").read_bytes() for each in (found, expected)]
        assert left[0] == left[1]


@pytest.mark.thorough
def test_a_dry_run_says_who_has_how_much_of_a_gpu(tmp_path: Path, ray_session: object) -> None:
    settings = config(tmp_path, "ray", client_gpus=0.25)
    backend = connect(settings.cluster)
    fits, lines = backend.plan(backend.resolve(settings))
    assert fits
    assert ["0.25 GPUs" in line for line in lines if line.startswith("client")] == [True, True]
    refused = config(tmp_path, "ray", client_gpus=0.5)
    with pytest.raises(rs.SettingsError, match=r"^cluster\.client_gpus: is 0\.5, but of 1 GPU"):
        backend.resolve(refused)
