"""The weights of a frozen base, beside which adapters are trained: one in a process, whatever the number of copies."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class BaseWeight(nn.Parameter):
    """A weight that is never trained: copies of a module share it, and no state of a segment has it.

    So a hundred phones' copies of a segment hold its base once, and only their adapters cross, are averaged and stand
    in checkpoints. Each process makes the base itself, from the settings.
    """

    def __new__(cls, data: torch.Tensor) -> BaseWeight:
        made: BaseWeight = super().__new__(cls, data, requires_grad=False)
        return made

    def __deepcopy__(self, memo: dict[int, Any]) -> BaseWeight:
        return self


def hold_base(model: nn.Module) -> None:
    """Make all weights of a model that aren't trained its base. What is tied stays so."""
    made: dict[int, BaseWeight] = {}
    for module in model.modules():
        for name, weight in module._parameters.items():
            if weight is not None and not weight.requires_grad:
                module._parameters[name] = made.setdefault(id(weight), BaseWeight(weight.data))


def train(layer: nn.Module) -> None:
    """Have a layer's own weights trained after all."""
    for module in layer.modules():
        for name, weight in module._parameters.items():
            if isinstance(weight, BaseWeight):
                module._parameters[name] = nn.Parameter(weight.data)


def base_keys(module: nn.Module) -> frozenset[str]:
    """The names of a module's base weights, as its state dict has them."""
    weights = module.named_parameters(remove_duplicate=False)
    return frozenset(name for name, weight in weights if isinstance(weight, BaseWeight))


def with_own_base(module: nn.Module) -> nn.Module:
    """The module with a base of its own, for what changes weights in place, as to another precision."""
    own: dict[int, nn.Parameter] = {}
    for layer in module.modules():
        for name, weight in layer._parameters.items():
            if isinstance(weight, BaseWeight):
                layer._parameters[name] = own.setdefault(id(weight), BaseWeight(weight.data.clone()))
    return module
