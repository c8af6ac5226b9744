"""The optimizers, by name, and their step.

torch's optimizers import torch._dynamo when they are first used: 8 s and 150 MB in every actor, for nothing but to
tell torch.compile not to look inside. What is here goes around these wrappers; what it computes is torch's.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from ray_split import config

OPTIMIZERS: dict[str, Callable[[Any, config.Optimizer], Optimizer]] = {
    "sgd": lambda p, o: torch.optim.SGD(p, lr=o.lr, momentum=o.momentum, weight_decay=o.weight_decay),
    "adam": lambda p, o: torch.optim.Adam(p, lr=o.lr, weight_decay=o.weight_decay),
    "adamw": lambda p, o: torch.optim.AdamW(p, lr=o.lr, weight_decay=o.weight_decay),
}

# The place where torch keeps the function that dynamo is told not to look into, filled by torch on the first call.
_add_param_group = inspect.unwrap(Optimizer.add_param_group)
_add_param_group.__dict__.setdefault("__dynamo_disable", _add_param_group)
_sgd, _adam = inspect.unwrap(sgd), inspect.unwrap(adam)


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


def slots(settings: config.Optimizer) -> tuple[str, ...]:
    """The names of what the optimizer remembers of each weight, beside the number of steps."""
    if settings.name == "sgd":
        return ("momentum_buffer",) if settings.momentum else ()
    return ("exp_avg", "exp_avg_sq")


@torch.no_grad()
def step_stacked(
    settings: config.Optimizer,
    weights: Sequence[torch.Tensor],
    gradients: Sequence[torch.Tensor],
    memory: Sequence[Sequence[torch.Tensor]],
    steps: float,
) -> None:
    """The same step on weights (K, ...) of K phones, in place. `memory` has, in the order of `slots`, a tensor for
    each weight, zero at first; `steps` is how many the phones have taken before.
    """
    weights, gradients = list(weights), list(gradients)
    if settings.name == "sgd":
        buffers = list(memory[0]) if memory else [None] * len(weights)
        _sgd(
            weights, gradients, buffers, foreach=False, fused=False, weight_decay=settings.weight_decay,
            momentum=settings.momentum, lr=settings.lr, dampening=0.0, nesterov=False, maximize=False,
        )  # fmt: skip
        return
    taken = [torch.tensor(float(steps)) for _ in weights]
    _adam(
        weights, gradients, list(memory[0]), list(memory[1]), [], taken, foreach=False, fused=False,
        capturable=False, differentiable=False, amsgrad=False, beta1=0.9, beta2=0.999, lr=settings.lr,
        weight_decay=settings.weight_decay, eps=1e-8, maximize=False, decoupled_weight_decay=settings.name == "adamw",
    )  # fmt: skip
