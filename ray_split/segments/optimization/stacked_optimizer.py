"""An element-wise optimizer's step on the weights of several phones at once: torch's own, on tensors (K, ...)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

from ray_split import config
from ray_split.arrays import Array
from ray_split.messages.message import receive
from ray_split.messages.turn import Turn
from ray_split.segments.optimization import optimizers
from ray_split.segments.optimization.gradient_norm import needed
from ray_split.segments.optimization.learning_rates import rates_of, set_at

Memory = Mapping[str, torch.Tensor]
"""What is remembered of a weight, by slot: tensors like the weight, and numbers ()."""


def why_not(settings: config.Optimizer) -> str | None:
    """Why phones can't step at once, if so."""
    if settings.name not in optimizers.TORCHS:
        return f"{settings.name} may look at a weight as a whole, and phones step one by one"
    if settings.kwargs.get("dampening"):
        return "a first step has no dampening, and sgd doesn't count steps"
    return None


class StackedOptimizer:
    """Steps weights (K, ...) that are different ones at each call, and what is remembered of them."""

    def __init__(self, settings: config.Optimizer, device: torch.device) -> None:
        self._settings = settings
        self._rates = rates_of(settings)
        self._values: Mapping[str, Any] | None = None  # that the learning rate's schedule sets
        found = optimizers.probed(settings, device)
        self.slots = tuple(name for name, slot in found.items() if not slot.number)
        self.numbers = {name: slot for name, slot in found.items() if slot.number and name != "step"}
        self.counts = "step" in found  # what it does follows from how many steps there were
        self._optimizer = self._new([nn.Parameter(torch.zeros(1, device=device))])

    def _new(self, weights: Sequence[torch.Tensor]) -> Optimizer:
        # One weight after the other: the loop's own kernels on a CPU.
        return optimizers.new(weights, self._settings, foreach=False)  # type: ignore[arg-type]

    def begin(self, turn: Turn | None) -> None:
        """The next steps are this turn's."""
        self._values = set_at(self._rates, turn)

    @torch.no_grad()
    def clip(self, weights: Mapping[str, torch.Tensor], whole: Array | None) -> None:
        """Scale each phone's gradients (k, ...) down to the norm that they have at most, as clip_grad_norm_ does.

        `whole` (k,): the norms of their gradients of all segments, where they are clipped by these.
        """
        gradients = [weight.grad for weight in weights.values() if weight.grad is not None]
        if self._settings.clip_norm is None or not gradients:
            return
        if self._settings.clip == "segment":
            norms = torch.linalg.vector_norm(torch.stack(list(gradient_norms(weights).values())), dim=0)
        else:
            norms = receive(needed(whole), gradients[0].device)
        factors = (self._settings.clip_norm / (norms + 1e-6)).clamp(max=1.0)
        for gradient in gradients:
            gradient.mul_(factors.reshape(-1, *[1] * (gradient.dim() - 1)).to(gradient.dtype))

    def zeros(self, slot: str, weight: torch.Tensor) -> torch.Tensor:
        """What is remembered under a name of a weight (K, ...) that never stepped: like it, or a number each (K,)."""
        if slot not in self.numbers:
            return torch.zeros_like(weight)
        return torch.from_numpy(np.zeros(len(weight), self.numbers[slot].dtype)).to(self.numbers[slot].device)

    def part(self, slot: str, own: torch.Tensor) -> torch.Tensor:
        """Of what phones remember that have taken equally many steps, what `step` takes: their number is the same."""
        return own[0].clone() if slot in self.numbers else own

    def step(
        self,
        weights: Sequence[torch.Tensor],
        gradients: Sequence[torch.Tensor],
        memory: Sequence[Memory],
        taken: float,
    ) -> None:
        """One step in place, of phones that have taken equally many before; `memory` of each weight, too.

        Before the first step what is remembered is zeros, and made by torch.
        """
        first = self.counts and not taken
        optimizer = self._new(weights) if first else self._optimizer
        if not first:
            optimizer.param_groups[0]["params"] = list(weights)
            optimizer.state = defaultdict(
                dict, {w: self._state(m, taken) for w, m in zip(weights, memory, strict=True)}
            )
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient
        optimizers.step(optimizer, self._values)
        for weight, own in zip(weights, memory, strict=True):
            _keep(own, optimizer.state[weight])
        self._optimizer.state = defaultdict(dict)
        self._optimizer.param_groups[0]["params"] = []

    def _state(self, memory: Memory, taken: float) -> dict[str, Any]:
        return {"step": torch.tensor(float(taken)), **memory} if self.counts else dict(memory)


def gradient_norms(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """By weight (k, ...) the L2 norm (k,) of each phone's gradient, of those that have one."""
    gradients = {name: weight.grad for name, weight in weights.items() if weight.grad is not None}
    return {n: torch.linalg.vector_norm(g.reshape(len(g), -1), dim=1) for n, g in gradients.items()}


def _keep(memory: Memory, state: Mapping[str, Any]) -> None:
    """What torch has not changed in place."""
    for slot, tensor in memory.items():
        if state[slot] is not tensor:
            tensor.copy_(state[slot])
