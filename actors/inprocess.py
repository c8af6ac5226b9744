"""Backend 1: all actors in this process, called at once. The readable specification of the other one.

What crosses is pickled on the way in and on the way out, so that no actor can see another's memory, and each call
runs with its role's number of threads. Where all segments are on one card what crosses stays there (local_pickle.py).
"""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Thread
from typing import TYPE_CHECKING, Any

import torch

from actors.client import Client
from actors.fed_server import FedServer
from actors.gateway.invitation import OVER, gateway_arguments, invitation
from actors.local_pickle import Pickled, dump, load
from actors.resources import gpu
from actors.resources.placement import cpus_here, number, whole
from actors.resources.resolve import resolve
from actors.role_arguments import fed_server_arguments, remember
from actors.server import Server
from ray_split import config
from ray_split.callbacks import Callback
from ray_split.data.load import Parts
from ray_split.data.stream import Stream
from ray_split.devices.own_address import own_address
from ray_split.errors import ActorLostError
from ray_split.messages.contract import Contract
from ray_split.schedules.roles import FED_SERVER, GATEWAY, Roles, is_single, server_names
from ray_split.segments.segment_work import SegmentWork

if TYPE_CHECKING:
    from actors.gateway.gateway import Gateway


@dataclass(frozen=True)
class LocalRef:
    """A call's result, pickled, or the exception that it raised."""

    content: Pickled | bytes = b""
    error: Exception | None = None

    def value(self) -> Any:
        """The result, a fresh copy each time. Raises what the call raised."""
        if self.error is not None:
            raise self.error
        return load(self.content)

    def parts(self, count: int) -> list[Any]:
        """The elements of the result; of a call that failed, as many of nothing."""
        return [None] * count if self.error is not None else self.value()


@dataclass
class LocalMethod:
    """`handle.method`, with Ray's word for calling it."""

    handle: LocalHandle
    name: str
    num_returns: int = 1

    def options(self, num_returns: int) -> LocalMethod:
        """With more than one, `remote` gives a ref for each element of the result."""
        return LocalMethod(self.handle, self.name, num_returns)

    def remote(self, *arguments: Any) -> Any:
        """Call the method now. A ref among the arguments is resolved; one that failed fails this call, unmade."""
        ref = self._call(arguments)
        if self.num_returns == 1:
            return ref
        return [ref if ref.error else LocalRef(self._dumped(part)) for part in ref.parts(self.num_returns)]

    def _call(self, arguments: tuple[Any, ...]) -> LocalRef:
        for argument in arguments:
            if isinstance(argument, LocalRef) and argument.error is not None:
                return argument
            if isinstance(argument, (list, tuple, dict)) and _holds_ref(argument):
                raise TypeError("refs are passed as arguments of their own: Ray does not resolve nested ones")
        try:
            return LocalRef(self._dumped(self.handle.call(self.name, [_resolve(a) for a in arguments])))
        except Exception as error:  # noqa: BLE001  whatever a call raises is its ref's to raise, as in Ray
            return LocalRef(error=error)

    def _dumped(self, value: Any) -> Pickled | bytes:
        return dump(value, self.handle.card)


class LocalHandle:
    """An actor in this process: `handle.method.remote(*arguments)`."""

    def __init__(self, name: str, make: Callable[[], Any], threads: int, card: torch.device | None = None) -> None:
        """`card`: tensors on it are handed over as they are, by reference."""
        self.name, self.card = name, card
        self._make = make
        self._threads = threads
        self._actor = _with_threads(threads, make)

    def kill(self) -> None:
        """As when the process of an actor dies: its state and its threads are gone, and every call fails."""
        if isinstance(self._actor, Client):
            self._actor.end()
        self._actor = None

    def rebuilt(self) -> bool:
        """Make the actor again if it was killed; says whether it was."""
        if self._actor is not None:
            return False
        self._actor = _with_threads(self._threads, self._make)
        return True

    def __getattr__(self, name: str) -> LocalMethod:
        return LocalMethod(self, name)

    def call(self, name: str, arguments: list[Any]) -> Any:
        """Run a method with the role's threads, leaving this process's own random numbers alone.

        Raises ActorLostError if the actor is dead.
        """
        if self._actor is None:
            raise ActorLostError(f"the {self.name} is dead")
        return _with_threads(self._threads, lambda: getattr(self._actor, name)(*arguments))


