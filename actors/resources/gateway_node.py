"""On which node the gateway is: where devices look for it, so it is told beforehand and stays. Knows no Ray."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from actors.resources.placement import ROLE, Node, suits
from ray_split import config
from ray_split.errors import SettingsError, listed

ROLE_OF_GATEWAY = "gateway"


def gateway_node(settings: config.Config, nodes: Mapping[str, Node], before: str | None = None) -> str | None:
    """The node, of those by id, that the gateway is made on; none: the driver's. It asks for no CPU.

    It is one that gateway.node names; without that one labelled for gateways, if there is one. `before`: where the
    gateway was that this one replaces; it is there again, as long as the node lives. Raises SettingsError if no node
    has the label.
    """
    role = settings.gateway.node or ROLE_OF_GATEWAY
    found = sorted(each for each, node in nodes.items() if suits(node, {ROLE: role}))
    if settings.gateway.node is not None and not found:
        raise _no_such_node(settings.gateway.node, list(nodes.values()))
    if before in found:
        return before
    return found[0] if found else None


def check(settings: config.Config, nodes: Sequence[Node]) -> None:
    """Raises SettingsError if remote phones are to be served from a node that is not there."""
    if settings.phones.remote_phones and settings.cluster.backend == "ray":
        gateway_node(settings, {node.name: node for node in nodes})


def _no_such_node(role: str, nodes: Sequence[Node]) -> SettingsError:
    there = sorted({node.labels[ROLE] for node in nodes if ROLE in node.labels})
    labelled = f"Nodes are labelled {listed(there)}" if there else f"Start one with --labels={ROLE}={role}"
    return SettingsError("gateway.node", role, labelled, f"no node is labelled {ROLE}={role}")
