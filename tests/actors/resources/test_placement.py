"""Which nodes suit which actors, who has room, and what is said of it."""

from __future__ import annotations

from typing import Any

import pytest

import ray_split as rs
from actors.resources.placement import (
    Fit,
    Need,
    Node,
    apart,
    asked,
    client_needs,
    gpus_together,
    labels_for,
    most_by_gpus,
    most_clients,
    needs,
    server_needs,
    spread,
    table,
    unlabelled,
    waits,
    whole,
    without_room,
)
from actors.resources.resolve import resolve

HEAD = whole("head", 0, 0, {"ray-split/role": "head"})
SERVER = whole("server", 2, 1, {"ray-split/role": "server"})
CLIENTS = [whole(f"client {i}", 4, 0, {"ray-split/role": "client"}) for i in range(2)]
LABELLED = [HEAD, SERVER, *CLIENTS]
PLAIN = [node._replace(labels={}) for node in LABELLED]


def settings(clients: int = 2, per_client: int = 1, gpus: Any = 1, **cluster: Any) -> rs.Config:
    cluster |= {"client_actors": clients, "cpus_per_client": per_client}
    return rs.Config(server={"num_gpus": gpus}, cluster=cluster)


def test_roles_go_to_the_nodes_labelled_for_them_and_anywhere_where_none_is() -> None:
    assert labels_for("server", LABELLED, autoscaled=False) == {"ray-split/role": "server"}
    assert labels_for("server", PLAIN, autoscaled=False) == {}
    assert labels_for("server", [HEAD, *CLIENTS], autoscaled=False) == {}
    assert labels_for("client", [HEAD, *CLIENTS], autoscaled=False) == {"ray-split/role": "client"}


def test_where_nodes_come_when_asked_for_a_labelled_head_is_enough() -> None:
    assert labels_for("server", [HEAD], autoscaled=True) == {"ray-split/role": "server"}
    assert labels_for("server", PLAIN, autoscaled=True) == {}


def test_a_run_needs_room_for_its_server_and_each_client() -> None:
    server, *clients = needs(settings(clients=3, per_client=2), LABELLED)
    assert (server.cpus, server.gpus, dict(server.labels)) == (1, 1, {"ray-split/role": "server"})
    assert [(need.names, need.cpus) for need in clients] == [((f"client {i}",), 2) for i in range(3)]


def test_with_a_bound_clients_of_a_node_need_their_room_together_and_apart_from_others() -> None:
    bound = settings(clients=5, clients_per_node=2)
    shares = client_needs(bound, LABELLED)
    assert [need.names for need in shares] == [("client 0",), ("client 1", "client 2"), ("client 3", "client 4")]
    assert [need.cpus for need in shares] == [1, 2, 2]
    assert apart(bound, needs(bound, LABELLED))
    assert not apart(settings(), needs(settings(), LABELLED))
    missing = without_room(needs(bound, LABELLED), LABELLED, apart=True)
    assert [need.names for need in missing] == [("client 0",)]  # two nodes for three shares


def test_needs_are_spread_and_keep_off_gpus_they_do_not_ask_for() -> None:
    fit = Fit(PLAIN)
    places = [fit.place(need) for need in needs(settings(clients=4), PLAIN)]
    assert [PLAIN[i].name for i in places if i is not None] == ["server", "client 0", "client 1", "server", "client 0"]


def test_clients_have_the_cpus_of_their_nodes_and_what_the_server_leaves_of_its_own() -> None:
    assert most_clients(settings(), LABELLED) == 8
    assert most_clients(settings(per_client=3), LABELLED) == 2
    assert most_clients(settings(), PLAIN) == 9
    assert most_clients(settings(clients_per_node=2), PLAIN) == 4  # and none beside the server
    assert most_clients(settings(clients_per_node=3), [whole("laptop", 8, 1)]) == 3
    assert most_clients(settings(gpus=2), LABELLED) == 0


def test_auto_means_what_the_labelled_nodes_have() -> None:
    auto = rs.Config(phones={"count": 50})
    found = resolve(auto, LABELLED)
    assert (found.cluster.client_actors, found.server.num_gpus) == (8, 1.0)
    away = [HEAD, *CLIENTS, whole("gpu", 8, 4, {"ray-split/role": "other"})]
    assert resolve(auto, [*away, whole("s", 1, 0, {"ray-split/role": "server"})]).server.num_gpus == 0.0


@pytest.mark.parametrize(
    ("sections", "named"),
    [
        ({"server": {"num_gpus": 2}}, r"server\.num_gpus: is 2, but no node has more than 1\."),
        (
            {"cluster": {"client_actors": 9}},
            r"cluster\.client_actors: is 9, but beside the server there is room for only 8",
        ),
        (
            {"server": {"num_cpus": 3}},
            (
                r"server\.num_cpus: is 3, but .* the cluster has 10, on "
                r"4 nodes\. Set fewer CPUs, or set cluster.autoscaled"
            ),
        ),
    ],
)
def test_what_no_node_has_is_refused(sections: dict[str, Any], named: str) -> None:
    with pytest.raises(rs.SettingsError, match=named):
        resolve(rs.Config(**sections), LABELLED)


