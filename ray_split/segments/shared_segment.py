"""One segment that all phones share: it runs on many phones' batches before one joint step.

Shapes: k neighbours of a cohort with equally large batches of n samples.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from ray_split.arrays import Array
from ray_split.messages.message import (
    ARRAYS,
    Groups,
    Wanted,
    group_size,
    leaves,
    receive,
    row,
    times,
    tree_map,
    wanted_by_any,
    wanted_of,
)
from ray_split.messages.turn import Turn
from ray_split.segments.autograd import as_leaves, backward, gradients_of, own_copy
from ray_split.segments.copies import Learned
from ray_split.segments.device.computing import compiled_over_phones
from ray_split.segments.pieces import Piece, concatenated, joined, pieces_of, sliced
from ray_split.segments.seeded_dropout import SeededDropout, replace_dropout
from ray_split.segments.segment import Segment, as_array, seed_torch
from ray_split.segments.stacked_copies import over_phones
from ray_split.tasks.task import Task


class _Pass(NamedTuple):
    """A forward whose backward is still to come: its graph, or how to compute that once more."""

    piece: Piece
    arrived: Any
    outputs: Any
    again: Callable[[], _Pass] | None = None


class SharedSegment:
    """Forward and backward of one segment for many phones, and a step on the gradients of all.

    `vmapped`: the phones of a group in one call, each with its own Dropout masks; else one after the other, in the
    segment's own module: what it draws, and what it does to its buffers, is what the untouched model would.
    """

    def __init__(self, segment: Segment, vmapped: bool) -> None:
        self.segment = segment
        self._staying = segment.computing.staying
        self._many = _with_seeded_dropout(segment.module) if vmapped else None
        compiles = self._many is not None and segment.computing.compiled
        self._run = compiled_over_phones(self._many, shared=True) if compiles and self._many else None
        self._dropouts = [m for m in self._many.modules() if isinstance(m, SeededDropout)] if self._many else []
        self._passes: dict[Hashable, list[_Pass]] = {}
        self.chunk: int | None = None  # phones to compute in one go; of more no graph is kept until the backward
        self.wanted: Wanted = False  # of which leaves of the last forward's outputs the gradient is

    def forget(self) -> None:
        """Drop what is pending."""
        self._passes.clear()

    def forward(self, key: Hashable, arrived: Groups, seeds: Sequence[int], differentiable: Wanted = True) -> Groups:
        """The outputs in train mode; keeps the graphs under `key`, so that several cohorts can be under way."""
        self._passes.pop(key, None)
        keeps = self.chunk is None or sum(group_size(group) for group in arrived) <= self.chunk
        passes, outputs, wanted = list[_Pass](), [], []
        for number, piece in enumerate(self._pieces(arrived)):
            if number or self._passes:
                self.segment.buffers.separate()
            kept = [] if keeps else self.segment.buffers.kept()
            done = self._forward(piece, piece.of(arrived), seeds[piece.low : piece.high], differentiable)
            outputs.append(self.segment.computing.sent(done.outputs))
            wanted.append(wanted_of(done.outputs))
            again = self._again(piece, piece.of(arrived), seeds[piece.low : piece.high], differentiable, kept)
            passes.append(done if keeps else _Pass(piece, None, None, again))
        self._passes[key], self.wanted = passes, wanted_by_any(wanted)
        return joined([done.piece for done in passes], outputs)

    def _again(
        self, piece: Piece, arrived: Any, seeds: Sequence[int], differentiable: Wanted, kept: list[torch.Tensor]
    ) -> Callable[[], _Pass]:
        def again() -> _Pass:
            with self.segment.buffers.as_before(kept):
                return self._forward(piece, arrived, seeds, differentiable)

        return again

    def _forward(self, piece: Piece, arrived: Any, seeds: Sequence[int], differentiable: Wanted) -> _Pass:
        self.segment.train()
        inputs = as_leaves(arrived, differentiable, self.segment.device)
        own = tree_map(lambda x: own_copy(x, self.segment.device), inputs)
        self._seed(seeds)
        return _Pass(piece, inputs, self._call(own))

    def _pieces(self, groups: Groups) -> list[Piece]:
        return pieces_of(groups, self.chunk if self._many is not None else 1)

    def _seed(self, seeds: Sequence[int]) -> None:
        """For what one phone's forward draws; of several in one call each has a generator for its Dropouts alone."""
        if len(seeds) == 1:
            seed_torch(seeds[0], self.segment.device)
        elif self._dropouts:
            generators = [torch.Generator(self.segment.device).manual_seed(seed) for seed in seeds]
            for dropout in self._dropouts:
                dropout.generators = generators

    def _call(self, arrived: Any) -> Any:
        module = self.segment.module
        if self._many is None or group_size(arrived) == 1:
            outputs = self.segment.call(row(arrived, 0))
            return tree_map(lambda x: x[None] if isinstance(x, torch.Tensor) else x, outputs)
        if self._many.training != module.training:
            self._many.train(module.training)
        weights: dict[str, torch.Tensor] = dict(module.named_parameters())
        buffers = dict(module.named_buffers())
        computing = self.segment.computing
        with computing.around(self.segment.device):
            return over_phones(self._many, weights, buffers, computing.taken(arrived), True, self._run)[0]

    def backward(self, key: Hashable, gradients: Groups, scales: Sequence[Array]) -> Groups:
        """Backward, each phone's gradient times its scale; what goes back has its scale taken out again.

        Gradients of the segment's own weights add up until `step`. `scales` has (k,) for each group.
        """
        passes, found = self._passes.pop(key), []
        for pending in passes:
            done, piece = pending.again() if pending.again else pending, pending.piece
            gradient, scale = piece.of(gradients), piece.of(scales)
            backward(done.outputs, times(gradient, scale), self.segment.device, self.segment.backprop)
            found.append(times(gradients_of(done.arrived, self._staying), 1 / scale))
        return joined([done.piece for done in passes], found)

    def learn(
        self,
        arrived: Groups,
        labels: Sequence[Array],
        seeds: Sequence[int],
        task: Task,
        scales: Sequence[Array],
        differentiable: Wanted = True,
    ) -> Learned:
        """Forward, each phone's own mean loss, and backward from that times its scale, as `backward`."""
        pieces, found, losses, right = self._pieces(arrived), [], [], []
        for number, piece in enumerate(pieces):
            if number or self._passes:
                self.segment.buffers.separate()
            done = self._forward(piece, piece.of(arrived), seeds[piece.low : piece.high], differentiable)
            targets, scale = receive(piece.of(labels), self.segment.device), piece.of(scales)
            with self.segment.computing.around(self.segment.device):
                each = task.losses(done.outputs, targets)
            if each.requires_grad:
                (each * torch.from_numpy(scale).to(each)).sum().backward()  # type: ignore[no-untyped-call]
            found.append(times(gradients_of(done.arrived, self._staying), 1 / scale))
            losses.append(as_array(each))
            right.append(task.corrects(done.outputs, targets))
        return Learned(joined(pieces, found), np.concatenate(losses), np.concatenate(right))

    def learn_joint(
        self,
        arrived: Sequence[Groups],
        labels: Sequence[Sequence[Array]],
        seeds: Sequence[int],
        task: Task,
        scales: Sequence[Sequence[Array]],
        differentiable: Wanted = True,
    ) -> list[Learned]:
        """`learn` on the joint batch (see `join`) of all cohorts: what each of them learned."""
        whole = join(arrived)
        (piece,) = pieces_of(whole, None)
        if self._passes:
            self.segment.buffers.separate()
        done = self._forward(piece, piece.of(whole), seeds, differentiable)
        losses, right, weighted = [], [], []
        for outputs, groups, own in zip(split([done.outputs], labels), labels, scales, strict=True):
            pairs = [(o, receive(g, self.segment.device)) for o, g in zip(outputs, groups, strict=True)]
            with self.segment.computing.around(self.segment.device):
                each = torch.cat([task.losses(*pair) for pair in pairs])
            weighted.append((each * torch.from_numpy(np.concatenate(own)).to(each)).sum())
            losses.append(as_array(each))
            right.append(np.concatenate([task.corrects(*pair) for pair in pairs]))
        if weighted[0].requires_grad:
            torch.stack(weighted).sum().backward()  # type: ignore[no-untyped-call]
        gradients = _unscaled(split([gradients_of(done.arrived, self._staying)], arrived), scales)
        return [Learned(*each) for each in zip(gradients, losses, right, strict=True)]

    def backward_joint(
        self, gradients: Sequence[Groups], scales: Sequence[Sequence[Array]], like: Sequence[Groups]
    ) -> list[Groups]:
        """`backward` of a joint batch (see `join`), whose cohorts' activations were `like`."""
        scaled = [[times(g, s) for g, s in zip(*both, strict=True)] for both in zip(gradients, scales, strict=True)]
        return _unscaled(split(self.backward("joint", join(scaled), [np.ones(1)]), like), scales)

    @property
    def adds_up(self) -> bool:
        """Whether there are gradients that no step has used."""
        return any(parameter.grad is not None for parameter in self.segment.module.parameters())

    def step(self, factor: float, turn: Turn | None = None) -> None:
        """One step on what the backwards added up, times `factor`; `turn` as Segment.step."""
        if factor != 1.0:
            for parameter in self.segment.module.parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(factor)
        self.segment.step(turn)

    @torch.no_grad()
    def evaluate(self, arrived: Groups) -> Groups:
        """The outputs in eval mode and without a graph."""
        self.segment.eval()
        pieces = self._pieces(arrived)
        return joined(pieces, [self.segment.computing.sent(self._evaluated(piece.of(arrived))) for piece in pieces])

    def _evaluated(self, part: Any) -> Any:
        with self.segment.buffers.unchanged():
            return self._call(receive(part, self.segment.device))


