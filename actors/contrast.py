"""What an algorithm sets beside a phone's loss, of representations by its own model and by two that stand still.

Where the whole model is on the phone. The representation is what the last segment is given.
Shapes: k neighbours of a cohort with equally large batches of n samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from ray_split.messages.message import Groups, group_size, leaves, receive, send, tree_map
from ray_split.messages.state import Ends, Remembered
from ray_split.segments.copies import Copies

CPU = torch.device("cpu")
Loss = Callable[[Any, Any, Any], Any]
"""(z, of the round's start, of the phone's model before), each (k, n, D), to each phone's (k,)."""


class Contrast:
    """For a cohort: the segments before the last, as they were at the round's start, and as each phone had them."""

    def __init__(self, loss: Loss, start: Mapping[str, Copies], before: Mapping[str, Copies]) -> None:
        """With copies for it to load; `copies` are they."""
        self._loss, self._start, self._before = loss, start, before
        self.copies = [*start.items(), *before.items()]

    def load(self, states: Ends, remembered: Remembered, count: int) -> None:
        """A round begins with these states; `remembered`: what phones have of them of their own."""
        for name in self._start:
            terms = remembered.get(name)
            self._start[name].load(states[name], count)
            self._before[name].load(states[name], count, terms.own if terms else None)

    def beside(self, gradients: Groups, inputs: Groups, z: Groups, factors: Sequence[float] | None) -> Groups:
        """The gradients of z with those of the loss beside, times each phone's factor, for a step's inputs."""
        start, before = (_encoded(models, inputs) for models in (self._start, self._before))
        found, place = [], 0
        for gradient, own, *others in zip(gradients, z, start, before, strict=True):
            size = group_size(own)
            some = None if factors is None else factors[place : place + size]
            found.append(self._added(gradient, own, others, some))
            place += size
        return found

    def _added(self, gradient: Any, own: Any, others: Sequence[Any], factors: Sequence[float] | None) -> Any:
        (z,), (before,) = (leaves(tree) for tree in (own, gradient))  # preparation saw to it that there is one
        leaf = receive(z, CPU).clone().requires_grad_()
        still = [leaves(other)[0].to(CPU, leaf.dtype) for other in others]
        values = self._loss(leaf.flatten(2), *(other.flatten(2) for other in still))
        if factors is not None:
            values = values * torch.tensor(factors).to(values)
        (beside,) = torch.autograd.grad(values.sum(), leaf)
        return tree_map(lambda _: send(receive(before, CPU) + beside), gradient)


def _encoded(models: Mapping[str, Copies], inputs: Groups) -> list[Any]:
    arrived = list(inputs)
    for copies in models.values():
        outputs = copies.evaluate(arrived)
        arrived = [send(output) for output in outputs]
    return outputs
