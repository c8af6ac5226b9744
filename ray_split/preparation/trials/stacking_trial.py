"""Whether several phones at once compute what a loop over them does: both are tried, for two steps, on one batch.

What torch.func.vmap can't do is an error, mostly. But what a layer draws, and what it does to weights, buffers and
gradients other than by functions of tensors, may be lost without one: so all that a step leaves is compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from ray_split import config
from ray_split.errors import MISFITS, told
from ray_split.messages.message import Groups, as_bits, leaves, receive_leaf, send, tree_map
from ray_split.messages.state import State
from ray_split.preparation.trials.alike import Tolerance, different
from ray_split.segments.copy_factory import CopyFactory
from ray_split.segments.parameter_hooks import first_hooked
from ray_split.segments.segment import Segment
from ray_split.segments.shared_segment import SharedSegment

PHONES, STEPS, SEED = 2, 2, 1
OPTIMIZER = config.Optimizer(lr=0.01, momentum=0.9)  # its momentum is the gradients
# Far more than rounding, far less than a layer computed wrongly. Some layers compute in single precision even so.
DOUBLE, SINGLE, HALF = Tolerance(1e-4, 1e-6, 1e-6), Tolerance(1e-3, 1e-6, 1e-6), Tolerance(1e-1, 1e-2, 1e-2)
BUFFERS = 1e-12  # of the largest value, in double precision: a small change of a buffer may be a right one


class _Tried(Protocol):
    """What is asked of the phones' copies, or of the one segment that they share."""

    def forward(self, arrived: Groups, seeds: Sequence[int], differentiable: bool = True) -> Groups: ...

    def backward(self, gradients: Groups) -> Groups: ...

    def step(self) -> None: ...

    def evaluate(self, arrived: Groups) -> list[Any]: ...

    def states(self) -> State: ...


class _AsCopies:
    """A segment that phones share, in the words of copies."""

    def __init__(self, segment: Segment, vmapped: bool) -> None:
        self._shared = SharedSegment(segment, vmapped)
        self.evaluate = self._shared.evaluate
        self.states = segment.state

    def forward(self, arrived: Groups, seeds: Sequence[int], differentiable: bool = True) -> Groups:
        return self._shared.forward(0, arrived, seeds, differentiable)

    def backward(self, gradients: Groups) -> Groups:
        return self._shared.backward(0, gradients, [np.ones(PHONES)])

    def step(self) -> None:
        self._shared.step(1.0)


class _Found(NamedTuple):
    """What a step has left, by name."""

    what: str
    values: dict[str, Any]
    tolerance: Tolerance
    before: State | None = None


class _LoopError(Exception):
    """The loop itself fails, as the untouched model would."""


def why_not(make: CopyFactory, arrived: Any, evaluated: Any, differentiable: bool, shared: bool = False) -> str | None:
    """Why phones can't be computed at once, each with its copy or (`shared`) all with one, if so.

    `arrived`: a batch's inputs of the segment, of one phone, and `evaluated` those in eval mode; `differentiable`:
    whether their gradient is wanted.
    Tried in double precision, where rounding hides nothing, if the segment can be.
    """
    if name := first_hooked(make.segment().module):
        return f"the hook on {name} is for the gradient of one phone's batch"
    with torch.random.fork_rng(devices=[]):
        try:
            doubled = [tree_map(lambda x: x.double() if _is_real(x) else x, tree) for tree in (arrived, evaluated)]
            return _problem(make.like(OPTIMIZER, double=True), doubled, differentiable, shared, DOUBLE)
        except _LoopError:
            pass
        try:
            both = [arrived, evaluated]
            return _problem(make.like(OPTIMIZER), both, differentiable, shared, _tolerance(make, arrived))
        except _LoopError as error:
            return str(error)


def why_not_evaluated(make: CopyFactory, shown: Any, shared: bool) -> str | None:
    """Why phones can't be evaluated at once on so many samples, if so; where the loop fails too there is no choice."""
    with torch.random.fork_rng(devices=[]):
        groups = [_batches(shown, 0)]
        try:
            looped = [send(found) for found in _made(make, shared, at_once=False).evaluate(groups)]
        except MISFITS:
            return None
        try:
            at_once = [send(found) for found in _made(make, shared, at_once=True).evaluate(groups)]
        except MISFITS as error:
            return told(error)
        name = different(_numbered(looped), _numbered(at_once), _tolerance(make, shown))
        return None if name is None else f"stacked it computes something else: in eval mode an output {name}"


