"""A weight that A and C of one phone share (an embedding tied to the head): one tensor, whose owner is A.

It stands in A's state, and A's optimizer steps it. C has an end of it: a leaf of C's own graph in the same memory. The
gradient that C finds waits at the end for A's backward, where it is the first to be added up; so the tensor steps once
for a batch, with the sum that the model that was never cut adds up, in its order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn


class TiedWeight(nn.Parameter):
    """A segment's end of a weight that another segment of the same phone owns."""

    owner: str
    """What the weight is called there."""

    def __new__(cls, data: torch.Tensor, owner: str, requires_grad: bool = True) -> TiedWeight:
        made: TiedWeight = super().__new__(cls, data, requires_grad)
        made.owner = owner
        return made

    def __deepcopy__(self, memo: dict[int, Any]) -> TiedWeight:
        if id(self) not in memo:
            memo[id(self)] = TiedWeight(self.data.clone(), self.owner, self.requires_grad)
        made: TiedWeight = memo[id(self)]
        return made


class Tie(NamedTuple):
    """A weight and the end of it that another segment has."""

    weight: nn.Parameter
    end: TiedWeight


def owned(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """A segment's parameters by name, without those that another segment owns."""
    return ((name, weight) for name, weight in module.named_parameters() if not isinstance(weight, TiedWeight))


def tied_names(module: nn.Module) -> dict[str, str]:
    """By the names of a segment's ends those of the weights in the segment that owns them."""
    named = module.named_parameters(remove_duplicate=False)
    return {name: weight.owner for name, weight in named if isinstance(weight, TiedWeight)}


def make_end(module: nn.Module, name: str, owner: str) -> None:
    """Make one of a module's parameters, under all its names, its end of a weight."""
    weight = module.get_parameter(name)
    end = TiedWeight(weight.data, owner, weight.requires_grad)
    for layer in module.modules():
        for attribute, other in layer._parameters.items():
            if other is weight:
                layer._parameters[attribute] = end


def tie(owner: nn.Module, module: nn.Module) -> list[Tie]:
    """Have a module's ends use the memory of their owner's weights."""
    weights: Mapping[str, nn.Parameter] = dict(owner.named_parameters())
    ties = [Tie(weights[end.owner], end) for end in module.parameters() if isinstance(end, TiedWeight)]
    for weight, end in ties:
        end.data = weight.data
    return ties


def waiting(ties: list[Tie]) -> Sequence[tuple[torch.Tensor, torch.Tensor]]:
    """The weights that are trained, each with the gradient that waits at its end. They wait no longer."""
    found = [(weight, end.grad) for weight, end in ties if end.grad is not None and weight.requires_grad]
    for _, end in ties:
        end.grad = None
    return found
