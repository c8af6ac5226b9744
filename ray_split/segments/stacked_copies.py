"""K copies of a module as one, batched over a leading dimension with torch.func.vmap.

The copies of a cohort's phones train each on its own batch; one call computes all of them. Equal to a loop over the
phones within rounding, not bit for bit (grouped convolutions and batched products add in another order).
Shapes: K phones of a cohort, k neighbours among them with equally large batches of n samples.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, vmap

from ray_split import config
from ray_split.arrays import Array
from ray_split.messages.message import (
    Groups,
    Wanted,
    as_bits,
    group_size,
    leaves,
    receive,
    receive_leaf,
    row,
    tree_map,
    wanted_by_any,
    wanted_of,
)
from ray_split.messages.state import State, Terms, is_statistic, state_bytes
from ray_split.messages.turn import Turn
from ray_split.segments.autograd import as_floats, as_leaves, backward, can_have_gradient, gradients_of, own_copy
from ray_split.segments.base_weight import base_keys
from ray_split.segments.buffers import changing
from ray_split.segments.copies import Copies, Learned
from ray_split.segments.device.computing import PLAIN, Computing, Run, compiled_over_phones
from ray_split.segments.optimization.accumulated import Accumulated
from ray_split.segments.optimization.correction import Correction
from ray_split.segments.optimization.stacked_optimizer import StackedOptimizer, gradient_norms
from ray_split.segments.pieces import Piece, joined, pieces_of
from ray_split.segments.seeded_dropout import SeededDropout, replace_dropout
from ray_split.segments.segment import HALF, as_array, as_state
from ray_split.segments.tied_weight import TiedWeight, owned
from ray_split.tasks.task import Task

Tensors = dict[str, torch.Tensor]
_TENSOR = object()  # stands for a tensor where None may stand for a head that isn't there


@dataclass
class _Pass:
    """A forward of neighbours low:high, whose backward or step is still to come."""

    low: int
    high: int
    weights: Tensors  # leaves (k, ...) that share memory with the stack
    ends: Tensors = field(default_factory=dict)  # such leaves of weights that another segment owns
    arrived: Any = None
    outputs: Any = None
    again: Callable[[], None] | None = None  # computes these two once more, where they were not kept


class StackedCopies:
    """The copies of one segment for the phones of a cohort, and their optimizers, on one device."""

    def __init__(
        self,
        module: nn.Module,
        optimizer: config.Optimizer,
        device: str = "cpu",
        frozen: bool = False,
        backprop: str = "autograd",
        correction: Correction | None = None,
        computing: Computing = PLAIN,
    ) -> None:
        self.device = torch.device(device)
        self._computing = computing
        self._module = replace_dropout(copy.deepcopy(module)).to(self.device)
        self._trained = {n for n, p in owned(self._module) if p.requires_grad and not frozen}
        self._module.train(not frozen)
        self._dropouts = [m for m in self._module.modules() if isinstance(m, SeededDropout)]
        self._changing = changing(self._module)
        self._run = compiled_over_phones(self._module, shared=False) if computing.compiled else None
        self._optimizer = StackedOptimizer(optimizer, self.device)
        self._frozen = frozen
        self._backprop = backprop
        self._correction = correction
        self._weights: Tensors = {}
        self._buffers: Tensors = {}
        self._end_of = {n: p for n, p in self._module.named_parameters() if isinstance(p, TiedWeight)}
        self._ends: Tensors = {}  # the stacks of them, by the names that they have here
        self._waiting: Tensors = {}  # their gradients, by the names that they have there
        self._tied: StackedCopies | None = None  # the copies that leave their gradients for these weights here
        self._memory: dict[str, Tensors] = {}
        self._steps: Array = np.zeros(0)  # that each phone has taken
        self._skipped: dict[str, Array] = {}  # and how many of them left out a weight, which had no gradient
        self.chunk: int | None = None
        self._pieces: list[Piece] = []  # of the last forward
        self._passes: list[_Pass] = []
        self._updating: list[_Pass] = []  # those whose step is still to come
        self._accumulated = Accumulated(0)
        self.draws = bool(self._dropouts)  # whether seeds are wanted
        self.wanted: Wanted = False

    def load(
        self, state: State, count: int, own: State | None = None, fresh: bool = True, terms: Terms | None = None
    ) -> int:
        """Make `count` copies of a state; what `own` has (count, ...) is each phone's own. Returns the bytes."""
        self._passes, self._updating, self._accumulated = [], [], Accumulated(count)
        own = own or {}
        base = base_keys(self._module)  # which all phones share: vmap takes the module's own
        weights = {n: p for n, p in owned(self._module) if n not in base}
        self._weights = {n: self._filled(n, p, state, own, count) for n, p in weights.items()}
        self._buffers = {n: self._filled(n, b, state, own, count) for n, b in self._module.named_buffers()}
        self._ends = {n: p.detach().expand(count, *p.shape) for n, p in self._end_of.items()}
        self._waiting, self._tied = {}, None
        self._steps, self._skipped = np.zeros(count), {}
        self._memory = {slot: {} for slot in (*self._optimizer.slots, *self._optimizer.numbers)}
        for name, weight in self._weights.items():
            for slot, memory in self._memory.items():
                memory[name] = self._optimizer.zeros(slot, weight)
                if not fresh and (key := f"optimizer/{name}/{slot}") in own:
                    memory[name].copy_(receive_leaf(own[key]))
        if not fresh:
            self._load_steps({n: own[key] for n in self._weights if (key := f"optimizer/{n}/step") in own})
        if self._correction is not None:
            self._correction.begin(self._trained, state, terms, self.device)
        shared = sum(array.nbytes for key, array in state.items() if not key.startswith("optimizer/"))
        return shared * count + state_bytes({k: v for k, v in own.items() if k.startswith("optimizer/")})

    def tie(self, other: Copies) -> None:
        """As Copies.tie."""
        assert isinstance(other, StackedCopies)  # preparation stacks both or neither
        other._ends = {name: self._weights[end.owner] for name, end in other._end_of.items()}
        self._tied = other

    def _load_steps(self, taken: dict[str, Array]) -> None:
        if taken:
            self._steps = np.max(np.stack(list(taken.values())), axis=0).astype(np.float64)
            self._skipped = {name: self._steps - own for name, own in taken.items() if (own != self._steps).any()}

    def _filled(self, name: str, like: torch.Tensor, state: State, own: State, count: int) -> torch.Tensor:
        key = next(k for k in (f"weights/{name}", f"buffers/{name}") if k in state)
        filled = torch.empty((count, *like.shape), dtype=like.dtype, device=self.device)
        return filled.copy_(receive_leaf(own.get(key, state[key])))

    def forward(self, arrived: Groups, seeds: Sequence[int], differentiable: Wanted = True) -> Groups:
        """The outputs (k, n, ...) of each group, in train mode; keeps the graphs. `seeds` are the phones', or none."""
        outputs, wanted = [], list[Wanted]()
        for done in self._each(arrived, seeds, differentiable):
            outputs.append(self._computing.sent(done.outputs))
            wanted.append(wanted_of(done.outputs))
            if done.again is not None:
                done.arrived = done.outputs = None
        self.wanted = wanted_by_any(wanted)
        return joined(self._pieces, outputs)

    def _each(self, arrived: Groups, seeds: Sequence[int], differentiable: Wanted) -> Iterator[_Pass]:
        """The forwards of a cohort's pieces, as they are wanted; of more phones than a chunk with `again`."""
        self._set_training(not self._frozen)
        self._passes, self._pieces = [], pieces_of(arrived, self.chunk)
        exceeds = self.chunk is not None and sum(group_size(group) for group in arrived) > self.chunk
        for piece in self._pieces:
            own = seeds[piece.low : piece.high]
            self._passes.append(self._forward(piece, piece.of(arrived), own, differentiable, exceeds))
            yield self._passes[-1]

    def _set_training(self, training: bool) -> None:
        if self._module.training != training:
            self._module.train(training)

    def _forward(self, piece: Piece, group: Any, seeds: Sequence[int], differentiable: Wanted, exceeds: bool) -> _Pass:
        low, high = piece.low, piece.high
        done = _Pass(low, high, self._leaves(low, high), self._end_leaves(low, high))
        buffers = {n: b[low:high] for n, b in self._buffers.items()}
        kept = {n: b.clone() for n, b in buffers.items()} if exceeds else {}
        self._keep(low, high, self._compute(done, buffers, group, seeds, differentiable))
        if exceeds:

            def again() -> None:
                self._compute(done, kept, group, seeds, differentiable)

            done.again = again
        return done

    def _compute(
        self, done: _Pass, buffers: Tensors, group: Any, seeds: Sequence[int], differentiable: Wanted
    ) -> Tensors:
        """A forward, with these buffers, and its graph; returns the buffers that it has assigned."""
        done.arrived = as_leaves(group, differentiable, self.device)
        own = tree_map(lambda x: own_copy(x, self.device), done.arrived)
        for dropout in self._dropouts:
            dropout.generators = [torch.Generator(self.device).manual_seed(seed) for seed in seeds]
        _share_generators(self._dropouts)
        done.outputs, assigned = self._call({**done.weights, **done.ends}, buffers, own)
        return assigned

    def _call(self, weights: Tensors, buffers: Tensors, inputs: Any) -> tuple[Any, Tensors]:
        with self._computing.around(self.device):
            return over_phones(self._module, weights, buffers, self._computing.taken(inputs), run=self._run)

    def _leaves(self, low: int, high: int) -> Tensors:
        return {n: w[low:high].detach().requires_grad_(n in self._trained) for n, w in self._weights.items()}

    def _end_leaves(self, low: int, high: int) -> Tensors:
        trained = {name for name, end in self._end_of.items() if end.requires_grad and not self._frozen}
        return {n: w[low:high].detach().requires_grad_(n in trained) for n, w in self._ends.items()}

    def _keep_waiting(self) -> None:
        """The gradients that the last `learn` found for weights that another segment owns."""
        found = {end.owner: [done.ends[name].grad for done in self._passes] for name, end in self._end_of.items()}
        whole = {owner: [g for g in each if g is not None] for owner, each in found.items()}
        self._waiting = {owner: torch.cat(each) for owner, each in whole.items() if len(each) == len(self._passes)}

    def _take_waiting(self) -> Tensors:
        taken, self._waiting = self._waiting, {}
        return taken

    def _keep(self, low: int, high: int, assigned: Tensors) -> None:
        """The buffers (k, ...) that forward has assigned, in a new stack: the graph may need what is in the old one."""
        for name, tensor in assigned.items():
            stack = self._buffers[name].clone()
            stack[low:high] = tensor.detach()
            self._buffers[name] = stack

    def backward(self, gradients: Groups, turn: Turn | None = None) -> Groups:
        """Backward with the gradients that arrived: the gradients of what arrived in `forward`."""
        found = []
        tied = self._tied._take_waiting() if self._tied is not None else {}
        for piece, done in zip(self._pieces, self._pending(), strict=True):
            if done.again is not None:
                done.again()
            waiting = [(done.weights[n], g[done.low : done.high]) for n, g in tied.items() if n in self._trained]
            backward(done.outputs, piece.of(gradients), self.device, self._backprop, waiting)
            found.append(self._ended(done))
        self._end_backward(turn)
        return joined(self._pieces, found)

    def _ended(self, done: _Pass) -> Any:
        """The gradient of what arrived; the graph is done with."""
        gradient = gradients_of(done.arrived, self._computing.staying)
        done.arrived = done.outputs = done.again = None
        return gradient

    def _end_backward(self, turn: Turn | None) -> None:
        """The gradients of phones that step are whole: they are corrected."""
        self._updating = self._passes if turn is None or turn.accumulation is None else self._whole(turn)
        if self._correction is not None:
            for done in self._updating:
                weights = {name: weight for name, weight in done.weights.items() if name in self._trained}
                self._correction(weights, slice(done.low, done.high))

    def _whole(self, turn: Turn) -> list[_Pass]:
        """Those whose last batch this was, with the gradients of all."""
        for done in self._passes:
            self._accumulated.add(done.low, done.high, done.weights)
        found = []
        for low, high, gradients in self._accumulated.take(turn.updating(self._passes[-1].high)):
            weights = self._leaves(low, high)
            for name, gradient in gradients.items():
                weights[name].grad = gradient
            found.append(_Pass(low, high, weights))
        return found

    def _pending(self) -> list[_Pass]:
        if not self._passes:
            raise RuntimeError("backward without a forward")
        return self._passes

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
        """Forward, each phone's own mean loss, and backward, as Copies.learn."""
        losses, right, gradients, wanted = [], [], [], list[Wanted]()
        parts = None if turn is None else turn.parts(sum(group_size(group) for group in arrived))
        for number, done in enumerate(self._each(arrived, seeds, differentiable)):
            targets = receive(self._pieces[number].of(labels), self.device)
            wanted.append(wanted_of(done.outputs))
            with self._computing.around(self.device):
                values = task.losses(done.outputs, targets)
            scaled = values if scales is None else values * torch.from_numpy(scales[done.low : done.high]).to(values)
            if parts is not None:
                scaled = scaled / torch.tensor(parts[done.low : done.high]).to(values)
            if values.requires_grad:
                scaled.sum().backward()  # type: ignore[no-untyped-call]
            losses.append(as_array(values))
            right.append(task.corrects(done.outputs, targets))
            gradients.append(self._ended(done))
        self.wanted = wanted_by_any(wanted)
        self._keep_waiting()
        self._end_backward(turn)
        return Learned(joined(self._pieces, gradients), np.concatenate(losses), np.concatenate(right))

    def gradient_norms(self) -> dict[str, Array]:
        """As Copies.gradient_norms; of phones whose gradient is none while another group's is there, 0."""
        each = [gradient_norms(done.weights) for done in self._updating]
        zeros = [torch.zeros(done.high - done.low, device=self.device) for done in self._updating]
        names = {name: norm.dtype for found in each for name, norm in found.items()}
        norms = {
            name: [found.get(name, none.to(dtype)) for found, none in zip(each, zeros, strict=True)]
            for name, dtype in names.items()
        }
        return {name: as_bits(torch.cat(parts)).copy() for name, parts in norms.items()}

    def step(self, turn: Turn | None = None, norms: Array | None = None) -> None:
        """One step of the optimizer for the phones that were in the last forward, as Copies.step."""
        self._optimizer.begin(turn)
        start = 0
        for done in self._updating:
            stop = start + done.high - done.low
            self._optimizer.clip(done.weights, None if norms is None else norms[start:stop])
            start = stop
            for names, taken in self._taken(done):
                for same in _equal_steps(taken):
                    self._step(done, names, same, float(taken[same if isinstance(same, slice) else same.numpy()][0]))
            for name in self._trained:
                if done.weights[name].grad is None:
                    self._skipped.setdefault(name, np.zeros(len(self._steps)))[done.low : done.high] += 1
            self._steps[done.low : done.high] += 1
        self._passes, self._updating = [], []

    def _taken(self, done: _Pass) -> list[tuple[list[str], Array]]:
        """The weights that have a gradient, and how often each phone of a pass has stepped them: mostly all alike."""
        names = [n for n, w in done.weights.items() if w.grad is not None]
        steps = self._steps[done.low : done.high]
        alike = [n for n in names if n not in self._skipped]
        others = [([n], steps - self._skipped[n][done.low : done.high]) for n in names if n in self._skipped]
        return [(alike, steps), *others] if alike else others

    def _step(self, done: _Pass, names: list[str], same: slice | torch.Tensor, taken: float) -> None:
        """Of these weights, for the phones of a pass that have stepped them equally often."""
        weights = [done.weights[n].detach()[same] for n in names]
        gradients = [done.weights[n].grad[same] for n in names]  # type: ignore[index]
        stacks = [{slot: m[n][done.low : done.high] for slot, m in self._memory.items()} for n in names]
        memory = [{slot: self._optimizer.part(slot, tensor[same]) for slot, tensor in own.items()} for own in stacks]
        self._optimizer.step(weights, gradients, memory, taken)
        copied = not isinstance(same, slice)
        for name, weight, stack, changed in zip(names, weights, stacks, memory, strict=True):
            if copied:
                done.weights[name].detach()[same] = weight
            for slot, tensor in stack.items():
                if copied or slot in self._optimizer.numbers:
                    tensor[same] = changed[slot]

    @torch.no_grad()
    def evaluate(self, arrived: Groups) -> list[Any]:
        """The outputs of each group, tensors (k, n, ...), in eval mode and without a graph."""
        self._set_training(False)
        outputs, low = [], 0
        for group in arrived:
            high = low + group_size(group)
            weights, buffers = (
                {n: t[low:high] for n, t in s.items()} for s in ({**self._weights, **self._ends}, self._buffers)
            )
            buffers |= {name: tensor.clone() for name, tensor in buffers.items() if name in self._changing}
            outputs.append(self._call(weights, buffers, receive(group, self.device))[0])
            low = high
        return outputs

    def average(self, shares: Array) -> State:
        """The copies' weights and buffers added up, each times its phone's share, as Copies.average."""
        counting, learned = np.flatnonzero(shares), self._learned()
        if len(counting) < len(shares):
            places = torch.from_numpy(counting).to(self.device)
            learned, shares = {name: tensor[places] for name, tensor in learned.items()}, shares[counting]
        on_device = torch.from_numpy(shares).to(self.device)
        return self._named({name: as_state(_weighted(t, on_device)) for name, t in learned.items()})

    def learned(self) -> State:
        """Every copy's weights that are trained, and buffers, (K, ...), as Copies.learned."""
        return self._named({name: as_state(tensor) for name, tensor in self._learned().items()})

    def _learned(self) -> Tensors:
        return {**{name: w for name, w in self._weights.items() if name in self._trained}, **self._buffers}

    def states(self) -> State:
        """Every copy's weights and optimizer, (K, ...)."""
        state = self._named({n: as_state(t) for n, t in {**self._weights, **self._buffers}.items()})
        for slot, memory in self._memory.items():
            state |= {f"optimizer/{name}/{slot}": as_state(tensor) for name, tensor in memory.items()}
        if self._optimizer.counts:
            taken = {name: self._steps - self._skipped.get(name, 0) for name in self._weights}
            state |= {f"optimizer/{name}/step": steps.astype(np.float32) for name, steps in taken.items()}
        return state

    def norms(self) -> Array:
        """As Copies.norms."""
        statistics = [buffer for name, buffer in self._buffers.items() if is_statistic(name)]
        tensors = [t for t in [*self._weights.values(), *statistics] if can_have_gradient(t)]
        if not tensors:
            return np.zeros(len(self._steps))
        each = [torch.linalg.vector_norm(as_floats(t).reshape(len(t), -1), dim=1) for t in tensors]
        return as_array(torch.linalg.vector_norm(torch.stack(each), dim=0))

    def _named(self, arrays: dict[str, Array]) -> State:
        """Under the keys of a state; a tensor with two names stands under both."""
        names = {id(t): n for n, t in [*self._module.named_parameters(), *self._module.named_buffers()]}
        kept = self._module.state_dict(keep_vars=True)
        places = {f"weights/{key}": names[id(tensor)] for key, tensor in kept.items()}
        places |= {f"buffers/{n}": n for n, _ in self._module.named_buffers() if n not in kept}
        return {key: arrays[name] for key, name in places.items() if name in arrays}


