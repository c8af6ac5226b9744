"""What the cluster decides: how many clients, and the servers' GPUs. Refused, if it could never have room for them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from actors import channel
from actors.resources import gateway_node, threads
from actors.resources.placement import SERVER, Node, client_gpus, labels_for, most_by_gpus, most_clients, number, suits
from actors.resources.threads import Room, Share
from ray_split import config, logs
from ray_split.config.phones import Phones
from ray_split.data.participation import drawn
from ray_split.errors import SettingsError
from ray_split.segments.segment_work import SegmentWork

HINT = ", or set cluster.autoscaled to wait for more nodes"

logger = logs.get(__name__)


def resolve(settings: config.Config, nodes: Sequence[Node], work: SegmentWork | None = None) -> config.Config:
    """Settle CPUs, client actors and the servers' GPUs. Raises SettingsError if they don't fit.

    `auto` is a GPU for each replica. If there are some, but too few, it is refused: whether replicas are to share a GPU
    or to do without is a person's to say. CPUs: by what each side computes; as long as that isn't known, one each.
    """
    channel.check(settings)
    gateway_node.check(settings, nodes)
    on_ray, autoscaled = settings.cluster.backend == "ray", settings.cluster.autoscaled
    _check_client_gpus(settings, nodes)
    if not on_ray:
        _check_one_process(settings)
    if on_ray and autoscaled:
        _check_numbers(settings)
    each = [node.gpus for node in nodes if suits(node, labels_for(SERVER, nodes, autoscaled))]
    if on_ray and not autoscaled:
        _check_gpus(settings, each)
    if settings.server.num_gpus == "auto":
        settings = settings.with_values(server={"num_gpus": _auto_gpus(settings, nodes, sum(each))})
    if on_ray and not autoscaled:
        _check_client_room(settings, nodes)
    settings = _share_out(settings, nodes, threads.on_gpu(work) if work and settings.server.num_gpus else work)
    if (idle := settings.server.replicas - cohorts(settings.phones)) > 0:
        few = "%d of the server's replicas have nothing to train: a round has fewer cohorts; see phones.cohort"
        logger.warning(few, idle)
    return settings


def _auto_gpus(settings: config.Config, nodes: Sequence[Node], there: float) -> float:
    """A GPU for each replica; where clients have a share of the only one, what they leave of it."""
    if there < 1:
        return 0.0
    wanted = settings.cluster.client_actors
    most = most_by_gpus(settings.with_values(server={"num_gpus": 1.0}), nodes)
    clients = 1 if wanted == "auto" else wanted
    rest = round(1 - clients * client_gpus(settings), 4)
    return 1.0 if most is None or most >= clients or rest <= 0 else rest


def _share_out(settings: config.Config, nodes: Sequence[Node], work: SegmentWork | None) -> config.Config:
    """Settle CPUs, and how many clients there are."""
    on_ray, autoscaled = settings.cluster.backend == "ray", settings.cluster.autoscaled
    if on_ray and not autoscaled:
        _check_shared(settings, nodes)
    shares = [] if autoscaled or work is None else list(_shares(settings, nodes, work))
    if work is not None and shares:
        share = threads.choose(settings, work, _room(settings, nodes), cohorts(settings.phones), shares)
        return _with(settings, share if on_ray else share._replace(clients=1))  # there one is as good as many
    most = most_clients(settings, nodes)
    if on_ray and not autoscaled:
        _check_fits(settings, nodes, max(most, 0 if work is None else _most_that_share(settings, nodes)))
    return _with(settings, Share(1, 1, min(max(1, most), cohorts(settings.phones))))


def _with(settings: config.Config, share: Share) -> config.Config:
    """The settings with what is `auto` as the share has it."""
    cluster = {
        "cpus_per_client": share.client,
        "client_actors": share.clients,
        "share_cpus": "always" if share.same_cpus else "never",
    }
    open_ = {name: value for name, value in cluster.items() if getattr(settings.cluster, name) == "auto"}
    server = {"num_cpus": share.server} if settings.server.num_cpus == "auto" else {}
    return settings.with_values(cluster=open_, server=server)


def _room(settings: config.Config, nodes: Sequence[Node]) -> Room:
    servers = [node for node in nodes if suits(node, labels_for(SERVER, nodes, settings.cluster.autoscaled))]
    alone = len(nodes) == 1 and settings.server.replicas == 1 and settings.cluster.clients_per_node is None
    return Room(max((int(node.cpus) for node in servers), default=0), alone)


def _shares(settings: config.Config, nodes: Sequence[Node], work: SegmentWork) -> Iterator[Share]:
    """What the CPUs may be shared out as, so that all fits."""
    cluster, room = settings.cluster, _room(settings, nodes)
    cohort = 1 if settings.phones.cohort == "auto" else settings.phones.cohort
    for server, client in threads.pairs(settings, work, cohort, room):
        rooms = []
        if cluster.share_cpus != "always":
            rooms.append((False, most_clients(_tried(settings, server, client), nodes)))
        if cluster.share_cpus != "never" and room.alone and max(server, client) <= room.largest:
            by_gpus = most_by_gpus(settings, nodes)
            rooms.append((True, room.largest // client if by_gpus is None else min(room.largest // client, by_gpus)))
        for same_cpus, most in rooms:
            wanted = cluster.client_actors
            enough = min(most, cohorts(settings.phones))
            clients = threads.enough_clients(settings, work, server, client, enough) if wanted == "auto" else wanted
            if 1 <= clients <= most:
                yield Share(server, client, clients, same_cpus)


def _most_that_share(settings: config.Config, nodes: Sequence[Node]) -> int:
    """How many clients there is room for on the server's CPUs; none where they can't be shared."""
    room, each = _room(settings, nodes), number(settings.cluster.cpus_per_client)
    may = room.alone and settings.cluster.share_cpus != "never" and number(settings.server.num_cpus) <= room.largest
    return room.largest // each if may else 0


def _tried(settings: config.Config, server: int, client: int) -> config.Config:
    """The settings with these CPUs, unvalidated: there are hundreds to try."""
    cluster = settings.cluster.model_copy(update={"cpus_per_client": client})
    return settings.model_copy(
        update={"cluster": cluster, "server": settings.server.model_copy(update={"num_cpus": server})}
    )


def _check_shared(settings: config.Config, nodes: Sequence[Node]) -> None:
    if settings.cluster.share_cpus == "always" and not _room(settings, nodes).alone:
        why = (
            f"there are {len(nodes)} nodes"
            if len(nodes) > 1
            else "cluster.clients_per_node is set"
            if settings.cluster.clients_per_node is not None
            else f"there are {settings.server.replicas} replicas of the server"
        )
        raise SettingsError("cluster.share_cpus", "always", "Set auto or never", f"can't be always, because {why}")


IN_ONE_PROCESS = {
    "cluster.client_actors": 64, "server.replicas": 64, "cluster.cpus_per_client": 256, "server.num_cpus": 256,
}  # fmt: skip
"""At most: there all actors are made, and compute, one after the other."""


def _check_one_process(settings: config.Config) -> None:
    for name, most in IN_ONE_PROCESS.items():
        section, _, field = name.partition(".")
        value = getattr(getattr(settings, section), field)
        if value != "auto" and value > most:
            raise SettingsError(name, value, f"at most {most} with cluster.backend inprocess")


def _check_client_gpus(settings: config.Config, nodes: Sequence[Node]) -> None:
    gpus, field = settings.cluster.client_gpus, "cluster.client_gpus"
    on_ray = settings.cluster.backend == "ray"
    if gpus and not any(node.gpus for node in nodes) and not (on_ray and settings.cluster.autoscaled):
        where = "the cluster has no GPU" if on_ray else "torch sees no GPU in this process"
        hint = HINT if on_ray else ""
        raise SettingsError(field, gpus, f"Set it to 0{hint}", f"is {gpus:g}, but {where}")


def _check_client_room(settings: config.Config, nodes: Sequence[Node]) -> None:
    """Raises SettingsError where the GPUs have no room for the clients beside the servers."""
    most, wanted = most_by_gpus(settings, nodes), settings.cluster.client_actors
    clients = 1 if wanted == "auto" else wanted
    if most is not None and most < clients:
        gpus, there = settings.cluster.client_gpus, sum(node.gpus for node in nodes)
        servers = settings.server.replicas * float(settings.server.num_gpus)
        beside = f", of which servers have {servers:g}," if servers else ""
        wrong = f"is {gpus:g}, but of {there:g} GPU(s){beside} there is room for {most} client(s), not {clients}"
        raise SettingsError("cluster.client_gpus", gpus, f"Set less of it, fewer cluster.client_actors{HINT}", wrong)


def cohorts(phones: Phones) -> int:
    """How many cohorts a round has."""
    size = 1 if phones.cohort == "auto" else phones.cohort
    return -(-drawn(phones, phones.count) // size)


def _check_numbers(settings: config.Config) -> None:
    """An autoscaled cluster may have no worker yet: what it has now says nothing of what there will be."""
    found = {"cluster.client_actors": settings.cluster.client_actors, "server.num_gpus": settings.server.num_gpus}
    for field, value in found.items():
        if value == "auto":
            wrong = "can't be auto with cluster.autoscaled, because the nodes are not there yet"
            raise SettingsError(field, value, "Set a number, such as 1", wrong)


def _check_gpus(settings: config.Config, nodes: Sequence[float]) -> None:
    """Of the GPUs that each of the nodes has. A server's must be on one node."""
    gpus, replicas, there = settings.server.num_gpus, settings.server.replicas, sum(nodes)
    share = min(there / replicas, max(nodes, default=0.0))
    most = f"{_floor(share):g}"
    has = f"there are {there:g} GPUs for {replicas} replicas" if replicas > 1 else f"no node has more than {most}"
    if isinstance(gpus, str):
        if 0 < there < replicas:
            wrong = f"can't be auto, because there are fewer GPUs ({there:g}) than replicas ({replicas})"
            raise SettingsError("server.num_gpus", gpus, f"Set a number, such as 0 or {most}", wrong)
    elif gpus > share:
        wrong = f"is {gpus:g}, but {has}"
        raise SettingsError("server.num_gpus", gpus, f"Set {most} or less{HINT}", wrong)


def _floor(share: float) -> float:
    """A GPU's share as Ray takes it: below one in steps, above it whole."""
    return math.floor(share) if share >= 1 else math.floor(share * 100) / 100


def _check_fits(settings: config.Config, nodes: Sequence[Node], most: int) -> None:
    clients, replicas = settings.cluster.client_actors, settings.server.replicas
    cpus = f"the cluster has {sum(node.cpus for node in nodes):g}" + (f", on {len(nodes)} nodes" if nodes[1:] else "")
    if most < 1:
        ours = number(settings.server.num_cpus)
        least = replicas * ours + number(settings.cluster.cpus_per_client)
        who = "the server" if replicas == 1 else f"{replicas} replicas of the server"
        wrong = f"is {ours}, but one client and {who} need {least:g} CPUs and {cpus}"
        raise SettingsError("server.num_cpus", ours, f"Set fewer CPUs{HINT}", wrong)
    if clients != "auto" and clients > most:
        wrong = f"is {clients}, but beside the server there is room for only {most} ({cpus})"
        raise SettingsError("cluster.client_actors", clients, f"Set {most} or fewer{HINT}", wrong)
