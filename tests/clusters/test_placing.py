"""Where actors are placed on a Ray cluster of several nodes, and what is said where there is no room."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tests.programs import printed_by

pytestmark = [pytest.mark.thorough, pytest.mark.usefixtures("own_ray")]

SERVER_NODE, CLIENT_NODE = "on a node labelled ray-split/role=server", "on a node labelled ray-split/role=client"
FREE = "are free (an actor's must be on one node)"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What tests/clusters/placing.py prints."""
    return printed_by("tests.clusters.placing", str(tmp_path_factory.mktemp("placing")))


def test_each_role_runs_on_the_nodes_labelled_for_it_and_clients_are_spread_evenly(found: dict[str, Any]) -> None:
    places = Counter(tuple(place) for place in found["six"]["places"])
    assert {place: count for place, count in places.items() if place[0] == "Client"} == {
        ("Client", f"cpu {i}"): 2 for i in range(3)
    }
    assert places["FedServer", "head"] == 1
    assert places["Server", "gpu 0"] + places["Server", "gpu 1"] == 1
    assert sum(places.values()) == 8
    assert not [line for line in found["six"]["said"] if "labelled" in line]


def test_a_dry_run_says_who_would_be_placed_where_and_leaves_nothing(found: dict[str, Any]) -> None:
    assert [name for name, _ in found["dry"]] == ["server", *(f"client {i}" for i in range(6)), "fed server"]
    assert Counter(node for name, node in found["dry"] if "client" in name) == {f"cpu {i}": 2 for i in range(3)}
    assert dict(found["dry"])["server"].startswith("gpu")
    assert found["left_by_dry"] == 0


def test_a_number_of_clients_on_a_node_is_bounded(found: dict[str, Any]) -> None:
    counts = Counter(node for name, node in found["bound"] if "client" in name)
    assert sorted(counts.values()) == [1, 2, 2]
    assert found["too_bound"]["error"].startswith(
        "cluster.client_actors: is 4, but beside the server there is room for only 3"
    )


def test_too_few_cpus_are_refused_at_once_or_waited_for_and_named(found: dict[str, Any]) -> None:
    assert found["too_many"]["error"].startswith(
        "cluster.client_actors: is 13, but beside the server there is room for only 12"
    )
    has = f"such nodes have 12 CPUs and 0 GPUs, of which 12 CPUs and 0 GPUs {FREE}"
    assert found["too_many_waited"]["error"] == (
        f"no room within cluster.wait_seconds, 2: client 12: waits for 1 CPU {CLIENT_NODE}; {has}"
    )


def test_the_gateway_is_on_the_node_that_is_named_and_refused_where_none_is(found: dict[str, Any]) -> None:
    (place,) = [node for role, node in found["gateway_server"]["places"] if role == "Gateway"]
    assert place in ("gpu 0", "gpu 1") and dict(found["gateway_dry"])["gateway"] in ("gpu 0", "gpu 1")
    assert [line for line in found["gateway_server"]["said"] if line.startswith("gateway on ")]
    assert found["gateway_edge"]["error"] == (
        "gateway.node: no node is labelled ray-split/role=edge. Nodes are labelled client, head and server."
    )


def test_missing_gpus_are_named_and_a_node_that_is_added_lets_the_run_start(found: dict[str, Any]) -> None:
    waits = f"server: waits for 1 CPU and 1 GPU {SERVER_NODE}; such nodes have 2 CPUs and 2 GPUs, of which "
    assert found["no_gpu"]["error"] == f"no room within cluster.wait_seconds, 2: {waits}2 CPUs and 0 GPUs {FREE}"
    assert found["dry_no_gpu"] == [False, [f"{waits}2 CPUs and 0 GPUs {FREE}"]]
    assert ["Server", "gpu 2"] in found["gpu_later"]["places"]


def test_without_labels_any_node_will_do_and_this_is_said(found: dict[str, Any]) -> None:
    assert found["plain_said"] == [
        "no node is labelled ray-split/role=server: the server may run on any node with a GPU",
        "no node is labelled ray-split/role=client: clients may run on any node with a CPU",
    ]
    places = dict(found["plain"])
    assert places["server"].startswith("gpu")
    assert len({node for name, node in places.items() if "client" in name}) >= 4


def test_runs_leave_no_room_taken(found: dict[str, Any]) -> None:
    assert found["left"] == 0
