"""Peak memory of a phone's part of a cut model: A and C with gradients, optimizer, and what they keep for the backward.

docs/planner.md says what is there at which moment of a step.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ray_split import config
from ray_split.arrays import Array
from ray_split.costs.node_costs import Costs
from ray_split.costs.position_costs import PositionCosts
from ray_split.segments.optimization import optimizers


class Part(NamedTuple):
    """Bytes of A by its last position, or of C by the position before it (P,)."""

    rest: Array  # that are always there
    worst: Array  # more at its worst moment
    waiting: Array  # more from its forward to its backward


def phone_memory(scanned: PositionCosts, optimizer: config.Optimizer, first: Array, second: Array | None) -> Array:
    """Peak bytes (K,) of A and C in a step, cut at these positions (K,); of A alone without a second cut."""
    a = _a(scanned, optimizer)
    if second is None:
        return np.asarray((a.rest + a.worst)[first])
    c = _c(scanned, optimizer)
    worst = np.maximum(a.worst[first], a.waiting[first] + c.worst[second])
    return np.asarray(a.rest[first] + c.rest[second] + worst)


def alone(scanned: PositionCosts, optimizer: config.Optimizer) -> tuple[Array, Array]:
    """Peak bytes of A by its last position, and of C by the position before it (P,), each if it were alone."""
    a, c = _a(scanned, optimizer), _c(scanned, optimizer)
    return np.asarray(a.rest + a.worst), np.asarray(c.rest + c.worst)


def _a(scanned: PositionCosts, optimizer: config.Optimizer) -> Part:
    costs, at = scanned.costs, scanned.at
    trained = scanned.up_to(costs.trained)
    # The batch, too, of which the module gets a copy.
    rest = scanned.up_to(costs.weights) + len(optimizers.slots(optimizer)) * trained + costs.inputs
    forward = at(np.maximum.accumulate(costs.alive + costs.workspace))
    # Backward, node by node from the last: fewer activations and more gradients. What was sent, what arrived for it
    # and its copy stay to the end; at the last node they are among what is kept and touched there.
    steps, arrived = _backward(costs), at(costs.returning)
    earlier = at(np.maximum.accumulate(np.concatenate([[0.0], steps[:-1]]))) + at(costs.crossing) + arrived
    backward = np.maximum(earlier, at(steps) + at(costs.unkept)) + arrived + trained
    stepping = trained + _temporary(optimizer) * at(np.maximum.accumulate(costs.largest))
    worst = np.maximum.reduce([forward, backward, stepping])
    return Part(rest, worst, waiting=scanned.up_to(costs.saved) + at(costs.unkept))


def _c(scanned: PositionCosts, optimizer: config.Optimizer) -> Part:
    costs, kept_before = scanned.costs, scanned.up_to(scanned.costs.saved)
    trained = costs.trained.sum() - scanned.up_to(costs.trained)
    rest = costs.weights.sum() - scanned.up_to(costs.weights) + len(optimizers.slots(optimizer)) * trained
    arrived = 2 * scanned.at(costs.crossing)  # with the copy that the module gets
    forward = _after(scanned, costs.alive + costs.workspace) - kept_before
    backward = _after(scanned, _backward(costs)) - kept_before + costs.trained.sum() + 2 * costs.outputs
    stepping = trained + _temporary(optimizer) * _after(scanned, costs.largest)
    worst = arrived + np.maximum.reduce([forward, backward, stepping])
    return Part(rest, worst, waiting=np.zeros(len(worst)))


def _backward(costs: Costs) -> Array:
    """Bytes while each node (N,) runs backward: what it and those before it keep, and gradients of activations; less
    the gradients of the weights before it, which are not there yet.
    """
    not_yet = np.cumsum(costs.trained) - costs.trained
    return np.asarray(np.cumsum(costs.saved) + costs.touched + costs.workspace - not_yet)


def _after(scanned: PositionCosts, column: Array) -> Array:
    """The largest of a column over nodes (N,) to the right of each position (P,)."""
    largest: Array = np.maximum.accumulate(column[::-1])[::-1]
    return largest[[position.place + 1 for position in scanned.positions]]


def _temporary(optimizer: config.Optimizer) -> int:
    """How often the largest weight is there once more while the optimizer steps."""
    if optimizer.name == "sgd":
        return int(bool(optimizer.weight_decay))
    return 2
