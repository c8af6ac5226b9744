"""The optimizers, by name, and their step.

torch's optimizers import torch._dynamo when they are first used: 8 s and 150 MB in every actor, for nothing but to
tell torch.compile not to look inside. `make` and `step` go around these wrappers; what they compute is torch's.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from ray_split import config

OPTIMIZERS: dict[str, Callable[[Any, config.Optimizer], Optimizer]] = {
    "sgd": lambda p, o: torch.optim.SGD(p, lr=o.lr, momentum=o.momentum, weight_decay=o.weight_decay),
    "adam": lambda p, o: torch.optim.Adam(p, lr=o.lr, weight_decay=o.weight_decay),
    "adamw": lambda p, o: torch.optim.AdamW(p, lr=o.lr, weight_decay=o.weight_decay),
}

# The place where torch keeps the function that dynamo is told not to look into, filled by torch on the first call.
_add_param_group = inspect.unwrap(Optimizer.add_param_group)
_add_param_group.__dict__.setdefault("__dynamo_disable", _add_param_group)


def make(parameters: Iterable[nn.Parameter], settings: config.Optimizer) -> Optimizer | None:
    """A new optimizer for the parameters that are trained; None if none is."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    return OPTIMIZERS[settings.name](trained, settings) if trained else None


_BARE_STEPS: dict[type[Optimizer], Callable[[Any], Any]] = {}


@torch.no_grad()
def step(optimizer: Optimizer) -> None:
    """One step on the gradients there are, which are cleared."""
    kind = type(optimizer)
    if kind not in _BARE_STEPS:
        _BARE_STEPS[kind] = inspect.unwrap(kind.step)
    _BARE_STEPS[kind](optimizer)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = None
