"""A run's actors as a schedule knows them: who is who, and Ray's own words to call them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ray_split import config

Ref = Any
"""Stands for a call's result, before it is there."""

Handle = Any
"""An actor: `handle.method.remote(*arguments)` submits a call and gives its Ref. Refs may be arguments."""


FED_SERVER = "fed server"
"""The name of the actor whose state is nowhere else but in the last checkpoint."""

GATEWAY = "gateway"

Method = Any
"""`handle.method`."""


def refs_of_each(method: Method, count: int, *arguments: object) -> list[Ref]:
    """Call a method that has several results: their refs. Of one result it returns no list."""
    if count == 1:
        return [method.remote(*arguments)]
    return list(method.options(num_returns=count).remote(*arguments))


@dataclass
class Roles:
    """The actors of a run. `single`: the model is cut once, and B has the loss.

    `lanes`: the cohorts that a server has under way at a time, at most. `clips`: B steps once the norm of all segments'
    gradients is known, at the client (`submit_backward`). `remember`: the segments of which phones remember something
    for the settings' algorithm. `direct`: clients lead exchanges (direct.py). `gateway`: by which `remote` phones take
    part, those outside the cluster; it is asked as a client is.
    """

    clients: Sequence[Handle]
    servers: Sequence[Handle]
    fed_server: Handle
    single: bool = False
    lanes: int = 8
    clips: bool = False
    remember: frozenset[str] = frozenset()
    direct: bool = False
    gateway: Handle | None = None
    remote: frozenset[int] = frozenset()

    @property
    def server(self) -> Handle:
        """The server, or the first of its replicas."""
        return self.servers[0]

    def server_of(self, number: int) -> Handle:
        """The replica that serves a round's cohort, phone or batch of this number."""
        return self.servers[number % len(self.servers)]

    def client(self, cohort: int, phones: Sequence[int] = ()) -> Handle:
        """The client that hosts a round's cohort of this number; of a remote phone, the gateway."""
        if self.gateway is not None and phones and phones[0] in self.remote:
            return self.gateway
        return self.clients[cohort % len(self.clients)]


def is_single(settings: config.Config) -> bool:
    """Whether the model is cut once. Only where the cuts are settled."""
    return len(settings.model.cuts or ()) == 1


def server_names(replicas: int) -> list[str]:
    """What the server is called, or each of its replicas."""
    return ["server"] if replicas == 1 else [f"server {i}" for i in range(replicas)]