def test_who_waits_is_told_with_what_and_with_what_there_is() -> None:
    busy = [node._replace(free_cpus=0.0, free_gpus=0.0) for node in LABELLED]
    wanted = needs(settings(clients=1), busy)
    assert waits(without_room(wanted, busy, False), busy) == (
        "server: waits for 1 CPU and 1 GPU on a node labelled ray-split/role=server; "
        "such nodes have 2 CPUs and 1 GPU, of which 0 CPUs and 0 GPUs are free (an actor's must be on one node); "
        "client 0: waits for 1 CPU on a node labelled ray-split/role=client; "
        "such nodes have 8 CPUs and 0 GPUs, of which 0 CPUs and 0 GPUs are free (an actor's must be on one node)"
    )
    many = client_needs(settings(clients=12), [HEAD, SERVER])
    there = "the cluster has 2 CPUs and 1 GPU, of which 2 CPUs and 1 GPU are free (an actor's must be on one node)"
    assert waits(many, [HEAD, SERVER]) == f"client 0, client 1, client 2 and 9 more: wait for 1 CPU each; {there}"
    assert waits([*server_needs(settings(autoscaled=True), [HEAD])], [HEAD]).endswith("there is no such node")
    assert waits([], busy) == ""


def test_what_is_asked_for_is_said_with_its_number() -> None:
    assert asked(Need(("x",), 2, 0.5)) == "2 CPUs and 0.5 GPUs"
    assert asked(Need(("x",), 1, 0)) == "1 CPU"


def test_a_cluster_without_labels_is_told_of_but_not_a_single_node() -> None:
    assert unlabelled(settings(), PLAIN) == [
        "no node is labelled ray-split/role=server: the server may run on any node with a GPU",
        "no node is labelled ray-split/role=client: clients may run on any node with a CPU",
    ]
    assert unlabelled(settings(gpus=0), [HEAD, *CLIENTS])[0].endswith("any node with a CPU")
    assert unlabelled(settings(), LABELLED) == unlabelled(settings(), PLAIN[:1]) == []


def test_places_are_told_a_line_a_node_or_a_line_an_actor() -> None:
    names: dict[str, Node] = {node.name: node for node in LABELLED}
    places = {"server": "server", "client 0": "client 0", "client 1": "client 0"}
    assert spread(places, names) == ["server: server", "client 0: client 0, client 1"]
    assert spread({"server": "head"}, {"head": HEAD}) == []
    wanted = needs(settings(clients=1), LABELLED)
    assert table(wanted, {"server": SERVER, "client 0": CLIENTS[0], "fed server": HEAD}) == [
        "server      1 CPU and 1 GPU     server  ray-split/role=server",
        "client 0    1 CPU and 0 GPUs    client 0  ray-split/role=client",
        "fed server  0 CPUs and 0 GPUs   head  ray-split/role=head",
    ]


@pytest.mark.parametrize(
    ("each", "together"),
    [
        ([], 0), ([0.25] * 3, 0.75), ([0.1] * 10, 1), ([0.6, 0.6], 2), ([1, 0.5], 2), ([1, 0.5, 0.5], 2),
        ([0.5] * 5, 3), ([0.3334] * 3, 2), ([0.0, 0.0], 0),
    ],
)  # fmt: skip
def test_shares_of_gpus_are_asked_for_as_ray_gives_them(each: list[float], together: float) -> None:
    assert gpus_together(each) == together


def test_clients_with_a_share_of_a_gpu_ask_for_it_beside_the_server_or_with_it() -> None:
    asked_for = settings(clients=3, gpus=0.25, client_gpus=0.25, share_cpus="never")
    assert [need.gpus for need in needs(asked_for, [whole("all", 8, 1)])] == [0.25, 0.25, 0.25, 0.25]
    shared = asked_for.with_values(cluster={"share_cpus": "always"})
    assert [(need.gpus, len(need.names)) for need in needs(shared, [whole("all", 8, 1)])] == [(1.0, 4)]
    together = asked_for.with_values(cluster={"clients_per_node": 3})
    assert [(need.gpus, len(need.names)) for need in client_needs(together, [whole("all", 8, 1)])] == [(0.75, 3)]
    alone = asked_for.with_values(cluster={"backend": "inprocess"})
    assert [need.gpus for need in client_needs(alone, [whole("all", 8, 1)])] == [0, 0, 0]


@pytest.mark.parametrize(
    ("gpus", "server", "share", "clients"),
    [(1, 0.5, 0.25, 2), (2, 1, 0.3, 3), (2, 0.5, 0.6, 1), (1, 1, 0.5, 0), (4, 1, 1, 3)],
)
def test_gpus_bound_how_many_clients_there_may_be(gpus: float, server: float, share: float, clients: int) -> None:
    asked_for, nodes = settings(gpus=server, client_gpus=share), [whole("all", 64, gpus)]
    assert (most_clients(asked_for, nodes), most_by_gpus(asked_for, nodes)) == (clients, clients)
    assert most_by_gpus(settings(gpus=server), nodes) is None