def _with_seeded_dropout(module: nn.Module) -> nn.Module:
    """A copy that shares the module's weights and buffers."""
    tensors = [*module.parameters(), *module.buffers()]
    return replace_dropout(copy.deepcopy(module, {id(tensor): tensor for tensor in tensors}))


def _unscaled(cohorts: Sequence[Groups], scales: Sequence[Sequence[Array]]) -> list[Groups]:
    return [[times(g, 1 / s) for g, s in zip(*both, strict=True)] for both in zip(cohorts, scales, strict=True)]


def join(cohorts: Sequence[Groups]) -> Groups:
    """All phones' batches as one batch of one phone: every tensor's first dimension is the batch."""

    def flat(x: Any) -> Any:
        return x.reshape(-1, *x.shape[2:]) if isinstance(x, ARRAYS) else x

    whole = concatenated([tree_map(flat, group) for groups in cohorts for group in groups])
    return [tree_map(lambda x: x[None] if isinstance(x, ARRAYS) else x, whole)]


def split(joint: Groups, like: Sequence[Sequence[Any]]) -> list[Groups]:
    """The joint batch's message, or its outputs, taken apart: groups of as many phones and samples as in `like`."""
    whole, start, cohorts = row(joint[0], 0), 0, []
    for groups in like:
        parts = []
        for group in groups:
            phones, samples = next(x.shape[:2] for x in leaves(group) if isinstance(x, ARRAYS))
            cut = sliced(whole, start, start + phones * samples)
            parts.append(tree_map(_unflattened(phones, samples), cut))
            start += phones * samples
        cohorts.append(parts)
    return cohorts


def _unflattened(phones: int, samples: int) -> Callable[[Any], Any]:
    return lambda x: x.reshape(phones, samples, *x.shape[1:]) if isinstance(x, ARRAYS) else x
