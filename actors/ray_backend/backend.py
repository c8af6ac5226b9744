"""Backend 2: Ray. Where the actors are placed, and what happens when they die. The only file here that imports ray."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from actors.ray_backend.joining.connection import (
    Connection,
    connect as _connect,
)  # first: it sets what ray reads when it is imported

import ray
from ray.exceptions import ActorUnavailableError, RayError
from ray.util.metrics import Counter, Gauge
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from actors.ray_backend import errors as ray_errors, heartbeat, software_versions
from actors.client import Client
from actors.fed_server import FedServer
from actors.gateway.invitation import OVER, gateway_arguments, invitation
from actors.ray_backend.placement_group import POLL_SECONDS, WARN_SECONDS, Group, group_of, nodes, plan
from actors.process_memory import settle
from actors.ray_backend.actor_names import Names
from actors.server import Server
from actors.ray_backend.actor_software import software
from actors.ray_backend.leading_client import LeadingClient
from actors.ray_backend.prometheus import Telemetry
from actors.ray_backend.sent_by_value import check_sent
from actors.ray_backend.waiting import Watch, has_process, id_of
from actors import channel
from actors.resources import placement, threads
from actors.resources.gateway_node import gateway_node
from actors.resources.placement import number
from ray_split.segments.segment_work import SegmentWork
from ray_split import config, logs
from ray_split.callbacks import Callback
from ray_split.config.user_code import by_value
from ray_split.data.load import Parts
from ray_split.data.stream import Stream
from ray_split.devices.own_address import own_address
from ray_split.errors import RunFailedError, SettingsError
from actors.resources.resolve import resolve
from ray_split.messages.contract import Contract
from ray_split.schedules.roles import FED_SERVER, GATEWAY, Handle, Ref, Roles, is_single, server_names
from actors.role_arguments import fed_server_arguments, remember

# Ray would bring back an empty actor that goes on as if nothing had happened, or reorder calls: we make new ones.
NO_RESTARTS = {"max_restarts": 0, "max_task_retries": 0, "enable_task_events": False}
PING_SECONDS = 10.0  # who doesn't answer within these is busy
GOODBYE_SECONDS = 5.0  # for telling devices that the run is over
VERDICT_SECONDS = 120.0  # Ray says within these whether a node that is out of reach is dead

logger = logs.get(__name__)


def connect(settings: config.Cluster) -> RayBackend:
    """Use the Ray that this process is in, one at the address, or that of `ray start`; else start one for the run."""
    return RayBackend(_connect(settings.address))


class RayBackend:
    """The actors as Ray actors."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._roles: Roles | None = None
        self._makers: dict[str, Callable[[], Handle]] = {}
        self._group: Group | None = None
        self._settings: config.Config | None = None
        self._single = self._direct = False
        self._port = 0  # of the gateway
        self._gateway_node: str | None = None  # by Ray's id; none: the driver's
        self._looked = (0.0, 0)  # when, and how many results were not there
        self._named_dead: set[str] = set()  # ids of actors that errors named
        self._lost: list[str] = []  # replaced, and not yet told of
        self._between: Callable[[], None] = lambda: None
        self._watch = Watch(None, self._named, lambda: self._between())
        self.differing: dict[str, dict[str, str]] = {}  # by node: software that is not the driver's

    @property
    def roles(self) -> Roles:
        """The actors as they are now."""
        if self._roles is None:
            raise RuntimeError("the actors are not started")
        return self._roles

    def _named(self) -> dict[str, Handle]:
        return _named(self.roles) if self._roles else {}

    def meanwhile(self, do: Callable[[], None]) -> None:
        """Call this every few seconds while results are waited for; what it raises is raised."""
        self._between = do

    def resolve(self, settings: config.Config, work: SegmentWork | None = None) -> config.Config:
        """Settle what the cluster's nodes decide.

        Raises SettingsError if they could never have room for the actors, or for what can't be sent there.
        """
        check_sent(settings)
        return resolve(settings, list(nodes().values()), work)

    def start(self, settings: config.Config, parts: Parts, stream: Stream, contract: Contract) -> None:
        """Ask for room for all actors at once, and make them; `ready` waits for them."""
        settings = by_value.for_actors(settings)
        # Shared by all clients of a node, read without a copy.
        data = (settings, ray.put(parts), ray.put(stream), contract)
        self._settings, self._group = settings, group_of(settings)
        self._watch = Watch(settings.cluster.silent_seconds, self._named, lambda: self._between())
        gpus = 0 if settings.server.num_gpus == "auto" else settings.server.num_gpus
        names, clients = Names(str(settings.run.name)), range(int(settings.cluster.client_actors))
        self._direct = channel.is_direct(settings)
        role, cpus = LeadingClient if self._direct else Client, number(settings.cluster.cpus_per_client)
        cpus = 0 if settings.cluster.share_cpus == "always" else cpus
        client = self._maker(role, names, num_cpus=cpus, num_gpus=settings.cluster.client_gpus)
        server = self._maker(Server, names, num_cpus=number(settings.server.num_cpus), num_gpus=gpus)
        fed_server = self._maker(FedServer, names, num_cpus=0)
        self._makers = {name: partial(client, name, *data) for name in (f"client {i}" for i in clients)}
        servers = server_names(settings.server.replicas)
        self._makers |= {name: partial(server, name, settings, contract) for name in servers}
        if settings.phones.remote_phones:
            from actors.gateway.gateway import Gateway  # with aiohttp, which is wanted here alone

            gateway = self._maker(Gateway, names, num_cpus=0)
            self._makers[GATEWAY] = partial(gateway, GATEWAY, *data, *gateway_arguments(settings))
        self._makers[FED_SERVER] = partial(fed_server, FED_SERVER, *fed_server_arguments(settings, contract))
        self._single = is_single(settings)
        self._roles = self._of({name: make() for name, make in self._makers.items()})

    def _maker(self, role: type, names: Names, num_cpus: float, num_gpus: float = 0) -> Callable[..., Handle]:
        """What makes an actor of a name, where it has its room."""
        shown, resources = _shown(role, self._watch.period), {"num_cpus": num_cpus, "num_gpus": num_gpus}

        def make(name: str, *arguments: Any) -> Handle:
            options = {**resources, **names.options(name), **NO_RESTARTS}
            return shown.options(scheduling_strategy=self._place(name), **options).remote(*arguments)

        return make

    def _place(self, name: str) -> NodeAffinitySchedulingStrategy | PlacementGroupSchedulingStrategy:
        """Where an actor is to be made. Raises RunFailedError if the gateway's node is gone."""
        if name == FED_SERVER:  # it writes beside the driver's own files
            return _on(None)
        if name != GATEWAY:
            return self.group.strategy(name)
        try:
            self._gateway_node = gateway_node(self.settings, nodes(), self._gateway_node)
        except SettingsError as error:
            raise RunFailedError(f"the gateway has no node any more: {error}") from error
        return _on(self._gateway_node)

    @property
    def group(self) -> Group:
        """The room that the actors have."""
        if self._group is None:
            raise RuntimeError("the actors are not started")
        return self._group

    @property
    def settings(self) -> config.Config:
        """Those of the run."""
        if self._settings is None:
            raise RuntimeError("the actors are not started")
        return self._settings

    def _of(self, named: dict[str, Handle]) -> Roles:
        clients = [handle for name, handle in named.items() if name.startswith("client")]
        servers = [handle for name, handle in named.items() if name.startswith("server")]
        lanes, clips = self.settings.server.lanes, self.settings.optimizer.clips_model
        remembered = remember(self.settings)
        remote = frozenset(self.settings.phones.remote_phones)
        return Roles(
            *(clients, servers, named[FED_SERVER], self._single, lanes, clips, remembered, self._direct),
            gateway=named.get(GATEWAY),
            remote=remote,
        )

    def ready(self) -> list[str]:
        """Wait until all actors answer, and say where they run. Raises RunFailedError if there is no room for one."""
        settings = self.settings
        self.group.wait(settings.cluster.wait_seconds)
        self._wait_until_ready()
        self._compare_software()
        servers, count = self.roles.servers, len(self.roles.clients)
        devices = zip(server_names(len(servers)), self.get([each.device.remote() for each in servers]), strict=True)
        on = ", ".join(f"{name} on {_device(device, bool(settings.server.num_gpus))}" for name, device in devices)
        roles = f"{on}, {count} client actor(s) on {self._clients_device()}, fed server beside the driver"
        return [
            roles,
            threads.told(settings),
            channel.told(settings),
            *self.group.told(settings),
            self._connection.told,
            *self._invitation(),
        ]

    def _invitation(self) -> list[str]:
        if self.roles.gateway is None:
            return []
        (machine,) = self.get([self.roles.gateway.__ray_call__.remote(lambda _: own_address())])
        on = [] if self._gateway_node is None else [f"gateway on {nodes()[self._gateway_node].name}"]
        return [*on, *invitation(self.settings, self._port, machine)]

    def _clients_device(self) -> str:
        gpus = self.settings.cluster.client_gpus
        if not gpus:
            return "CPU"
        (name,) = self.get([self.roles.clients[0].device.remote()])
        return "CPU (torch sees no GPU there)" if name == "CPU" else f"{name}, {gpus:g} of one each"

    def plan(self, settings: config.Config) -> tuple[bool, list[str]]:
        """Whether there is room now, and who would be placed where: Ray is asked for the room, and gives it back."""
        return plan(settings)

    def _wait_until_ready(self) -> None:
        handles, start = _named(self.roles), time.monotonic()
        pings = {name: handle.__ray_call__.remote(settle) for name, handle in handles.items()}
        warn = start + WARN_SECONDS[0]
        while pings:
            done, _ = ray.wait(list(pings.values()), timeout=POLL_SECONDS)
            self.get(done)
            self._watch.look()
            pings = {name: ping for name, ping in pings.items() if ping not in done}
            late = time.monotonic() > warn
            if late or time.monotonic() - start > self.settings.cluster.wait_seconds:
                self._check_room([name for name in pings if not has_process(id_of(handles[name]))], start)
            if late and pings:
                warn = time.monotonic() + WARN_SECONDS[1]
                logger.warning("not ready yet: %s", ", ".join(pings))
        if self.roles.gateway is not None:  # a new one is where devices knew the old one
            (self._port,) = self.get([self.roles.gateway.serve.remote(self._port or self.settings.gateway.port)])
        if self._direct:
            self.get([client.meet.remote(self.roles.server, self._single) for client in self.roles.clients])

    def _compare_software(self) -> None:
        """Name each node whose software is not the driver's, once. Raises RunFailedError if a run can't be."""
        named = _named(self.roles)
        found = self.get([handle.__ray_call__.remote(software) for handle in named.values()])
        for node, told, has in software_versions.compared(
            dict(zip(named, found, strict=True)), software_versions.here()
        ):
            if node not in self.differing:
                logger.warning("%s", told)
            self.differing[node] = has

    def _check_room(self, waiting: list[str], start: float) -> None:
        """Say who waits for room. Raises RunFailedError if it is for too long."""
        if not waiting:
            return
        text = placement.waits(self.group.unplaced(), list(nodes().values())) or f"{', '.join(waiting)}: no process yet"
        if time.monotonic() - start > self.settings.cluster.wait_seconds:
            raise RunFailedError(f"no room within cluster.wait_seconds, {self.settings.cluster.wait_seconds:g}: {text}")
        logger.warning("%s", text)

    def get(self, refs: Sequence[Ref]) -> list[Any]:
        """The results. Raises what a call raised, or ActorLostError if an actor died."""
        try:
            return self._watch.get(refs)
        except RayError as error:
            names = {id_of(handle): name for name, handle in _named(self.roles).items()}
            told, dead = ray_errors.told(error, names)
            self._named_dead |= dead
            if told is error:
                raise
            raise told from error

    def waiting(self, refs: Sequence[Ref]) -> int:
        """How many of the results are not there yet, without waiting; as last looked at, once a second at most."""
        now = time.monotonic()
        if refs and now - self._looked[0] > POLL_SECONDS:
            late = ray.wait(list(refs), num_returns=len(refs), timeout=0, fetch_local=False)[1]
            self._looked = (now, len(late))
        return self._looked[1]

    def callbacks(self) -> list[Callback]:
        """Metrics, by Ray's way to Prometheus."""
        return [Telemetry(Counter, Gauge)]

    def rebuild(self) -> list[str]:
        """Replace the dead actors with empty ones, and say which."""
        named, dead = _named(self.roles), self._dead()
        for name in dead:
            ray.kill(named[name])  # who was out of reach may live: what it did meanwhile is not known
        self._watch.forget([named[name] for name in dead])
        self._named_dead.clear()
        self._roles = self._of({n: self._makers[n]() if n in dead else handle for n, handle in named.items()})
        # Kept until told: if another dies while these start, both are lost.
        self._lost += [name for name in named if name in dead and name not in self._lost]
        self._wait_until_ready()
        self._compare_software()
        lost, self._lost = self._lost, []
        return lost

    def _dead(self) -> set[str]:
        """Who is dead, all asked at once. Whoever an error named is, but Ray's verdict on its node is waited for:
        until then it might place the new one there.
        """
        named = _named(self.roles)
        suspects = {name for name, handle in named.items() if id_of(handle) in self._named_dead}
        asked = {n: handle.__ray_ready__.remote() for n, handle in named.items()}
        dead, start = set(suspects), time.monotonic()
        while asked and time.monotonic() - start < (VERDICT_SECONDS if suspects & asked.keys() else PING_SECONDS):
            done, _ = ray.wait(list(asked.values()), timeout=POLL_SECONDS)
            for name in [name for name, ref in asked.items() if ref in done]:
                error = _error(asked.pop(name))
                if isinstance(error, ActorUnavailableError):
                    time.sleep(POLL_SECONDS)
                    suspects.add(name)
                    asked[name] = named[name].__ray_ready__.remote()
                dead |= {name} if error else set()
        return dead

    def abandon(self) -> None:
        """Kill all but the fed server: calls of it that wait for the others fail, and it goes on with the next."""
        for name, handle in _named(self.roles).items():
            if name != FED_SERVER:
                ray.kill(handle)

    def stop(self) -> None:
        """Kill the actors, and disconnect from Ray if this process was not connected before."""
        if ray.is_initialized() and not self._connection.is_lost():
            self._end_actors()
        self._roles = self._group = None
        self._connection.close()

    def _end_actors(self) -> None:
        if self._roles is not None:
            self._say_goodbye()
            for handle in _named(self._roles).values():
                ray.kill(handle)
            self._watch.forget(list(self._named().values()))
        if self._group is not None:
            self._group.remove()

    def _say_goodbye(self) -> None:
        """Let devices know that the run is over, if the gateway can tell them."""
        if self._roles is not None and self._roles.gateway is not None:
            ray.wait([self._roles.gateway.stop.remote(OVER)], timeout=GOODBYE_SECONDS)