def _problem(
    make: CopyFactory, inputs: list[Any], differentiable: bool, shared: bool, tolerance: Tolerance
) -> str | None:
    arrived, evaluated = inputs
    batches = [[_batches(arrived, step)] for step in range(STEPS)] + [[_batches(evaluated, 0)]]
    weights = {f"weights/{n}" for n, _ in make.segment().module.named_parameters(remove_duplicate=False)}
    loop, at_once = (
        _steps(_made(make, shared, way), batches, differentiable, weights, tolerance) for way in (False, True)
    )
    for expected in _guarded(loop):
        try:
            drawn = torch.get_rng_state()
            found = next(at_once)
        except MISFITS as error:
            return told(error)
        if not torch.equal(drawn, torch.get_rng_state()):
            return "it draws random numbers otherwise than by nn.Dropout, and each phone has draws of its own"
        name = different(expected.values, found.values, expected.tolerance, expected.before)
        if name is not None:
            return f"stacked it computes something else: {expected.what} {name}".strip()
    return None


def _guarded(steps: Iterator[_Found]) -> Iterator[_Found]:
    try:
        yield from steps
    except MISFITS as error:
        raise _LoopError(told(error)) from error


def _made(make: CopyFactory, shared: bool, at_once: bool) -> _Tried:
    if shared:
        return _AsCopies(make.segment(), vmapped=at_once)
    copies = make.stack() if at_once else make.looped()
    copies.load(make.first_state(), PHONES)
    return copies


def _steps(
    copies: _Tried, batches: Sequence[Groups], differentiable: bool, weights: set[str], tolerance: Tolerance
) -> Iterator[_Found]:
    for_buffers = tolerance._replace(all=BUFFERS) if tolerance is DOUBLE else tolerance
    before = copies.states()
    for step, groups in enumerate(batches[:-1]):
        outputs = copies.forward(groups, range(SEED + step, SEED + step + PHONES), differentiable)
        yield _Found("an output", _numbered(outputs), tolerance)
        back = copies.backward([_gradients(group, step) for group in outputs])
        yield _Found("the gradient of what arrives", _numbered(back), tolerance)
        copies.step()
        state = copies.states()
        yield _Found("the gradient of", {k: v for k, v in state.items() if k.endswith("/momentum_buffer")}, tolerance)
        yield _Found("what becomes of", {k: v for k, v in state.items() if k in weights}, tolerance, before)
        rest = {k: v for k, v in state.items() if k not in weights and not k.startswith("optimizer/")}
        yield _Found("what becomes of", rest, for_buffers, before)
        before = state
    outputs = [send(found) for found in copies.evaluate(batches[-1])]
    yield _Found("in eval mode an output", _numbered(outputs), tolerance)


def _numbered(groups: Groups) -> dict[str, Any]:
    return {str(place): leaf for place, leaf in enumerate(leaves(groups))}


def _batches(arrived: Any, step: int) -> Any:
    """Other inputs for each phone and step: other samples, however few, and of real numbers other values."""

    def batches(x: Any) -> Any:
        if not isinstance(x, torch.Tensor):
            return x
        each = [_samples(x, phone, step) for phone in range(PHONES)]
        changed = [_times(own, 1 - (i + step) / 8) if _is_real(own) else own for i, own in enumerate(each)]
        # Laid out in memory as what arrives is: Dropout draws in that order.
        return np.stack([as_bits(torch.empty_like(x).copy_(own)) for own in changed])

    return send(tree_map(batches, arrived))


def _times(x: torch.Tensor, factor: float) -> torch.Tensor:
    """In single precision what torch can't multiply, such as float8."""
    return (x.float() * factor).to(x.dtype) if x.itemsize < 4 else x * factor


def _samples(x: torch.Tensor, phone: int, step: int) -> torch.Tensor:
    """Some of them twice and some not at all, so that no two phones have the same mean."""
    if not x.dim():
        return x
    return x[(torch.arange(len(x)) // (phone + 1)).roll(phone + step)]


def _gradients(group: Any, step: int) -> Any:
    """A gradient for each output that may have one, in the same structure."""
    draw = torch.Generator().manual_seed(SEED + step)

    def gradient(value: Any) -> Any:
        x = receive_leaf(value)
        if not _is_real(x) and not (isinstance(x, torch.Tensor) and x.is_complex()):
            return None
        kind = torch.cfloat if x.dtype is torch.complex32 else torch.float if x.itemsize < 4 else x.dtype
        return (torch.randn(x.shape, generator=draw, dtype=kind) / max(x[0].numel(), 1) ** 0.5).to(x.dtype)

    return send(tree_map(gradient, group))


def _is_real(x: Any) -> bool:
    return isinstance(x, torch.Tensor) and x.is_floating_point()


def _tolerance(make: CopyFactory, arrived: Any) -> Tolerance:
    tensors = [x for x in [*make.segment().tensors().values(), *leaves(arrived)] if _is_real(x)]
    return HALF if any(torch.finfo(x.dtype).bits < 32 for x in tensors) else SINGLE
