"""On which node the gateway is."""

from __future__ import annotations

from typing import Any

import pytest

import ray_split as rs
from actors.resources.gateway_node import gateway_node
from actors.resources.placement import Node, whole
from actors.resources.resolve import resolve
from ray_split.errors import SettingsError


def node(name: str, role: str | None = None) -> Node:
    return whole(name, 4, 0, {"ray-split/role": role} if role else {})


PLAIN = {"1": node("a"), "2": node("b")}
LABELLED = {"1": node("head", "head"), "3": node("c", "edge"), "2": node("d", "edge"), "4": node("e", "gateway")}


def settings(named: str | None, remote: int = 1, **cluster: Any) -> rs.Config:
    return rs.Config(phones={"count": 3, "remote": remote}, gateway={"node": named}, cluster=cluster)


def test_the_gateway_is_beside_the_driver_unless_a_node_is_labelled_for_it_or_named() -> None:
    assert gateway_node(settings(None), PLAIN) is None
    assert gateway_node(settings(None), LABELLED) == "4"
    assert gateway_node(settings("edge"), LABELLED) == "2"
    assert gateway_node(settings("head"), LABELLED) == "1"


def test_one_that_replaces_it_is_where_devices_know_it_while_the_node_lives() -> None:
    assert gateway_node(settings("edge"), LABELLED, before="3") == "3"
    assert gateway_node(settings("edge"), {key: LABELLED[key] for key in "124"}, before="3") == "2"


@pytest.mark.parametrize(("named", "nodes", "said"), [
    ("edge", PLAIN, "no node is labelled ray-split/role=edge. Start one with --labels=ray-split/role=edge."),
    ("egde", LABELLED, "no node is labelled ray-split/role=egde. Nodes are labelled edge, gateway and head."),
])  # fmt: skip
@pytest.mark.parametrize("autoscaled", [False, True])
def test_a_node_that_is_not_there_is_refused_before_anything_starts(
    named: str, nodes: dict[str, Node], said: str, autoscaled: bool
) -> None:
    with pytest.raises(SettingsError) as refused:
        resolve(settings(named, autoscaled=autoscaled, client_actors=1), list(nodes.values()))
    assert str(refused.value) == f"gateway.node: {said}"


def test_where_no_phone_is_remote_there_is_no_gateway_to_place() -> None:
    assert resolve(settings("edge", remote=0), list(PLAIN.values())).gateway.node == "edge"
