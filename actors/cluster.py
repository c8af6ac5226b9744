"""Wiring 2: Ray. Where the actors are placed, and what happens when they die. The only file here that imports ray."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

from actors.auth import use_token

use_token()  # before ray is imported

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.client import Client
from actors.fed_server import FedServer
from actors.memory import settle
from actors.server import Server
from ray_split import config
from ray_split.data import Parts
from ray_split.draws import Stream
from ray_split.failure import ActorLostError, SettingsError
from ray_split.promises import Borders
from ray_split.wiring import FED_SERVER, Handle, Ref, Resources, Roles, fed_server_arguments, is_single

# Ray would bring back an empty actor that goes on as if nothing had happened, or reorder calls: we make new ones.
NO_RESTARTS = {"max_restarts": 0, "max_task_retries": 0, "enable_task_events": False}
PING_SECONDS = 10.0
WAITING_SECONDS = 60.0

logger = logging.getLogger(__name__)


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
        try:
            ray.init(address=named, **options)
        except ConnectionError as error:
            allowed = f"the address of a running Ray: {_first_line(error)}"
            raise SettingsError("cluster.address", named, allowed) from error
        return
    try:
        ray.init(address="auto", **options)
    except ConnectionError:
        # Two at least: a client and the server each take one.
        ray.init(address="local", num_cpus=max(2, os.cpu_count() or 1), include_dashboard=False, **options)


class RayWiring:
    """The actors as Ray actors."""

    def __init__(self, ours: bool) -> None:
        self._ours = ours  # whether this process connected to Ray, and so disconnects
        self._roles: Roles | None = None
        self._makers: dict[str, Callable[[], Handle]] = {}
        self._single = False

    @property
    def roles(self) -> Roles:
        """The actors as they are now."""
        if self._roles is None:
            raise RuntimeError("the actors are not started")
        return self._roles

    def start(self, settings: config.Config, parts: Parts, stream: Stream, borders: Borders) -> list[str]:
        """Start the actors, wait until they answer, and say where they run."""
        # Shared by all clients of a node, read without a copy.
        parts_ref, stream_ref = ray.put(parts), ray.put(stream)
        gpus = 0 if settings.server.num_gpus == "auto" else settings.server.num_gpus
        client = _actor(Client, num_cpus=settings.cluster.cpus_per_client, num_gpus=0)
        server = _actor(Server, num_cpus=settings.server.num_cpus, num_gpus=gpus)
        # It writes beside the driver's own files.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        fed_server = _actor(FedServer, num_cpus=0, num_gpus=0, scheduling_strategy=here)
        count = int(settings.cluster.client_actors)
        self._makers = {
            f"client {i}": lambda: client.remote(settings, parts_ref, stream_ref, borders) for i in range(count)
        }
        self._makers["server"] = lambda: server.remote(settings, borders)
        self._makers[FED_SERVER] = lambda: fed_server.remote(*fed_server_arguments(settings, borders))
        self._single = is_single(settings)
        self._roles = self._of({name: make() for name, make in self._makers.items()})
        self._wait_until_ready()
        device = _device(self.get([self.roles.server.device.remote()])[0], gpus)
        return [f"server on {device}, {count} client actor(s) on CPU, fed server beside the driver"]

    def _of(self, named: dict[str, Handle]) -> Roles:
        clients = [handle for name, handle in named.items() if name.startswith("client")]
        return Roles(clients, named["server"], named[FED_SERVER], self._single)

    def _wait_until_ready(self) -> None:
        pings = {name: handle.__ray_call__.remote(settle) for name, handle in _named(self.roles).items()}
        while pings:
            done, _ = ray.wait(list(pings.values()), num_returns=len(pings), timeout=WAITING_SECONDS)
            self.get(done)
            pings = {name: ping for name, ping in pings.items() if ping not in done}
            if pings:
                free = ray.available_resources()
                have = f"{free.get('CPU', 0):g} CPUs and {free.get('GPU', 0):g} GPUs"
                logger.warning("still starting: %s; the cluster has %s left", ", ".join(pings), have)

    def get(self, refs: Sequence[Ref]) -> list[Any]:
        """The results. Raises what a call raised, or ActorLostError if an actor died."""
        try:
            return list(ray.get(list(refs)))
        except RayActorError as error:
            raise ActorLostError(_first_line(error)) from error
        except RayTaskError as error:
            cause = error.cause
            if isinstance(cause, RayActorError):
                raise ActorLostError(_first_line(cause)) from error
            raise cause if isinstance(cause, Exception) else error from error

    def rebuild(self) -> list[str]:
        """Replace the dead actors with empty ones, and say which."""
        named = _named(self.roles)
        lost = [name for name, handle in named.items() if not _alive(handle)]
        self._roles = self._of({n: self._makers[n]() if n in lost else handle for n, handle in named.items()})
        self._wait_until_ready()
        return lost

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
    return ray.remote(role).options(**options, **NO_RESTARTS)


def _named(roles: Roles) -> dict[str, Handle]:
    clients = {f"client {i}": handle for i, handle in enumerate(roles.clients)}
    return {**clients, "server": roles.server, FED_SERVER: roles.fed_server}


def _alive(handle: Handle) -> bool:
    try:
        ray.get(handle.__ray_ready__.remote(), timeout=PING_SECONDS)
    except RayActorError:
        return False
    except GetTimeoutError:
        return True  # busy, not dead
    return True


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split()[:60])
