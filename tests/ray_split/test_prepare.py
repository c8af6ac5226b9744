from __future__ import annotations

import pytest

import ray_split as rs
from ray_split.prepare import prepare, resolve
from ray_split.wiring import Resources


def resolved(cpus: int, gpus: float = 0, **sections: dict) -> tuple[object, object]:
    settings = resolve(rs.Config(**sections), Resources(cpus, gpus))
    return settings.cluster.client_actors, settings.server.num_gpus


def test_auto_takes_the_cpus_that_the_server_leaves_and_a_gpu_if_there_is_one() -> None:
    assert resolved(8) == (7, 0.0)
    assert resolved(8, 2) == (7, 1.0)
    assert resolved(2) == (1, 0.0)
    assert resolved(16, server={"num_cpus": 4}, cluster={"cpus_per_client": 3}) == (4, 0.0)


def test_auto_starts_no_more_clients_than_phones() -> None:
    assert resolved(64, phones={"count": 5}) == (5, 0.0)


def test_numbers_are_kept() -> None:
    assert resolved(8, 1, server={"num_gpus": 0.5}, cluster={"client_actors": 2}) == (2, 0.5)


@pytest.mark.parametrize(
    ("cpus", "sections", "named"),
    [
        (1, {}, "server.num_cpus: 1 .* the cluster has 1"),
        (4, {"cluster": {"client_actors": 4}}, "cluster.client_actors: 4 .* at most 3"),
        (4, {"server": {"num_gpus": 1}}, "server.num_gpus: 1.0 .* at most 0"),
    ],
)
def test_what_the_cluster_has_no_room_for_is_refused(cpus: int, sections: dict, named: str) -> None:
    with pytest.raises(rs.SettingsError, match=named):
        resolve(rs.Config(**sections), Resources(cpus, 0))


def test_a_loss_that_would_broadcast_is_refused_for_a_batch_of_one_too() -> None:
    settings = rs.Config(task={"loss": "mse"}, data={"batch_size": 1}, run={"name": "x"})
    with pytest.raises(rs.SettingsError, match=r"task\.loss: 'mse'.*target size"):
        prepare(settings)
