"""What the cluster decides: how many clients, and the servers' GPUs. Refused, if it could never have room for them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from actors.placement import Node, most_clients, server_needs, suits
from ray_split import config, logs
from ray_split.config.phones import Phones
from ray_split.data.participation import drawn
from ray_split.errors import SettingsError

HINT = "; with cluster.autoscaled a run waits for nodes to come"

logger = logs.get(__name__)


def resolve(settings: config.Config, nodes: Sequence[Node]) -> config.Config:
    """Settle client actors and the servers' GPUs. Raises SettingsError if they don't fit.

    `auto` is a GPU for each replica. If there are some, but too few, it is refused: whether replicas are to share a GPU
    or to do without is a person's to say.
    """
    on_ray, autoscaled = settings.cluster.backend == "ray", settings.cluster.autoscaled
    if not on_ray:
        _check_one_process(settings)
    if on_ray and autoscaled:
        _check_numbers(settings)
    each = [node.gpus for node in nodes if suits(node, server_needs(settings, nodes)[0].labels)]
    if on_ray and not autoscaled:
        _check_gpus(settings, each)
    if settings.server.num_gpus == "auto":
        settings = settings.with_values(server={"num_gpus": 1.0 if sum(each) >= 1 else 0.0})
    most = most_clients(settings, nodes)
    if on_ray and not autoscaled:
        _check_fits(settings, nodes, most)
    if (idle := settings.server.replicas - cohorts(settings.phones)) > 0:
        few = "%d of the server's replicas have nothing to train: a round has fewer cohorts; see phones.cohort"
        logger.warning(few, idle)
    if settings.cluster.client_actors == "auto":
        settings = settings.with_values(cluster={"client_actors": min(max(1, most), cohorts(settings.phones))})
    return settings


IN_ONE_PROCESS = {
    "cluster.client_actors": 64, "server.replicas": 64, "cluster.cpus_per_client": 256, "server.num_cpus": 256,
}  # fmt: skip
"""At most: there all actors are made, and compute, one after the other."""


def _check_one_process(settings: config.Config) -> None:
    for name, most in IN_ONE_PROCESS.items():
        section, _, field = name.partition(".")
        value = getattr(getattr(settings, section), field)
        if value != "auto" and value > most:
            allowed = f"at most {most} in one process (cluster.backend inprocess), where more bring nothing"
            raise SettingsError(name, value, allowed)


def cohorts(phones: Phones) -> int:
    """How many cohorts a round has."""
    size = 1 if phones.cohort == "auto" else phones.cohort
    return -(-drawn(phones, phones.count) // size)


def _check_numbers(settings: config.Config) -> None:
    """An autoscaled cluster may have no worker yet: what it has now says nothing of what there will be."""
    found = {"cluster.client_actors": settings.cluster.client_actors, "server.num_gpus": settings.server.num_gpus}
    for field, value in found.items():
        if value == "auto":
            raise SettingsError(field, value, "a number: with cluster.autoscaled nodes come when actors ask for them")


def _check_gpus(settings: config.Config, nodes: Sequence[float]) -> None:
    """Of the GPUs that each of the nodes has. A server's must be on one node."""
    gpus, replicas, there = settings.server.num_gpus, settings.server.replicas, sum(nodes)
    share = min(there / replicas, max(nodes, default=0.0))
    most = f"{_floor(share):g}"
    has = "as many as a node for it has" if replicas == 1 else f"of {there:g} GPUs for each of {replicas} replicas"
    if isinstance(gpus, str):
        if 0 < there < replicas:
            raise SettingsError("server.num_gpus", gpus, f"a number, such as 0 or {most} {has}")
    elif gpus > share:
        raise SettingsError("server.num_gpus", gpus, f"at most {most}, {has}{HINT}")


def _floor(share: float) -> float:
    """A GPU's share as Ray takes it: below one in steps, above it whole."""
    return math.floor(share) if share >= 1 else math.floor(share * 100) / 100


def _check_fits(settings: config.Config, nodes: Sequence[Node], most: int) -> None:
    clients, replicas = settings.cluster.client_actors, settings.server.replicas
    cpus = f"the cluster has {sum(node.cpus for node in nodes):g}" + (f", on {len(nodes)} nodes" if nodes[1:] else "")
    if most < 1:
        least = replicas * settings.server.num_cpus + settings.cluster.cpus_per_client
        who = "the server" if replicas == 1 else f"{replicas} replicas of the server"
        allowed = f"less: one client and {who} need {least:g} CPUs, {cpus}{HINT}"
        raise SettingsError("server.num_cpus", settings.server.num_cpus, allowed)
    if clients != "auto" and clients > most:
        raise SettingsError("cluster.client_actors", clients, f"at most {most}, beside what servers take: {cpus}{HINT}")
