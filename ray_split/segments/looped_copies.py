"""A segment's copies one after the other: bit for bit what each phone would do alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from ray_split.arrays import Array
from ray_split.messages.message import (
    Groups,
    Wanted,
    as_bits,
    group_size,
    receive,
    row,
    stack,
    wanted_by_any,
    wanted_of,
)
from ray_split.messages.state import State, Terms, place_of
from ray_split.messages.turn import Turn
from ray_split.segments.autograd import CPU, as_floats, can_have_gradient
from ray_split.segments.copies import Copies, Learned
from ray_split.segments.optimization.correction import Correction
from ray_split.segments.segment import Segment, bounded_keys
from ray_split.segments.weighted_mean import added, scaled
from ray_split.tasks.task import Task


class LoopedCopies:
    """One Segment for each phone, one after the other: bit for bit what each would do alone."""

    draws = True
    wanted: Wanted = False

    def __init__(self, make: Callable[[], Segment], correction: Correction | None = None) -> None:
        self._make = make
        self._correction = correction
        self._segments: list[Segment] = []
        self._count = 0
        self._sizes: list[int] = []  # of the groups of the last forward
        self.chunk: int | None = None
        self._updating: list[int] = []  # the places of the phones that step after the last backward

    def load(
        self, state: State, count: int, own: State | None = None, fresh: bool = True, terms: Terms | None = None
    ) -> int:
        """As Copies.load."""
        while len(self._segments) < count:
            self._segments.append(self._make())
        self._count, self._sizes, self._updating = count, [], []
        mine = own or {}
        if self._correction is not None:
            first = self._segments[0]
            self._correction.begin(first.trained(), state, terms, first.device)
        return sum(
            segment.load({**state, **place_of(mine, i)}, fresh) for i, segment in enumerate(self._segments[:count])
        )

    def tie(self, other: Copies) -> None:
        """As Copies.tie."""
        assert isinstance(other, LoopedCopies)  # preparation stacks both or neither
        for own, end in zip(self._segments[: self._count], other._segments[: other._count], strict=True):
            own.tie(end)

    def _each(self, groups: Groups) -> Iterator[tuple[int, int, Segment, Any]]:
        """The group, place in the group, segment and message of each phone."""
        places = iter(self._segments)
        for number, (group, size) in enumerate(zip(groups, self._sizes, strict=True)):
            for i in range(size):
                yield number, i, next(places), row(group, i)

    def _begin(self, arrived: Groups) -> None:
        self._sizes = [group_size(group) for group in arrived]

    def forward(self, arrived: Groups, seeds: Sequence[int], differentiable: Wanted = True) -> Groups:
        """As Copies.forward."""
        self._begin(arrived)
        self.wanted, outputs = False, list[list[Any]]([] for _ in arrived)
        for (group, _, segment, own), seed in zip(self._each(arrived), seeds, strict=True):
            forward = segment.forward_twice if self._exceeds() else segment.forward
            found = forward(own, seed, differentiable)
            self.wanted = wanted_by_any([self.wanted, wanted_of(found)])
            outputs[group].append(segment.computing.sent(found))
        return [stack(found) for found in outputs]

    def _exceeds(self) -> bool:
        """Whether these are more phones than may have a graph pending."""
        return self.chunk is not None and sum(self._sizes) > self.chunk

    def backward(self, gradients: Groups, turn: Turn | None = None) -> Groups:
        """As Copies.backward."""
        self._begin_backward(turn)
        found: list[list[Any]] = [[] for _ in gradients]
        for group, _, segment, own in self._each(gradients):
            found[group].append(segment.backward(own))
        self._end_backward(turn)
        return [stack(trees) for trees in found]

    def _begin_backward(self, turn: Turn | None) -> None:
        # Where phones share a segment, what one accumulated that is gone is dropped.
        if turn is not None and turn.accumulation is not None and turn.begins_update:
            for segment in self._segments[: sum(self._sizes)]:
                segment.module.zero_grad()

    def _end_backward(self, turn: Turn | None) -> None:
        """The gradients of phones that step are whole: they are corrected."""
        count = sum(self._sizes)
        self._updating = list(range(count)) if turn is None else turn.updating(count)
        if self._correction is not None:
            for place in self._updating:
                self._correction(self._segments[place].trained(), place)

    def learn(
        self,
        arrived: Groups,
        labels: Sequence[Array],
        seeds: Sequence[int],
        task: Task,
        differentiable: Wanted = True,
        scales: Array | None = None,
        turn: Turn | None = None,
    ) -> Learned:
        """As Copies.learn."""
        self._begin(arrived)
        self._begin_backward(turn)
        parts = None if turn is None else turn.parts(sum(self._sizes))
        gradients: list[list[Any]] = [[] for _ in arrived]
        losses: list[float] = []
        right = []
        for (group, i, segment, own), seed in zip(self._each(arrived), seeds, strict=True):
            outputs = segment.forward(own, seed, differentiable)
            targets = receive(labels[group][i], segment.device)
            with segment.computing.around(segment.device):
                value = task.loss(outputs, targets)
            scaled = value if scales is None else value * float(scales[len(losses)])
            if parts is not None:
                scaled = scaled / parts[len(losses)]
            gradients[group].append(segment.backward_loss(scaled))
            losses.append(value.item())
            right.append(task.correct(outputs, targets))
        self._end_backward(turn)
        return Learned([stack(trees) for trees in gradients], np.array(losses), np.array(right))

    def step(self, turn: Turn | None = None, norms: Array | None = None) -> None:
        """As Copies.step."""
        for number, place in enumerate(self._updating):
            self._segments[place].step(turn, None if norms is None else norms[number])

    def gradient_norms(self) -> dict[str, Array]:
        """As Copies.gradient_norms; of a phone whose gradient is none while another's is there, 0."""
        each = [self._segments[place].gradient_norms() for place in self._updating]
        names = {name: norm for found in each for name, norm in found.items()}
        return {
            name: as_bits(torch.stack([found.get(name, torch.zeros_like(like)) for found in each]))
            for name, like in names.items()
        }

    def evaluate(self, arrived: Groups) -> list[Any]:
        """As Copies.evaluate."""
        self._begin(arrived)
        outputs: list[list[Any]] = [[] for _ in arrived]
        device = CPU
        for group, _, segment, own in self._each(arrived):
            outputs[group].append(segment.computing.sent(segment.evaluate(own)))
            device = segment.computing.staying or CPU
        return [receive(stack(found), device) for found in outputs]

    def average(self, shares: Array) -> State:
        """As Copies.average: phone after phone, in their order."""
        total: State | None = None
        for segment, share in zip(self._segments[: self._count], shares, strict=True):
            if share:
                total = added(total, scaled(segment.learned_state(), float(share)))
        return total or {}

    def learned(self) -> State:
        """As Copies.learned."""
        each = [segment.learned_state() for segment in self._segments[: self._count]]
        return {k: np.stack([s[k] for s in each]) for k in each[0] if not k.startswith("optimizer/")}

    def states(self) -> State:
        """As Copies.states."""
        each = [segment.state() for segment in self._segments[: self._count]]
        keys = {key: array for state in each for key, array in state.items()}
        # A phone that has not stepped yet has nothing in its optimizer: the same as zeros.
        return {k: np.stack([state.get(k, np.zeros_like(like)) for state in each]) for k, like in keys.items()}

    def norms(self) -> Array:
        """As Copies.norms."""
        return np.array([_norm(segment) for segment in self._segments[: self._count]])


def _norm(segment: Segment) -> float:
    bounded = bounded_keys(segment.module)
    tensors = [tensor for key, tensor in segment.tensors().items() if key in bounded and can_have_gradient(tensor)]
    found = [torch.linalg.vector_norm(as_floats(tensor)) for tensor in tensors]
    return float(torch.linalg.vector_norm(torch.stack(found))) if found else 0.0