class GatewayHandle(LocalHandle):
    """The gateway, whose methods wait for devices in an event loop of its own: a thread."""

    def __init__(self, make: Callable[[], Gateway]) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name=GATEWAY, daemon=True)
        self._thread.start()
        super().__init__(GATEWAY, make, 1)

    def call(self, name: str, arguments: list[Any]) -> Any:
        """As LocalHandle.call."""
        if self._actor is None:
            raise ActorLostError(f"the {self.name} is dead")
        waiting = asyncio.run_coroutine_threadsafe(getattr(self._actor, name)(*arguments), self._loop)
        return _with_threads(1, waiting.result)

    def kill(self) -> None:
        """As LocalHandle.kill: devices' connections end."""
        if self._actor is not None:
            self.call("stop", [None])
        super().kill()

    def shut_down(self, reason: str) -> None:
        """End the gateway and its thread; devices are told why."""
        if self._actor is not None:
            self.call("stop", [reason])
        asyncio.run_coroutine_threadsafe(_cancel_the_rest(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _cancel_the_rest() -> None:
    """End what still waits for devices, where a run was stopped while it waited for that."""
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    if rest:
        await asyncio.wait(rest, timeout=5.0)


def _with_threads(threads: int, function: Callable[[], Any]) -> Any:
    before, random_state = torch.get_num_threads(), torch.get_rng_state()
    if threads != before:
        torch.set_num_threads(threads)
    try:
        return function()
    finally:
        torch.set_rng_state(random_state)
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)


def _resolve(argument: Any) -> Any:
    if isinstance(argument, LocalRef):
        return argument.value()
    return pickle.loads(pickle.dumps(argument, 5))


def _holds_ref(argument: Any) -> bool:
    if isinstance(argument, LocalRef):
        return True
    items = argument.values() if isinstance(argument, dict) else argument
    return isinstance(argument, (list, tuple, dict)) and any(_holds_ref(item) for item in items)


def connect(settings: config.Cluster) -> InProcessBackend:
    """The backend; there is nothing to connect to."""
    return InProcessBackend()


class InProcessBackend:
    """All actors in this process."""

    def __init__(self) -> None:
        self._roles: Roles | None = None
        self._gateway: GatewayHandle | None = None
        self._settings: config.Config | None = None
        self._port = 0
        self.differing: dict[str, dict[str, str]] = {}  # all is the driver's

    @property
    def roles(self) -> Roles:
        """The actors as they are now."""
        if self._roles is None:
            raise RuntimeError("the actors are not started")
        return self._roles

    def meanwhile(self, do: Callable[[], None]) -> None:
        """Nobody waits here: a call is done when it was made."""

    def resolve(self, settings: config.Config, work: SegmentWork | None = None) -> config.Config:
        """Settle what is `auto`: threads as on a Ray of this machine, to the same bits. Raises SettingsError."""
        return resolve(settings, [whole("this process", cpus_here(), float(torch.cuda.is_available()))], work)

    def start(self, settings: config.Config, parts: Parts, stream: Stream, contract: Contract) -> None:
        """Make the actors."""
        client_threads, count = number(settings.cluster.cpus_per_client), settings.cluster.client_actors
        card = gpu.common_card(settings)
        clients = [
            LocalHandle(f"client {i}", lambda: Client(settings, parts, stream, contract), client_threads, card)
            for i in range(int(count))
        ]
        servers = [
            LocalHandle(name, lambda: Server(settings, contract), number(settings.server.num_cpus), card)
            for name in server_names(settings.server.replicas)
        ]
        fed_server = LocalHandle(FED_SERVER, lambda: FedServer(*fed_server_arguments(settings, contract)), 1)
        remote = settings.phones.remote_phones
        if remote:
            from actors.gateway.gateway import Gateway  # with aiohttp, 140 modules that are wanted here alone

            arguments = gateway_arguments(settings)
            self._gateway = GatewayHandle(
                lambda: Gateway(settings, parts, stream, contract, *arguments, one_by_one=True)
            )
        self._settings = settings
        self._roles = Roles(
            clients,
            servers,
            fed_server,
            is_single(settings),
            settings.server.lanes,
            settings.optimizer.clips_model,
            remember(settings),
            gateway=self._gateway,
            remote=frozenset(remote),
        )

    def ready(self) -> list[str]:
        """Where the actors run; they are there at once."""
        clients, servers = len(self.roles.clients), ", ".join(server_names(len(self.roles.servers)))
        if self._gateway is not None and self._settings is not None:
            self._port = self._gateway.call("serve", [self._port or self._settings.gateway.port])
            return [self._here(clients, servers), *invitation(self._settings, self._port, own_address())]
        return [self._here(clients, servers)]

    def _here(self, clients: int, servers: str) -> str:
        return f"all actors in this process: {clients} client(s), {servers}, fed server"

    def plan(self, settings: config.Config) -> tuple[bool, list[str]]:
        """There is room."""
        return True, [f"all actors in this process: {settings.cluster.client_actors} client(s), server, fed server"]

    def get(self, refs: Sequence[LocalRef]) -> list[Any]:
        """The results. Raises what a call raised."""
        return [ref.value() for ref in refs]

    def waiting(self, refs: Sequence[LocalRef]) -> int:
        """None: a call is over when it is submitted."""
        return 0

    def callbacks(self) -> list[Callback]:
        """Nobody."""
        return []

    def rebuild(self) -> list[str]:
        """Replace the actors that were killed, and say which: nothing here dies by itself."""
        roles = self.roles
        handles = [*roles.clients, *roles.servers, roles.fed_server, *([roles.gateway] if roles.gateway else [])]
        lost = [handle.name for handle in handles if handle.rebuilt()]
        if GATEWAY in lost and self._gateway is not None:
            self._gateway.call("serve", [self._port])
        return lost

    def abandon(self) -> None:
        """Nothing is under way here when this is called."""

    def stop(self) -> None:
        """Drop the actors."""
        if self._gateway is not None:
            self._gateway.shut_down(OVER)
        for client in self._roles.clients if self._roles else ():
            client.kill()
        self._roles = self._gateway = None
