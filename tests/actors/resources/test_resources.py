"""What the nodes decide: how many clients, and the servers' GPUs; refused where they have no room."""

from __future__ import annotations

import pytest

import ray_split as rs
from actors.resources.placement import whole
from actors.resources.resolve import resolve


def resolved(cpus: int, gpus: float = 0, **sections: dict) -> tuple[object, object]:
    settings = resolve(rs.Config(**sections), [whole("x", cpus, gpus)])
    return settings.cluster.client_actors, settings.server.num_gpus


def test_auto_takes_the_cpus_that_the_server_leaves_and_a_gpu_if_there_is_one() -> None:
    assert resolved(8) == (7, 0.0)
    assert resolved(8, 2) == (7, 1.0)
    assert resolved(2) == (1, 0.0)
    assert resolved(16, server={"num_cpus": 4}, cluster={"cpus_per_client": 3}) == (4, 0.0)


def test_auto_starts_no_more_clients_than_phones() -> None:
    assert resolved(64, phones={"count": 5}) == (5, 0.0)


@pytest.mark.parametrize(
    ("phones", "cohorts"),
    [
        ({"count": 100, "cohort": 30}, 4),
        ({"count": 100, "cohort": 100}, 1),
        ({"count": 100, "cohort": 30, "per_round": 31}, 2),
        ({"count": 100, "per_round": 0.1}, 10),
    ],
    ids=str,
)
def test_auto_starts_no_more_clients_than_cohorts(phones: dict, cohorts: int) -> None:
    assert resolved(64, phones=phones) == (cohorts, 0.0)
    assert resolved(2, phones=phones) == (1, 0.0)


def test_numbers_are_kept() -> None:
    assert resolved(8, 1, server={"num_gpus": 0.5}, cluster={"client_actors": 2}) == (2, 0.5)


@pytest.mark.parametrize(
    ("cpus", "sections", "named"),
    [
        (1, {}, "server.num_cpus: is 1, but .* the cluster has 1"),
        (4, {"cluster": {"client_actors": 4}}, "cluster.client_actors: is 4, but .* room for only 3"),
        (4, {"server": {"num_gpus": 1}}, "server.num_gpus: is 1, but no node has more than 0"),
        (
            4,
            {"server": {"num_cpus": 2, "replicas": 2}},
            "server.num_cpus: is 2, but .* 2 replicas of the server need 5 CPUs",
        ),
        (
            4,
            {"server": {"replicas": 2}, "cluster": {"client_actors": 3}},
            "cluster.client_actors: is 3, but .* room for only 2",
        ),
    ],
)
def test_what_the_cluster_has_no_room_for_is_refused(cpus: int, sections: dict, named: str) -> None:
    with pytest.raises(rs.SettingsError, match=named):
        resolve(rs.Config(**sections), [whole("x", cpus, 0)])


def test_auto_is_a_gpu_for_each_replica_and_refused_where_there_are_fewer() -> None:
    assert resolved(8, 2, server={"replicas": 2}) == (6, 1.0)
    assert resolved(8, 0, server={"replicas": 2}) == (6, 0.0)
    assert resolved(8, 1, server={"replicas": 2, "num_gpus": 0.5}) == (6, 0.5)
    assert resolved(8, 1, server={"replicas": 2}, cluster={"backend": "inprocess"})[1] == 1.0
    with pytest.raises(
        rs.SettingsError,
        match=(
            r"server.num_gpus: can't be auto, because there are fewer "
            r"GPUs .1. than replicas .3.. Set a number, such as 0 or 0.33"
        ),
    ):
        resolved(8, 1, server={"replicas": 3})
    with pytest.raises(rs.SettingsError, match=r"server\.num_gpus: is 2, but there are 3 GPUs for 2 replicas"):
        resolved(8, 3, server={"replicas": 2, "num_gpus": 2})


def test_replicas_that_have_nothing_to_train_are_told_of(caplog: pytest.LogCaptureFixture) -> None:
    resolved(8, phones={"count": 100, "cohort": 50}, server={"replicas": 2})
    assert not caplog.records
    resolved(8, phones={"count": 100, "cohort": 50}, server={"replicas": 3})
    assert "1 of the server's replicas have nothing to train" in caplog.text


def test_on_an_autoscaled_cluster_numbers_are_given_and_may_be_more_than_there_is() -> None:
    cluster = {"autoscaled": True, "client_actors": 4}
    assert resolved(0, 0, server={"num_gpus": 1}, cluster=cluster) == (4, 1)
    with pytest.raises(
        rs.SettingsError, match=r"server\.num_gpus: can't be auto with cluster\.autoscaled, .* Set a number"
    ):
        resolved(0, cluster=cluster)
    with pytest.raises(rs.SettingsError, match=r"cluster\.client_actors: can't be auto with cluster\.autoscaled"):
        resolved(0, server={"num_gpus": 1}, cluster={"autoscaled": True})


@pytest.mark.parametrize(
    ("section", "field", "most"),
    [("cluster", "client_actors", 64), ("server", "replicas", 64), ("server", "num_cpus", 256)],
)
def test_one_process_hosts_no_more_than_it_can(section: str, field: str, most: int) -> None:
    def resolved(value: int, backend: str = "inprocess") -> rs.Config:
        sections = {"cluster": {"backend": backend, "autoscaled": backend == "ray", "client_actors": 1}}
        sections |= {"server": {"num_gpus": 0}}
        sections[section][field] = value
        return resolve(rs.Config(**sections), [])

    assert getattr(getattr(resolved(most), section), field) == most
    assert getattr(getattr(resolved(most + 1, "ray"), section), field) == most + 1
    line = rf"{section}\.{field}: must be at most {most} with cluster\.backend inprocess, not {most + 1}"
    with pytest.raises(rs.SettingsError, match=line):
        resolved(most + 1)


@pytest.mark.parametrize(
    ("gpus", "server", "cluster", "settled"),
    [
        (1, {}, {"client_gpus": 0.25}, (1, 0.75)),
        (1, {}, {"client_gpus": 0.25, "client_actors": 3}, (3, 0.25)),
        (2, {}, {"client_gpus": 0.5}, (2, 1.0)),
        (1, {"num_gpus": 0}, {"client_gpus": 0.25}, (4, 0.0)),
        (1, {"num_gpus": 0.5}, {"client_gpus": 0.1}, (5, 0.5)),
    ],
)
def test_with_a_share_of_a_gpu_for_clients_auto_takes_what_the_gpus_have(
    gpus: float, server: dict, cluster: dict, settled: tuple[int, float]
) -> None:
    assert resolved(16, gpus, server=server, cluster=cluster) == settled


@pytest.mark.parametrize(
    ("gpus", "server", "cluster", "wrong"),
    [
        (0, 0, {"client_gpus": 0.5}, r"is 0\.5, but the cluster has no GPU\. Set it to 0, or set cluster\.autoscaled"),
        (1, 1, {"client_gpus": 0.5}, r"of 1 GPU\(s\), of which servers have 1, there is room for 0 client\(s\), not 1"),
        (1, 0, {"client_gpus": 0.5, "client_actors": 3}, r"of 1 GPU\(s\) there is room for 2 client\(s\), not 3"),
        (1, "auto", {"client_gpus": 1}, r"of which servers have 1, there is room for 0"),
    ],
)
def test_clients_for_which_the_gpus_have_no_room_are_refused(
    gpus: float, server: object, cluster: dict, wrong: str
) -> None:
    with pytest.raises(rs.SettingsError, match=rf"^cluster\.client_gpus: .*{wrong}"):
        resolved(16, gpus, server={"num_gpus": server}, cluster=cluster)
