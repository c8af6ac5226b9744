"""Every position where a model can be cut, and what each side of it costs in a step. Nothing is computed but shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch._subclasses import FakeTensorMode

from ray_split import config
from ray_split.arrays import Array
from ray_split.costs.cut_positions import Position, Trace, positions_of, trace
from ray_split.costs.decoder_blocks import chain_of
from ray_split.costs.node_costs import Costs, Shape, costs_of, without_data
from ray_split.costs.shared_weights import stay_together
from ray_split.cutting.language.families import family_of
from ray_split.errors import SettingsError
from ray_split.models import registry


class PositionCosts(NamedTuple):
    """A model's positions (P,), and what each side of them costs in a step on a batch."""

    name: str  # of the model's class
    positions: list[Position]
    costs: Costs
    batch: int
    flops: Array  # (P,) of all to the left, forward and backward
    total_flops: float
    parameters: Array  # (P,) numbers of weights on the left
    total_parameters: float  # that forward uses

    def at(self, column: Array) -> Array:
        """Of a column over nodes what is at the positions (P,)."""
        return column[self._places()]

    def up_to(self, column: Array) -> Array:
        """The sum of a column over nodes to the left of each position (P,)."""
        return np.cumsum(column)[self._places()]

    def shapes(self, position: int) -> tuple[Shape, ...]:
        """Of the tensors that cross at the position, with the batch."""
        return self.costs.shapes[self.positions[position].place]

    def stay_together(self, first: Array, second: Array | None) -> Array:
        """Whether the model can be cut after these positions (K,), for the weights that it uses at several places."""
        places = np.array(self._places())
        return stay_together(self.costs.shared, places[first], None if second is None else places[second])

    def state_in_both(self, first: Array, second: Array) -> Array:
        """Bytes (K,) of weights that A and C have in common."""
        return self._in_both(first, second, [weight.bytes for weight in self.costs.shared])

    def gradients_in_both(self, first: Array, second: Array) -> Array:
        """Bytes (K,) of the gradients that C has of weights that it has in common with A."""
        return self._in_both(first, second, [weight.bytes * weight.trained for weight in self.costs.shared])

    def _in_both(self, first: Array, second: Array, sizes: Sequence[int]) -> Array:
        places, found = np.array(self._places()), np.zeros(len(first))
        for size, weight in zip(sizes, self.costs.shared, strict=True):
            found += size * weight.in_both(places[first], places[second])
        return found

    def _places(self) -> list[int]:
        return [position.place for position in self.positions]


def scan_of(
    settings: config.Model, shape: Sequence[int], batch: int, dtype: torch.dtype = torch.float32
) -> PositionCosts:
    """Every position of a model for inputs (batch, *shape), and its costs. Raises SettingsError."""
    settings = settings.model_copy(update={"input_shape": list(shape)})
    return scan(weightless(settings), shape, batch, dtype)


def weightless(settings: config.Model) -> nn.Module:
    """The model without numbers in its weights, where it can be built so: faster, and no memory is taken for them."""
    try:
        with torch.device("meta"):
            return registry.build(settings, seed=0)
    except SettingsError:  # it looks at numbers as it is built, or the settings are wrong: then this tells
        return registry.build(settings, seed=0)


def scan(model: nn.Module, shape: Sequence[int], batch: int, dtype: torch.dtype = torch.float32) -> PositionCosts:
    """Every position of a model, as `scan_of`. The model's own tensors are replaced by some without data."""
    mode, name = FakeTensorMode(), type(model).__name__
    model, training, positions = _traced(model, mode)
    if not any(position.first for position in positions):
        wrong = f"{name} can't be cut anywhere"
        raise SettingsError("model.name", name, "Choose a model of several layers", wrong)
    costs = costs_of(model, training, (batch, *shape), mode, dtype)
    flops, places = costs.forward + costs.backward, [position.place for position in positions]
    left, numbers = np.cumsum(flops)[places], np.cumsum(costs.parameters)[places]
    return PositionCosts(name, positions, costs, batch, left, flops.sum(), numbers, costs.parameters.sum())


def _traced(model: nn.Module, mode: FakeTensorMode) -> tuple[nn.Module, Trace, list[Position]]:
    """The model, or its blocks in a chain, with the order in which it runs and where it can be cut."""
    if (family := family_of(model)) is not None:
        chain, order, positions = chain_of(without_data(model, None), family)
        return without_data(chain, mode), order, positions
    model = without_data(model, mode)
    training, evaluating = trace(model, training=True), trace(model, training=False)
    return model, training, positions_of(model, training, evaluating)