def _device(name: str, gpus: bool) -> str:
    if name != "CPU":
        return name
    return "CPU (torch sees no GPU there)" if gpus else "CPU (the cluster has no GPU, or server.num_gpus is 0)"


def _on(node: str | None) -> NodeAffinitySchedulingStrategy:
    """A node, by Ray's id; none: the driver's."""
    return NodeAffinitySchedulingStrategy(node or ray.get_runtime_context().get_node_id(), soft=False)


def _shown(role: type, period: float) -> Any:
    """The role as Ray's actor class, which gives a sign of life every so many seconds, from before it is made.

    Its lines in the driver's log begin with the actor's name.
    """

    def begin(actor: Any, *arguments: Any) -> None:
        heartbeat.begin(period)
        role.__init__(actor, *arguments)  # type: ignore[misc]

    shown = {"__repr__": lambda _: ray.get_runtime_context().get_actor_name(), "__module__": role.__module__}
    name = role.__mro__[-2].__name__  # of a leading client, too, this is Client
    return ray.remote(type(name, (role,), {**shown, "__init__": begin}))


def _named(roles: Roles) -> dict[str, Handle]:
    clients = {f"client {i}": handle for i, handle in enumerate(roles.clients)}
    servers = dict(zip(server_names(len(roles.servers)), roles.servers, strict=True))
    gateway = {} if roles.gateway is None else {GATEWAY: roles.gateway}
    return {**clients, **servers, **gateway, FED_SERVER: roles.fed_server}


def _error(ref: Ref) -> Exception | None:
    try:
        ray.get(ref)
    except RayError as error:
        failure: Exception = error
        return failure
    return None
