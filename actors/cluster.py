"""Wiring 2: Ray. Where the actors are placed, and what happens when they die. The only file here that imports ray."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from actors.auth import use_token

use_token()  # before ray is imported
# Refs of a round that failed are dropped unread. Ray would print what each of them holds, a page long.
os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")

import ray
from ray._private import services, state
from ray.exceptions import (
    ActorUnavailableError,
    LocalRayletDiedError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
    WorkerCrashedError,
)
from ray.util.metrics import Counter, Gauge
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors import reach, room
from actors.client import Client
from actors.fed_server import FedServer
from actors.memory import settle
from actors.naming import Names
from actors.server import Server
from actors.telemetry import Telemetry
from ray_split import config, logs
from ray_split.callbacks import Callback
from ray_split.data import Parts
from ray_split.draws import Stream
from ray_split.failure import ActorLostError, RunFailedError, SettingsError
from ray_split.promises import Borders
from ray_split.wiring import FED_SERVER, Handle, Ref, Resources, Roles, fed_server_arguments, is_single

# Ray would bring back an empty actor that goes on as if nothing had happened, or reorder calls: we make new ones.
NO_RESTARTS = {"max_restarts": 0, "max_task_retries": 0, "enable_task_events": False}
# Something died, and what it held: an actor, its node, an object that was there only.
DEATHS = (
    RayActorError,
    ObjectLostError,
    NodeDiedError,
    WorkerCrashedError,
    LocalRayletDiedError,
    OutOfMemoryError,  # Ray's memory monitor killed it; torch's own error is another
)
PING_SECONDS = 10.0  # who doesn't answer within these is busy
VERDICT_SECONDS = 120.0  # Ray says within these whether a node that is out of reach is dead
POLL_SECONDS = 1.0
WARN_SECONDS = (10.0, 60.0)  # of waiting: for the first warning, and between the others

logger = logs.get(__name__)


def connect(settings: config.Cluster) -> tuple[RayWiring, Resources]:
    """Use the Ray that this process is in, the one at the address, or a running one; else start a local one."""
    ours = not ray.is_initialized()
    if ours:
        _init(settings.address)
    total = ray.cluster_resources()
    return RayWiring(ours), Resources(cpus=int(total.get("CPU", 0)), gpus=total.get("GPU", 0.0))


def _init(address: str | None) -> None:
    options: dict[str, Any] = {"log_to_driver": True, "logging_level": logging.ERROR}
    if named := address or os.environ.get("RAY_ADDRESS"):
        if complaint := reach.complaint(named):
            raise SettingsError("cluster.address", named, f"the address of a running Ray: {complaint}")
        try:
            ray.init(address=named, **options)
        except (ConnectionError, ValueError) as error:
            allowed = f"the address of a running Ray, with its token: {_first_line(error)}"
            raise SettingsError("cluster.address", named, allowed) from error
        return
    try:
        ray.init(address=_running(), **options)
    except ConnectionError:
        # Two at least: a client and the server each take one.
        ray.init(address="local", num_cpus=max(2, os.cpu_count() or 1), include_dashboard=False, **options)


def _running() -> str:
    """The Ray that was last started on this machine. Raises ConnectionError if it is gone."""
    found = str(services.get_ray_address_from_environment("auto", None))
    if reach.complaint(found):
        raise ConnectionError(f"the Ray at {found} is gone")
    return found


class RayWiring:
    """The actors as Ray actors."""

    def __init__(self, ours: bool) -> None:
        self._ours = ours  # whether this process connected to Ray, and so disconnects
        self._roles: Roles | None = None
        self._makers: dict[str, Callable[[], Handle]] = {}
        self._needs: dict[str, room.Needs] = {}
        self._wait_seconds = 0.0
        self._single = False
        self._looked = (0.0, 0)  # when, and how many results were not there
        self._named_dead: set[str] = set()  # ids of actors that errors named
        self._lost: list[str] = []  # replaced, and not yet told of

    @property
    def roles(self) -> Roles:
        """The actors as they are now."""
        if self._roles is None:
            raise RuntimeError("the actors are not started")
        return self._roles

    def start(self, settings: config.Config, parts: Parts, stream: Stream, borders: Borders) -> None:
        """Make the actors; `ready` waits for them."""
        # Shared by all clients of a node, read without a copy.
        parts_ref, stream_ref = ray.put(parts), ray.put(stream)
        gpus = 0 if settings.server.num_gpus == "auto" else settings.server.num_gpus
        for_client = {"num_cpus": settings.cluster.cpus_per_client, "num_gpus": 0}
        for_server = {"num_cpus": settings.server.num_cpus, "num_gpus": gpus}
        client, server = _actor(Client, **for_client), _actor(Server, **for_server)
        # It writes beside the driver's own files.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        fed_server = _actor(FedServer, num_cpus=0, num_gpus=0, scheduling_strategy=here)
        count, make = int(settings.cluster.client_actors), Names(str(settings.run.name)).make
        self._makers = {
            f"client {i}": partial(make, f"client {i}", client, settings, parts_ref, stream_ref, borders)
            for i in range(count)
        }
        self._makers["server"] = partial(make, "server", server, settings, borders)
        self._makers[FED_SERVER] = partial(make, FED_SERVER, fed_server, *fed_server_arguments(settings, borders))
        self._needs = {**dict.fromkeys(self._makers, for_client), "server": for_server, FED_SERVER: {}}
        self._single, self._wait_seconds = is_single(settings), settings.cluster.wait_seconds
        self._roles = self._of({name: maker() for name, maker in self._makers.items()})

    def _of(self, named: dict[str, Handle]) -> Roles:
        clients = [handle for name, handle in named.items() if name.startswith("client")]
        return Roles(clients, named["server"], named[FED_SERVER], self._single)

    def ready(self) -> list[str]:
        """Wait until all actors answer, and say where they run. Raises RunFailedError if there is no room for one."""
        self._wait_until_ready()
        device = _device(self.get([self.roles.server.device.remote()])[0], self._needs["server"]["num_gpus"])
        count = len(self.roles.clients)
        return [f"server on {device}, {count} client actor(s) on CPU, fed server beside the driver"]

    def _wait_until_ready(self) -> None:
        handles, start = _named(self.roles), time.monotonic()
        pings = {name: handle.__ray_call__.remote(settle) for name, handle in handles.items()}
        warn = start + WARN_SECONDS[0]
        while pings:
            done, _ = ray.wait(list(pings.values()), timeout=POLL_SECONDS)
            self.get(done)
            pings = {name: ping for name, ping in pings.items() if ping not in done}
            late = time.monotonic() > warn
            if late or time.monotonic() - start > self._wait_seconds:
                self._check_room([name for name in pings if not _has_process(handles[name])], start)
            if late and pings:
                warn = time.monotonic() + WARN_SECONDS[1]
                logger.warning("not ready yet: %s", ", ".join(pings))

    def _check_room(self, waiting: list[str], start: float) -> None:
        """Say who waits for room. Raises RunFailedError if it is for too long."""
        if not waiting:
            return
        needs = {name: self._needs[name] for name in waiting}
        text = room.waits(needs, ray.available_resources(), ray.cluster_resources())
        if time.monotonic() - start > self._wait_seconds:
            raise RunFailedError(f"no room within cluster.wait_seconds, {self._wait_seconds:g}: {text}")
        logger.warning("%s", text)

    def get(self, refs: Sequence[Ref]) -> list[Any]:
        """The results. Raises what a call raised, or ActorLostError if an actor died."""
        try:
            return list(ray.get(list(refs)))
        except RayError as error:
            told = self._told(error)
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

    def _told(self, error: Exception) -> Exception:
        """What an error of Ray's is to the round loop."""
        while isinstance(error, RayTaskError) and isinstance(error.cause, Exception):
            error = error.cause
        if not isinstance(error, DEATHS):
            return error
        if not isinstance(error, RayActorError):
            return ActorLostError(_first_line(error))
        if error.actor_init_failed:
            return RunFailedError(f"{self._name(error)} could not be made: {room.raised(str(error))}")
        self._named_dead.add(error.actor_id)
        what = "is out of reach" if isinstance(error, ActorUnavailableError) else "died"
        return ActorLostError(f"{self._name(error)} {what}{room.death(str(error))}")

    def _name(self, error: RayActorError) -> str:
        names = {_id(handle): name for name, handle in _named(self.roles).items()}
        return names.get(error.actor_id, "an actor")

    def rebuild(self) -> list[str]:
        """Replace the dead actors with empty ones, and say which."""
        named, dead = _named(self.roles), self._dead()
        for name in dead:
            ray.kill(named[name])  # who was out of reach may live: what it did meanwhile is not known
        self._named_dead.clear()
        self._roles = self._of({n: self._makers[n]() if n in dead else handle for n, handle in named.items()})
        # Kept until told: if another dies while these start, both are lost.
        self._lost += [name for name in named if name in dead and name not in self._lost]
        self._wait_until_ready()
        lost, self._lost = self._lost, []
        return lost

    def _dead(self) -> set[str]:
        """Who is dead, all asked at once. Whoever an error named is, but Ray's verdict on its node is waited for:
        until then it might place the new one there.
        """
        named = _named(self.roles)
        suspects = {name for name, handle in named.items() if _id(handle) in self._named_dead}
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

    def stop(self) -> None:
        """Kill the actors, and disconnect from Ray if this process was not connected before."""
        if self._roles is not None and ray.is_initialized():
            for handle in _named(self._roles).values():
                ray.kill(handle)
        self._roles = None
        if self._ours:
            ray.shutdown()


def _device(name: str, gpus: float) -> str:
    if name != "CPU":
        return name
    return "CPU (torch sees no GPU there)" if gpus else "CPU (the cluster has no GPU, or server.num_gpus is 0)"


def _actor(role: type, **options: Any) -> Any:
    """The role as Ray's actor class; its lines in the driver's log begin with the actor's name."""
    shown = {"__repr__": lambda _: ray.get_runtime_context().get_actor_name(), "__module__": role.__module__}
    return ray.remote(**options, **NO_RESTARTS)(type(role.__name__, (role,), shown))


def _named(roles: Roles) -> dict[str, Handle]:
    clients = {f"client {i}": handle for i, handle in enumerate(roles.clients)}
    return {**clients, "server": roles.server, FED_SERVER: roles.fed_server}


def _id(handle: Handle) -> str:
    return str(handle._actor_id.hex())


def _has_process(handle: Handle) -> bool:
    """Whether Ray found room for the actor, also while it is being made."""
    return bool(state.actors(_id(handle)).get("Pid"))


def _error(ref: Ref) -> Exception | None:
    try:
        ray.get(ref)
    except RayError as error:
        failure: Exception = error
        return failure
    return None


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split()[:60])
