"""Which nodes suit which actors, and whether there is room for all: decided here, carried out by `ray_backend`.

A node's label `ray-split/role` (head, server, client) says what it is for. Where no node has a role's label, any node
with the CPUs or GPUs will do. Knows no Ray.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import NamedTuple

from ray_split import config
from ray_split.schedules.roles import server_names

ROLE = "ray-split/role"
SERVER, CLIENT = "server", "client"
Labels = Mapping[str, str]


class Node(NamedTuple):
    """A node of the cluster: its name for people, labels, what it has in all, and what of that is free."""

    name: str
    labels: Labels
    cpus: float
    gpus: float
    free_cpus: float
    free_gpus: float


class Need(NamedTuple):
    """What must lie on one node: CPUs and GPUs for the actors of these names, on a node with these labels."""

    names: tuple[str, ...]
    cpus: float
    gpus: float
    labels: Labels = MappingProxyType({})
    shared: bool = False  # the actors compute on the same CPUs, by turns

    @property
    def text(self) -> str:
        """The actors, for people."""
        first, last = self.names[0], self.names[-1]
        return first if first == last else f"{first} to {last.rpartition(' ')[2]}"


def cpus_here() -> int:
    """This machine's CPUs; two at least, as a client and the server each take one."""
    return max(2, os.cpu_count() or 1)


def number(cpus: int | str) -> int:
    """How many CPUs a setting stands for; as long as it is not settled, one."""
    return 1 if cpus == "auto" else int(cpus)


def whole(name: str, cpus: float, gpus: float, labels: Labels | None = None) -> Node:
    """A node of which all is free."""
    return Node(name, labels or {}, cpus, gpus, cpus, gpus)


def labels_for(role: str, nodes: Sequence[Node], autoscaled: bool) -> Labels:
    """The labels that a node for the role must have: none, if no node has the role's.

    Where nodes come when asked for, a cluster that labels its head labels the others.
    """
    wanted = {ROLE: role}
    labelled = any(suits(node, wanted) for node in nodes) or (autoscaled and any(ROLE in node.labels for node in nodes))
    return wanted if labelled else {}


def suits(node: Node, labels: Labels) -> bool:
    """Whether a node has the labels."""
    return labels.items() <= node.labels.items()


def server_needs(settings: config.Config, nodes: Sequence[Node]) -> list[Need]:
    """What servers ask for, each on its own."""
    gpus = 0.0 if settings.server.num_gpus == "auto" else settings.server.num_gpus
    labels = labels_for(SERVER, nodes, settings.cluster.autoscaled)
    cpus = number(settings.server.num_cpus)
    return [Need((name,), cpus, gpus, labels) for name in server_names(settings.server.replicas)]


