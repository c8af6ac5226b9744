"""What a schedule and the round loop need of whatever connects the actors: Ray's own words, and `get`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ray_split import config
from ray_split.filesystem import Place
from ray_split.messages.contract import Borders
from ray_split.messages.weight_checks import Expected
from ray_split.segments import aggregators

if TYPE_CHECKING:
    from ray_split.callbacks import Callback

Ref = Any
"""Stands for a call's result, before it is there."""

Handle = Any
"""An actor: `handle.method.remote(*arguments)` submits a call and gives its Ref. Refs may be arguments."""


FED_SERVER = "fed server"
"""The name of the actor whose state is nowhere else but in the last checkpoint."""

Method = Any
"""`handle.method`."""


@dataclass
class Roles:
    """The actors of a run. `single`: the model is cut once, and B has the loss.

    `lanes`: the cohorts that a server has under way at a time, at most.
    """

    clients: Sequence[Handle]
    servers: Sequence[Handle]
    fed_server: Handle
    single: bool = False
    lanes: int = 8

    @property
    def server(self) -> Handle:
        """The server, or the first of its replicas."""
        return self.servers[0]

    def server_of(self, number: int) -> Handle:
        """The replica that serves a round's cohort, phone or batch of this number."""
        return self.servers[number % len(self.servers)]

    def client(self, cohort: int) -> Handle:
        """The client that hosts a round's cohort of this number."""
        return self.clients[cohort % len(self.clients)]


class Wiring(Protocol):
    """Starts actors, waits for their results, replaces those that died."""

    differing: dict[str, dict[str, str]]
    """Nodes whose software is not the driver's, as far as known: what they have instead."""

    @property
    def roles(self) -> Roles:
        """The actors as they are now."""

    def start(self, settings: config.Config, parts: Any, stream: Any, borders: Borders) -> None:
        """Make the actors of a run with its data, without waiting for them."""

    def ready(self) -> list[str]:
        """Wait until all actors are there; says where they run, a line each. Raises ActorLostError if one died."""

    def plan(self, settings: config.Config) -> tuple[bool, list[str]]:
        """Whether there is room for a run's actors now, and lines that say who would be placed where."""

    def get(self, refs: Sequence[Ref]) -> list[Any]:
        """The results, waited for. Raises what a call raised, or ActorLostError if an actor died."""

    def meanwhile(self, do: Callable[[], None]) -> None:
        """Call this every few seconds while results are waited for; what it raises is raised."""

    def waiting(self, refs: Sequence[Ref]) -> int:
        """How many of the results are not there yet, without waiting."""

    def callbacks(self) -> list[Callback]:
        """Who else is told as a run goes on, beside those that `fit` is given."""

    def rebuild(self) -> list[str]:
        """Replace the actors that died with empty ones, and say which."""

    def abandon(self) -> None:
        """End all actors but the fed server: it does not wait any more for what they were doing."""

    def stop(self) -> None:
        """End all actors."""


def is_single(settings: config.Config) -> bool:
    """Whether the model is cut once. Only where the cuts are settled."""
    return len(settings.model.cuts or ()) == 1


def server_names(replicas: int) -> list[str]:
    """What the server is called, or each of its replicas."""
    return ["server"] if replicas == 1 else [f"server {i}" for i in range(replicas)]


def fed_server_arguments(
    settings: config.Config, borders: Borders
) -> tuple[Place, int | None, int, Expected, config.Aggregator]:
    """What the fed server is made with."""
    rows = not aggregators.aggregator_of(settings.aggregator).by_sums
    expected = Expected(borders.learned, borders.slots, settings.phones.max_norm.weights, borders.bounded, rows)
    return settings.run.folder, settings.checkpoint.num_to_keep, settings.phones.count, expected, settings.aggregator
