"""A phone's gradients, corrected before each step by the weights at the round's start and what is remembered.

Shapes: K phones of a cohort, where they are stacked; the start and what is shared are everybody's (...).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch

from ray_split.messages.message import receive_leaf
from ray_split.messages.state import State, Terms

Tensors = dict[str, torch.Tensor]
Correct = Callable[[Tensors, Tensors, Tensors, Tensors, Tensors], Tensors]
"""(gradients, weights, start, own, shared), by parameter name, to the gradients to step with."""


class Correction:
    """What changes the gradients of a segment's copies in a round."""

    def __init__(self, correct: Correct) -> None:
        self._correct = correct
        self._start: Tensors = {}
        self._own: Tensors = {}
        self._shared: Tensors = {}

    def begin(self, names: Iterable[str], state: State, terms: Terms | None, device: torch.device) -> None:
        """A round begins, in which these parameters are trained from this state."""
        keys = {name: f"weights/{name}" for name in names}
        self._start = _copied(keys, state, device)
        self._own = _copied(keys, terms.own, device) if terms else {}
        self._shared = _copied(keys, terms.shared, device) if terms else {}

    @torch.no_grad()
    def __call__(self, parameters: Mapping[str, torch.Tensor], place: int | slice) -> None:
        """Correct the gradients that there are. `place`: of the phone, or of neighbours (k, ...), in the cohort."""
        there = {name: p for name, p in parameters.items() if p.grad is not None and name in self._start}
        if not there:
            return
        gradients = {name: p.grad for name, p in there.items() if p.grad is not None}
        weights = {name: p.detach() for name, p in there.items()}
        start, shared = ({n: tensors[n] for n in there if n in tensors} for tensors in (self._start, self._shared))
        own = {name: self._own[name][place] for name in there if name in self._own}
        corrected = self._correct(gradients, weights, start, own, shared)
        for name, parameter in there.items():
            parameter.grad = corrected[name].to(parameter.dtype)


def _copied(keys: Mapping[str, str], state: State, device: torch.device) -> Tensors:
    """Copies: what arrived is memory that others read, and lies at odd offsets."""
    return {name: receive_leaf(state[key]).clone().to(device) for name, key in keys.items() if key in state}