def client_needs(settings: config.Config, nodes: Sequence[Node]) -> list[Need]:
    """What clients ask for: each on its own, or as many together as a node may have at most."""
    count, each = int(settings.cluster.client_actors), number(settings.cluster.cpus_per_client)
    gpus = client_gpus(settings)
    labels = labels_for(CLIENT, nodes, settings.cluster.autoscaled)
    names = [f"client {i}" for i in range(count)]
    groups = -(-count // (settings.cluster.clients_per_node or 1))
    borders = [count * i // groups for i in range(groups + 1)]
    shares = [tuple(names[start:stop]) for start, stop in pairwise(borders)]
    return [Need(share, each * len(share), gpus_together([gpus] * len(share)), labels) for share in shares]


def client_gpus(settings: config.Config) -> float:
    """The share of a GPU that Ray gives each client; in one process all are on the one that is there."""
    return settings.cluster.client_gpus if settings.cluster.backend == "ray" else 0.0


def gpus_together(each: Sequence[float]) -> float:
    """What actors with these shares of GPUs ask for together: of one GPU their sum; else whole ones, none divided."""
    total = round(math.fsum(each), 4)
    if total <= 1:
        return total
    left: list[float] = []  # of GPUs that are shared
    for share in sorted((share for share in each if 0 < share < 1), reverse=True):
        place = next((i for i, free in enumerate(left) if share <= free + 1e-9), None)
        if place is None:
            left.append(1.0)
            place = len(left) - 1
        left[place] -= share
    return len(left) + math.fsum(share for share in each if share >= 1)


def _many_on(gpus: float, share: float) -> int:
    """How many actors with this share fit on so many GPUs, none of them divided."""
    whole_ones, rest = divmod(gpus, 1)
    return int(whole_ones) * int(1 / share + 1e-9) + int(rest / share + 1e-9)


def needs(settings: config.Config, nodes: Sequence[Node]) -> list[Need]:
    """All that must have room before a run starts; the fed server asks for none."""
    servers, clients = server_needs(settings, nodes), client_needs(settings, nodes)
    if settings.cluster.share_cpus != "always":
        return [*servers, *clients]
    cpus = max(servers[0].cpus, sum(need.cpus for need in clients))
    shares = [client_gpus(settings)] * int(settings.cluster.client_actors)
    gpus = gpus_together([servers[0].gpus, *shares]) if any(shares) else servers[0].gpus
    names = (name for need in (*servers, *clients) for name in need.names)
    return [servers[0]._replace(names=tuple(names), cpus=cpus, gpus=gpus, shared=True)]


def apart(settings: config.Config, wanted: Sequence[Need]) -> bool:
    """Whether no two of the needs may share a node: that is how a number of clients on a node is bounded."""
    return settings.cluster.clients_per_node is not None and len(wanted) > 1


class Fit:
    """Nodes being filled: each need goes to the suitable node that has the fewest, and no GPU to spare for it."""

    def __init__(self, nodes: Sequence[Node], apart: bool = False) -> None:
        self.nodes = list(nodes)
        self._taken = [0] * len(self.nodes)
        self._apart = apart

    def place(self, need: Need) -> int | None:
        """Take the need's room on a node: its number; None if none has it."""
        found = [i for i, node in enumerate(self.nodes) if self._has_room(i, node, need)]
        if not found:
            return None
        best = min(found, key=lambda i: (self._taken[i], self.nodes[i].free_gpus > 0 and not need.gpus, i))
        node = self.nodes[best]
        self._taken[best] += 1
        left = node.free_cpus - need.cpus, node.free_gpus - need.gpus
        self.nodes[best] = node._replace(free_cpus=left[0], free_gpus=left[1])
        return best

    def _has_room(self, number: int, node: Node, need: Need) -> bool:
        free = need.cpus <= node.free_cpus and need.gpus <= node.free_gpus
        return free and suits(node, need.labels) and not (self._apart and self._taken[number])

    def clients(self, labels: Labels, cpus: int, at_most: int | None, gpus: float = 0.0) -> int:
        """How many clients there is room for, on what is left."""
        left = [(n, taken) for n, taken in zip(self.nodes, self._taken, strict=True) if suits(n, labels)]
        free = [node for node, taken in left if not (self._apart and taken)]
        rooms = [int(node.free_cpus // cpus) for node in free]
        if gpus:
            rooms = [min(room, _many_on(node.free_gpus, gpus)) for room, node in zip(rooms, free, strict=True)]
        return sum(min(room, at_most or room) for room in rooms)


def in_all(nodes: Iterable[Node]) -> list[Node]:
    """The nodes as they are when nothing is taken."""
    return [node._replace(free_cpus=node.cpus, free_gpus=node.gpus) for node in nodes]


def most_clients(settings: config.Config, nodes: Sequence[Node]) -> int:
    """How many clients the cluster has room for beside the servers; none, if it has none for them."""
    bound = settings.cluster.clients_per_node
    fit = Fit(in_all(nodes), apart=bound is not None and len(nodes) > 1)
    if None in [fit.place(need) for need in server_needs(settings, nodes)]:
        return 0
    labels = labels_for(CLIENT, nodes, settings.cluster.autoscaled)
    return fit.clients(labels, number(settings.cluster.cpus_per_client), bound, client_gpus(settings))


def most_by_gpus(settings: config.Config, nodes: Sequence[Node]) -> int | None:
    """How many clients the GPUs have room for beside the servers, whatever the CPUs; None if clients ask for none."""
    share = client_gpus(settings)
    if not share:
        return None
    fit = Fit([node._replace(free_cpus=math.inf) for node in in_all(nodes)])
    if None in [fit.place(need) for need in server_needs(settings, nodes)]:
        return 0
    labels = labels_for(CLIENT, nodes, settings.cluster.autoscaled)
    return sum(_many_on(node.free_gpus, share) for node in fit.nodes if suits(node, labels))


def without_room(wanted: Sequence[Need], nodes: Sequence[Node], apart: bool) -> list[Need]:
    """The needs for which nothing is free now, those that ask for most placed first."""
    fit = Fit(nodes, apart)
    return [need for need in sorted(wanted, key=lambda need: (-need.gpus, -need.cpus)) if fit.place(need) is None]


def amounts(cpus: float, gpus: float) -> str:
    """'1 CPU and 2 GPUs'."""
    parts = [f"{number:g} {what}{'' if number == 1 else 's'}" for number, what in ((cpus, "CPU"), (gpus, "GPU"))]
    return " and ".join(parts)


def asked(need: Need) -> str:
    """What a need asks for, for people."""
    plain = amounts(need.cpus, need.gpus) if need.gpus else amounts(need.cpus, 0).partition(" and ")[0]
    labelled = " and ".join(f"{key}={value}" for key, value in need.labels.items())
    return plain + (f" on a node labelled {labelled}" if labelled else "")


def waits(missing: Sequence[Need], nodes: Sequence[Node]) -> str:
    """Who waits for what, and what the nodes that suit have, for people."""
    return "; ".join(f"{_who(alike)}: {_wait(alike)}; {_there(alike[0], nodes)}" for alike in _grouped(missing))


def _grouped(missing: Sequence[Need]) -> list[list[Need]]:
    groups: dict[tuple[float, float, str], list[Need]] = {}
    for need in missing:
        groups.setdefault((need.cpus, need.gpus, str(need.labels)), []).append(need)
    return list(groups.values())


def _who(alike: Sequence[Need]) -> str:
    names = [need.text for need in alike]
    return ", ".join(names) if len(names) < 5 else f"{', '.join(names[:3])} and {len(names) - 3} more"


def _wait(alike: Sequence[Need]) -> str:
    return f"wait for {asked(alike[0])} each" if len(alike) > 1 else f"waits for {asked(alike[0])}"


def _there(need: Need, nodes: Sequence[Node]) -> str:
    there = [node for node in nodes if suits(node, need.labels)]
    which = "such nodes have" if need.labels else "the cluster has"
    if not there:
        return "there is no such node"
    total = amounts(math.fsum(node.cpus for node in there), math.fsum(node.gpus for node in there))
    free = amounts(math.fsum(node.free_cpus for node in there), math.fsum(node.free_gpus for node in there))
    return f"{which} {total}, of which {free} are free (an actor's must be on one node)"


ANY = {SERVER: ("the server", "GPU"), CLIENT: ("clients", "CPU")}


def unlabelled(settings: config.Config, nodes: Sequence[Node]) -> list[str]:
    """What a run says of roles that no node is labelled for. On one node there is no choice, and nothing to say."""
    if len(nodes) < 2:
        return []
    gpus = settings.server.num_gpus not in ("auto", 0)
    return [
        f"no node is labelled {ROLE}={role}: {who} may run on any node with a {what if gpus else 'CPU'}"
        for role, (who, what) in ANY.items()
        if not labels_for(role, nodes, settings.cluster.autoscaled)
    ]


def spread(places: Mapping[str, str], nodes: Mapping[str, Node]) -> list[str]:
    """How many of whom run on which node, a line for each; nothing, on one node."""
    if len(nodes) < 2:
        return []
    lines = []
    for node in nodes.values():
        here = [name for name, place in places.items() if place == node.name]
        if here:
            lines.append(f"{node.name}: {_who([Need((name,), 0, 0) for name in here])}")
    return lines


def table(wanted: Sequence[Need], places: Mapping[str, Node]) -> list[str]:
    """Who is placed where, with what, a line each."""
    asks = {name: _asked_by(need) for need in wanted for name in need.names}
    width = max(len(name) for name in places)
    return [
        f"{name:<{width}}  {asks.get(name, amounts(0, 0)):<18}  {node.name}  {_labels(node)}".rstrip()
        for name, node in places.items()
    ]


def _asked_by(need: Need) -> str:
    """What each of a need's actors asks for."""
    if need.shared:
        return f"{amounts(need.cpus, need.gpus)}, shared"
    return amounts(need.cpus / len(need.names), need.gpus / len(need.names))


def _labels(node: Node) -> str:
    return f"{ROLE}={node.labels[ROLE]}" if ROLE in node.labels else ""
