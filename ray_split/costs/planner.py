"""The split planner: what each way to cut a model would cost, and which is best. docs/planner.md has the formulas."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ray_split import config
from ray_split.arrays import Array
from ray_split.costs.pareto import front
from ray_split.costs.phone_memory import phone_memory
from ray_split.costs.planner_hardware import Profile
from ray_split.costs.position_costs import PositionCosts
from ray_split.errors import SettingsError


class Candidates(NamedTuple):
    """Ways to cut the model (K,): by one position (single split: second is -1) or by two."""

    first: Array  # index of the position
    second: Array
    bytes_up: Array  # a step
    bytes_down: Array
    bytes_weights: Array  # of A's and C's state, which crosses at a round's beginning, and again at its end
    phone_flops: Array  # a step
    phone_memory: Array  # bytes at the peak
    seconds: Array  # a sample

    def where(self, chosen: Array) -> Candidates:
        """Those that a mask or indices choose."""
        return Candidates(*(column[chosen] for column in self))


class Plan(NamedTuple):
    """What the planner found: all ways that there are, which fit the phone, and the best of these."""

    scan: PositionCosts
    candidates: Candidates
    fits: Array  # (K,) of bool
    pareto: Array  # (K,) of bool: it fits, and none that fits is better in time, memory or bytes and as good in all
    best: int  # the least seconds, then the least memory, then bytes

    def cuts(self, candidate: int) -> list[str]:
        """The names for model.cuts."""
        places = (self.candidates.first[candidate], self.candidates.second[candidate])
        return [self.scan.positions[place].name for place in places if place >= 0]

    def median(self) -> int:
        """The one with the median time among those that fit."""
        order = np.argsort(np.where(self.fits, self.candidates.seconds, np.inf), kind="stable")
        return int(order[self.fits.sum() // 2])


def plan(scanned: PositionCosts, optimizer: config.Optimizer, profile: Profile, double: bool = True) -> Plan:
    """The best way to cut for this phone and link. Raises SettingsError if none fits the phone's memory."""
    candidates = candidates_of(scanned, optimizer, profile, double)
    limit = profile.phone.memory_mb * 1e6
    fits = candidates.phone_memory <= limit
    if not fits.any():
        least = candidates.phone_memory.min() / 1e6
        given = profile.phone.memory_mb
        wrong = f"is {given:g}, but the smallest part of the model that a phone can have takes {least:.4g}"
        raise SettingsError(
            "phone.memory_mb", given, f"Set {math.ceil(least * 1000) / 1000:g} or more, or plan a smaller model", wrong
        )
    goals = [candidates.seconds, candidates.phone_memory, candidates.bytes_up + candidates.bytes_down]
    fitting = np.flatnonzero(fits)
    best = fitting[np.lexsort([goal[fitting] for goal in reversed(goals)])[0]]
    pareto = np.zeros(len(fits), bool)
    pareto[fitting[front([goal[fitting] for goal in goals])]] = True
    return Plan(scanned, candidates, fits, pareto, int(best))


def candidates_of(scanned: PositionCosts, optimizer: config.Optimizer, profile: Profile, double: bool) -> Candidates:
    """Every way to cut that leaves B something to train, with what it costs. Raises SettingsError if there is none."""
    trained = scanned.up_to(scanned.costs.trained)
    may = np.flatnonzero([position.first for position in scanned.positions])
    if not double:
        may = may[trained[may] < scanned.costs.trained.sum()]
        may = _kept_together(scanned, may, None)[0]
        if not len(may):
            allowed = "Choose a model with at least two layers to train, one for each side"
            raise SettingsError("model.name", scanned.name, allowed, f"{scanned.name} can't be cut in two")
        return _single(scanned, may, optimizer, profile)
    first, second = (index.ravel() for index in np.meshgrid(may, np.arange(len(trained)), indexing="ij"))
    leaves_b = trained[first] < trained[second]
    first, second = _kept_together(scanned, first[leaves_b], second[leaves_b])
    if not len(first):
        wrong = "must be single, because with two cuts no part of this model is left for the server"
        raise SettingsError("split", "double", "", wrong)
    crossing, returning = scanned.at(scanned.costs.crossing), scanned.at(scanned.costs.returning)
    up, down = crossing[first] + returning[second], crossing[second] + returning[first]
    flops = scanned.flops[first] + scanned.total_flops - scanned.flops[second]
    memory = phone_memory(scanned, optimizer, first, second)
    seconds = _seconds(scanned, profile, flops, up, down, messages=4)
    weights = scanned.at(scanned.costs.sent_before)[first] + scanned.at(scanned.costs.sent_after)[second]
    weights = weights - scanned.state_in_both(first, second)
    return Candidates(first, second, up, down, weights, flops, memory, seconds)


def _kept_together(scanned: PositionCosts, first: Array, second: Array | None) -> tuple[Array, Array]:
    """Those cuts that leave no weight both to B and to the phone. Raises SettingsError if none of them is left."""
    may = scanned.stay_together(first, second)
    if len(first) and not may.any():
        allowed = "Cut twice, so that both stay on the phone, or untie them (such as tie_word_embeddings=False)"
        wrong = f"{scanned.name} has tied weights, one on each side of every cut"
        raise SettingsError("model.name", scanned.name, allowed if second is None else "Untie them", wrong)
    return first[may], first[may] if second is None else second[may]


def _single(scanned: PositionCosts, first: Array, optimizer: config.Optimizer, profile: Profile) -> Candidates:
    up = scanned.at(scanned.costs.crossing)[first] + scanned.costs.labels
    down, flops = scanned.at(scanned.costs.returning)[first], scanned.flops[first]
    memory = phone_memory(scanned, optimizer, first, None)
    seconds = _seconds(scanned, profile, flops, up, down, messages=2)
    weights = scanned.at(scanned.costs.sent_before)[first]
    return Candidates(first, np.full(len(first), -1), up, down, weights, flops, memory, seconds)


def _seconds(scanned: PositionCosts, profile: Profile, flops: Array, up: Array, down: Array, messages: int) -> Array:
    """Of one sample: nothing overlaps."""
    computing = flops / (profile.phone.gflops * 1e9) + (scanned.total_flops - flops) / (profile.server.gflops * 1e9)
    sending = up * 8 / (profile.link.up_mbps * 1e6) + down * 8 / (profile.link.down_mbps * 1e6)
    seconds: Array = (computing + sending + messages * profile.link.latency_ms / 1e3) / scanned.batch
    return seconds
