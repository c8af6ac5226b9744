"""What connects driver and actors, as the driver knows it: a run's actors made, waited for, and replaced."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ray_split import config
from ray_split.callbacks import Callback
from ray_split.messages.contract import Contract
from ray_split.schedules.roles import Ref, Roles
from ray_split.segments.segment_work import SegmentWork


class Backend(Protocol):
    """Starts actors, waits for their results, replaces those that died."""

    differing: dict[str, dict[str, str]]
    """Nodes whose software is not the driver's, as far as known: what they have instead."""

    @property
    def roles(self) -> Roles:
        """The actors as they are now."""

    def resolve(self, settings: config.Config, work: SegmentWork | None = None) -> config.Config:
        """The settings with all decided that only who has the actors' room can know. Raises SettingsError.

        `work`: what each side of the cuts computes; without it each role has one thread.
        """

    def start(self, settings: config.Config, parts: Any, stream: Any, contract: Contract) -> None:
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
