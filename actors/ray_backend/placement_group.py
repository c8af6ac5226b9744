"""Room on Ray for all actors of a run at once: a placement group. Imports ray, after actors.ray_backend.backend."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import ray
from ray._private import state
from ray.util.placement_group import (
    PlacementGroup,
    get_current_placement_group,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from actors.resources import placement
from actors.resources.gateway_node import gateway_node
from actors.resources.placement import Need, Node
from ray_split import config, logs
from ray_split.errors import RunFailedError
from ray_split.schedules.roles import FED_SERVER, GATEWAY

POLL_SECONDS = 1.0
PLAN_SECONDS = 30.0  # within which Ray says where it would place what there is room for
WARN_SECONDS = (10.0, 60.0)  # of waiting: for the first warning, and between the others

logger = logs.get(__name__)


def nodes() -> dict[str, Node]:
    """The nodes that live, by Ray's id."""
    free = state.available_resources_per_node()
    return {
        each["NodeID"]: Node(
            f"{each['NodeManagerAddress']} (node {each['NodeID'][:6]})",
            each.get("Labels") or {},
            each["Resources"].get("CPU", 0.0),
            each["Resources"].get("GPU", 0.0),
            free.get(each["NodeID"], {}).get("CPU", 0.0),
            free.get(each["NodeID"], {}).get("GPU", 0.0),
        )
        for each in ray.nodes()
        if each["Alive"]
    }


class Room(NamedTuple):
    """What Ray calls a placement group, before it is made."""

    bundles: list[dict[str, float]]
    strategy: str
    labels: list[dict[str, str]] | None  # of each bundle's node


def room(needs: Sequence[Need], apart: bool) -> Room:
    """A bundle for each need; spread over the nodes, each on its own if they are to be `apart`."""
    bundles = [{"CPU": float(need.cpus), **({"GPU": float(need.gpus)} if need.gpus else {})} for need in needs]
    labels = [dict(need.labels) for need in needs]
    return Room(bundles, "STRICT_SPREAD" if apart else "SPREAD", labels if any(labels) else None)


class Group:
    """Room for all needs, had whole or not at all; spread evenly over the nodes.

    In a trial of Ray Tune that reserved just this room (experiments/sweep), it is the trial's own group.
    """

    def __init__(self, needs: Sequence[Need], apart: bool) -> None:
        self.needs = list(needs)
        self._apart = apart
        wanted = room(needs, apart)
        around = get_current_placement_group()
        self._ours = around is None or around.bundle_specs != wanted.bundles
        self._group: PlacementGroup = around
        if self._ours:
            self._group = placement_group(wanted.bundles, wanted.strategy, bundle_label_selector=wanted.labels)

    def wait(self, seconds: float) -> None:
        """Wait until there is room for all, and say for what. Raises RunFailedError if that takes too long."""
        start = time.monotonic()
        warn = start + WARN_SECONDS[0]
        while not self._group.wait(POLL_SECONDS):
            now = time.monotonic()
            if now - start > seconds:
                text = self._missing()
                self.remove()
                raise RunFailedError(f"no room within cluster.wait_seconds, {seconds:g}: {text}")
            if now > warn:
                warn = now + WARN_SECONDS[1]
                logger.warning("waiting for room for all actors at once: %s", self._missing())

    def _missing(self) -> str:
        there = list(nodes().values())
        missing = placement.without_room(self.needs, there, self._apart) or self.needs
        return placement.waits(missing, there)

    def unplaced(self) -> list[Need]:
        """The needs that have no room (any more): a node died, and Ray looks for another."""
        places = self._places()
        return [need for number, need in enumerate(self.needs) if not places.get(number)]

    def _places(self) -> dict[int, str]:
        return dict(placement_group_table(self._group)["bundles_to_node_id"])

    def strategy(self, name: str) -> PlacementGroupSchedulingStrategy:
        """Where an actor is to be made."""
        return PlacementGroupSchedulingStrategy(self._group, self._number(name))

    def _number(self, name: str) -> int:
        return next(number for number, need in enumerate(self.needs) if name in need.names)

    def where(self) -> dict[str, str]:
        """The nodes that actors are on, as Ray's ids, by the actors' names."""
        places = self._places()
        return {name: places[number] for number, need in enumerate(self.needs) for name in need.names}

    def remove(self) -> None:
        """Give the room back; what is left in it dies."""
        if self._ours:
            remove_placement_group(self._group)

    def told(self, settings: config.Config) -> list[str]:
        """Who runs on which node, and for which roles no node is labelled: lines for people."""
        there = nodes()
        places = {name: there[node].name for name, node in self.where().items() if node in there}
        return [*placement.spread(places, there), *placement.unlabelled(settings, list(there.values()))]


def group_of(settings: config.Config) -> Group:
    """Ask for room for a run's actors."""
    wanted = placement.needs(settings, list(nodes().values()))
    return Group(wanted, placement.apart(settings, wanted))


def plan(settings: config.Config) -> tuple[bool, list[str]]:
    """Whether there is room now, and who would be placed where: Ray is asked for the room, and gives it back."""
    there = nodes()
    each = list(there.values())
    wanted, told = placement.needs(settings, each), placement.unlabelled(settings, each)
    apart = placement.apart(settings, wanted)
    if missing := placement.without_room(wanted, each, apart):
        return False, [placement.waits(missing, each), *told]
    group = Group(wanted, apart)
    try:
        group.wait(PLAN_SECONDS)
        places = {name: there[node] for name, node in group.where().items()}
    finally:
        group.remove()
    here = ray.get_runtime_context().get_node_id()
    if settings.phones.remote_phones:
        places[GATEWAY] = there[gateway_node(settings, there) or here]
    places[FED_SERVER] = there[here]
    return True, [*placement.table(wanted, places), *told]
