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
    forward: Array  # more at the worst moment of its forward
    backward: Array  # of its backward
    stepping: Array  # of its step
    waiting: Array  # more from its forward to its backward

    def alone(self) -> Array:
        """All of it at its worst moment."""
        return np.asarray(self.rest + np.maximum.reduce([self.forward, self.backward, self.stepping]))


def phone_memory(scanned: PositionCosts, optimizer: config.Optimizer, first: Array, second: Array | None) -> Array:
    """Peak bytes (K,) of A and C in a step, cut at these positions (K,); of A alone without a second cut."""
    a = _a(scanned, optimizer)
    if second is None:
        return a.alone()[first]
    c, tied = _c(scanned, optimizer), scanned.gradients_in_both(first, second)
    in_a = np.maximum.reduce([a.forward[first], a.backward[first] + tied, a.stepping[first]])
    in_c = np.maximum.reduce([c.forward[second], c.backward[second] + tied, c.stepping[second] + tied])
    return np.asarray(a.rest[first] + c.rest[second] + np.maximum(in_a, a.waiting[first] + in_c))


def alone(scanned: PositionCosts, optimizer: config.Optimizer) -> tuple[Array, Array]:
    """Peak bytes of A by its last position, and of C by the position before it (P,), each if it were alone."""
    return _a(scanned, optimizer).alone(), _c(scanned, optimizer).alone()


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
    return Part(rest, forward, backward, stepping, waiting=scanned.up_to(costs.saved) + at(costs.unkept))


def _c(scanned: PositionCosts, optimizer: config.Optimizer) -> Part:
    costs, kept_before = scanned.costs, scanned.up_to(scanned.costs.saved)
    trained = costs.trained.sum() - scanned.up_to(costs.trained)
    rest = costs.weights.sum() - scanned.up_to(costs.weights) + len(optimizers.slots(optimizer)) * trained
    arrived = 2 * scanned.at(costs.crossing)  # with the copy that the module gets
    forward = _after(scanned, costs.alive + costs.workspace) - kept_before
    backward = _after(scanned, _backward(costs)) - kept_before + costs.trained.sum() + 2 * costs.outputs
    stepping = trained + _temporary(optimizer) * _after(scanned, costs.largest)
    return Part(rest, arrived + forward, arrived + backward, arrived + stepping, waiting=np.zeros(len(rest)))


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