def over_phones(
    module: nn.Module, weights: Tensors, buffers: Tensors, arrived: Any, shared: bool = False, run: Run | None = None
) -> tuple[Any, Tensors]:
    """Call a module for k phones: weights, buffers (k, ...) and what arrived (k, n, ...) are each phone's own.

    `shared`: weights and buffers (...) are everybody's. One phone's call is the plain one. What isn't a tensor is
    the same for all. Returns the outputs, and the buffers (k, ...) that forward has assigned: the others' changes
    are in place. `run`: of several phones the same, compiled (of a module that assigns no buffer).
    """
    tensors = [x for x in leaves(arrived) if isinstance(x, torch.Tensor)]
    if len(tensors[0]) == 1:
        alone = {**weights, **buffers} if shared else row({**weights, **buffers}, 0)
        called = _called(module, alone, row(arrived, 0), buffers)
        outputs, assigned = tree_map(lambda x: x[None] if isinstance(x, torch.Tensor) else x, called)
        return outputs, assigned
    if run is not None:
        return run(weights, buffers, _arguments(arrived)), {}
    shape: list[Any] = []

    def one(weights: Tensors, buffers: Tensors, *tensors: torch.Tensor) -> list[torch.Tensor]:
        each = iter(tensors)
        own = tree_map(lambda x: next(each) if isinstance(x, torch.Tensor) else x, arrived)
        found = _called(module, {**weights, **buffers}, own, buffers)
        shape.append(tree_map(lambda x: _TENSOR if isinstance(x, torch.Tensor) else x, found))
        return [x for x in leaves(found) if isinstance(x, torch.Tensor)]

    own = None if shared else 0
    with _attention_that_batches():
        found = iter(vmap(one, in_dims=(own, own, *[0] * len(tensors)))(weights, buffers, *tensors))
    outputs, assigned = tree_map(lambda x: next(found) if x is _TENSOR else x, shape[0])
    return outputs, assigned


