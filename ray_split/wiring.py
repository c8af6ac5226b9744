"""What a schedule and the round loop need of whatever connects the actors: Ray's own words, and `get`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ray_split import aggregators, config
from ray_split.promises import Borders
from ray_split.state_checks import Expected
from ray_split.storage import Place

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
    """The actors of a run. `single`: the model is cut once, and B has the loss."""

    clients: Sequence[Handle]
    server: Handle
    fed_server: Handle
    single: bool = False

    def client(self, cohort: int) -> Handle:
        """The client that hosts a round's cohort of this number."""
        return self.clients[cohort % len(self.clients)]


class Resources(NamedTuple):
    """What there is to place actors on."""

    cpus: int
    gpus: float


class Wiring(Protocol):
    """Starts actors, waits for their results, replaces those that died."""

    @property
    def roles(self) -> Roles:
        """The actors as they are now."""

    def start(self, settings: config.Config, parts: Any, stream: Any, borders: Borders) -> None:
        """Make the actors of a run with its data, without waiting for them."""

    def ready(self) -> list[str]:
        """Wait until all actors are there; says where they run, a line each. Raises ActorLostError if one died."""

    def get(self, refs: Sequence[Ref]) -> list[Any]:
        """The results, waited for. Raises what a call raised, or ActorLostError if an actor died."""

    def waiting(self, refs: Sequence[Ref]) -> int:
        """How many of the results are not there yet, without waiting."""

    def callbacks(self) -> list[Callback]:
        """Who else is told as a run goes on, beside those that `fit` is given."""

    def rebuild(self) -> list[str]:
        """Replace the actors that died with empty ones, and say which."""

    def stop(self) -> None:
        """End all actors."""


def is_single(settings: config.Config) -> bool:
    """Whether the model is cut once. Only where the cuts are settled."""
    return len(settings.model.cuts or ()) == 1


def fed_server_arguments(
    settings: config.Config, borders: Borders
) -> tuple[Place, int | None, int, Expected, config.Aggregator]:
    """What the fed server is made with."""
    rows = not aggregators.by_sums(settings.aggregator)
    expected = Expected(borders.learned, borders.slots, settings.phones.max_norm.weights, borders.bounded, rows)
    return settings.run.folder, settings.checkpoint.num_to_keep, settings.phones.count, expected, settings.aggregator
