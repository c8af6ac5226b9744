"""The optimizers, by name, and their step; what they remember of each weight.

torch's optimizers import torch._dynamo when they are first used: 8 s and 150 MB in every actor, for nothing but to
tell torch.compile not to look inside. What is here goes around these wrappers; what it computes is torch's.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

from ray_split import config
from ray_split.arrays import Array
from ray_split.config.user_code.plugins import find
from ray_split.messages.message import as_bits, receive

TORCHS: dict[str, type[Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
    "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad,
    "adadelta": torch.optim.Adadelta,
    "adamax": torch.optim.Adamax,
    "rprop": torch.optim.Rprop,
}
"""All of them element-wise: what they do to a value follows from its own gradients alone."""

# The place where torch keeps the function that dynamo is told not to look into, filled by torch on the first call.
_add_param_group = inspect.unwrap(Optimizer.add_param_group)
_add_param_group.__dict__.setdefault("__dynamo_disable", _add_param_group)


def new(parameters: Iterable[nn.Parameter], settings: config.Optimizer, **computed: Any) -> Optimizer:
    """A new optimizer for the parameters, of which there must be one. Raises SettingsError if it can't be found.

    `computed`: arguments that say how torch computes a step.
    """
    made: Optimizer = class_of(settings)(list(parameters), **arguments(settings), **computed)
    return made


def class_of(settings: config.Optimizer) -> Callable[..., Any]:
    """torch's class, or the user's. Raises SettingsError."""
    return find("optimizer.name", settings.name, TORCHS)


def arguments(settings: config.Optimizer) -> dict[str, Any]:
    """What it is made with: of the fields those that it has a place for."""
    takes = inspect.signature(class_of(settings)).parameters
    fields = {"lr": settings.lr, "weight_decay": settings.weight_decay}
    if settings.momentum or settings.name in TORCHS:  # a class of the user's may have a default of its own
        fields["momentum"] = settings.momentum
    return {name: value for name, value in fields.items() if name in takes} | settings.kwargs


def make(parameters: Iterable[nn.Parameter], settings: config.Optimizer) -> Optimizer | None:
    """A new optimizer for the parameters that are trained; None if none is."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    return new(trained, settings) if trained else None


_BARE_STEPS: dict[type[Optimizer], Callable[[Any], Any]] = {}


@torch.no_grad()
def step(optimizer: Optimizer, values: Mapping[str, Any] | None = None) -> None:
    """One step on the gradients there are, which are cleared. `values`: what a schedule sets for it, such as the lr."""
    kind = type(optimizer)
    for group in optimizer.param_groups if values else ():
        group.update(values or {})
    if kind not in _BARE_STEPS:
        _BARE_STEPS[kind] = inspect.unwrap(kind.step) if kind in TORCHS.values() else kind.step
    _BARE_STEPS[kind](optimizer)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = None


class Slot(NamedTuple):
    """What an optimizer remembers of a weight under one name."""

    kind: type  # torch.Tensor, or of a number of Python's int, float or bool
    number: bool  # one for a weight, such as its count of steps; else one for each of its values
    dtype: np.dtype[Any]  # of a number
    device: torch.device  # where a number is kept

    def array(self, value: Any) -> Array:
        """A copy of it as an array, bit for bit."""
        return as_bits(value.detach().cpu()).copy() if self.kind is torch.Tensor else np.asarray(value, self.dtype)

    def value(self, array: Array, device: torch.device) -> Any:
        """It again, of a weight on `device`: no memory is shared."""
        if self.kind is not torch.Tensor:
            return self.kind(array.item())
        return receive(array, self.device if self.number else device)


_PROBED: dict[tuple[str, str], dict[str, Slot]] = {}
SHAPE = (2, 3)


def probed(settings: config.Optimizer, device: str | torch.device = "cpu") -> Mapping[str, Slot]:
    """By name, what the optimizer remembers of a weight on `device` once it has stepped: it is tried.

    Raises ValueError if that isn't a number, or a tensor of the weight's shape.
    """
    key = settings.model_dump_json(include=set(config.Optimizer.model_fields)), str(device)
    if key not in _PROBED:
        weight = nn.Parameter(torch.ones(SHAPE, device=device))
        optimizer = new([weight], settings)
        weight.grad = torch.ones_like(weight)
        step(optimizer)
        remembered = optimizer.state.get(weight, {})
        _PROBED[key] = {name: _slot(name, value) for name, value in remembered.items() if value is not None}
    return _PROBED[key]


def _slot(name: str, value: Any) -> Slot:
    if isinstance(value, torch.Tensor) and value.shape in (SHAPE, ()):
        return Slot(torch.Tensor, not value.dim(), as_bits(value.detach().cpu()).dtype, value.device)
    if type(value) in (int, float, bool):
        return Slot(type(value), True, np.asarray(value).dtype, torch.device("cpu"))
    what = f"a tensor {tuple(value.shape)}" if isinstance(value, torch.Tensor) else f"a {type(value).__name__}"
    raise ValueError(f"of a weight {SHAPE} it remembers {name}, {what}: no number, and not of the weight's shape")


def slots(settings: config.Optimizer) -> tuple[str, ...]:
    """The names of what the optimizer remembers of each value of a weight."""
    return tuple(name for name, slot in probed(settings).items() if not slot.number)


def numbers(settings: config.Optimizer) -> dict[str, np.dtype[Any]]:
    """The names of what it remembers of a weight as a whole, such as the number of steps, and their types."""
    return {name: slot.dtype for name, slot in probed(settings).items() if slot.number}


def has_stepped(remembered: Mapping[str, Any]) -> bool:
    """Whether what is remembered of a weight is of a step: of one that never was, zeros may stand for it."""
    return not ("step" in remembered and float(remembered["step"]) == 0)