def _called(module: nn.Module, tensors: Tensors, arrived: Any, buffers: Tensors) -> tuple[Any, Tensors]:
    """The outputs, and the buffers that were assigned, which functional_call leaves in the dict that it is given."""
    before = dict(tensors)
    outputs = functional_call(module, tensors, _arguments(arrived))
    return outputs, {name: tensors[name] for name in buffers if tensors[name] is not before[name]}


@contextmanager
def _attention_that_batches() -> Iterator[None]:
    """torch's fused attention for CPUs has no batching rule: vmap would loop. Its parts have."""
    before = torch.backends.cuda.flash_sdp_enabled()  # type: ignore[no-untyped-call]  # of the CPU's too
    torch.backends.cuda.enable_flash_sdp(before and torch.cuda.is_available())
    try:
        yield
    finally:
        torch.backends.cuda.enable_flash_sdp(before)


def _arguments(arrived: Any) -> tuple[Any, ...]:
    return arrived if isinstance(arrived, tuple) else (arrived,)


def _weighted(tensor: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    if not can_have_gradient(tensor):
        return tensor.amax(0)
    if tensor.is_complex():
        return torch.view_as_complex(_weighted(torch.view_as_real(tensor), shares))
    tensor = tensor.float() if tensor.dtype in HALF else tensor  # see bits.counts_in
    shares = shares.to(tensor.dtype)
    if len(tensor) == 1:
        return tensor[0] * shares[0]
    total: torch.Tensor = torch.tensordot(shares, tensor, dims=1)
    return total


def _equal_steps(steps: Array) -> list[slice | torch.Tensor]:
    """The phones by how many steps they have taken: nearly always all alike."""
    if (steps == steps[0]).all():
        return [slice(None)]
    return [torch.from_numpy(np.flatnonzero(steps == taken)) for taken in np.unique(steps)]


def _share_generators(dropouts: list[SeededDropout]) -> None:
    """A segment's Dropouts draw one after the other from the phone's one generator."""
    for dropout in dropouts[1:]:
        dropout.generators = dropouts[0].generators
