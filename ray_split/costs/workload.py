"""What an exchange of one phone takes: FLOPs, and bytes that cross, by the size of its batch.

Counted on tensors without data, segment by segment, each with the borders that it has in training.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from ray_split import config
from ray_split.algorithms import algorithm_of
from ray_split.costs.node_costs import FORMULAS, bytes_of, without_data
from ray_split.cutting.cut import Segments
from ray_split.errors import MISFITS, SettingsError, told
from ray_split.messages.message import leaves, tree_map
from ray_split.schedules import schedule_of
from ray_split.segments.autograd import as_floats
from ray_split.segments.device.computing import Computing, computing_of
from ray_split.segments.optimization import optimizers
from ray_split.segments.segment import HALF, call, learned_keys, tensors_of
from ray_split.segments.tied_weight import owned


class Line(NamedTuple):
    """A number that grows with the batch."""

    per_sample: float
    fixed: float = 0.0

    def at(self, samples: Any) -> Any:
        """For batches of so many samples (an array, too); 0 of an empty one."""
        return (samples > 0) * (self.fixed + self.per_sample * samples)


class Weights(NamedTuple):
    """Bytes of weights and buffers."""

    down: float = 0.0  # all of them
    up: float = 0.0  # those that are averaged: not what is frozen
    slots: float = 0.0  # of what the optimizer keeps of them


class Work(NamedTuple):
    """FLOPs of the segments, and bytes of the four messages. In single split the loss is B's, and of C all is 0."""

    a_forward: Line
    a_backward: Line
    b_forward: Line
    b_backward: Line
    c: Line  # forward and backward
    activation: Line
    hidden: Line
    hidden_gradient: Line
    activation_gradient: Line
    ends: Weights  # of A and C
    middle: Weights  # of B


WITHOUT = "Remove phones.device, phones.link and server.device, to train without virtual time"


def work_of(
    settings: config.Config, segments: Segments, examples: Sequence[torch.Tensor], labels: torch.Tensor
) -> Work:
    """The work of batches such as the examples (n, ...), a small and a large one. Raises SettingsError."""
    few, many = examples[0], examples[-1]
    try:
        some = [(len(example), _measured(settings, segments, example)) for example in (few, many)]
    except MISFITS as error:
        wrong = f"can't be used with this model, because its work can't be computed without real data: {told(error)}"
        raise SettingsError("phones.device", settings.phones.device, WITHOUT, wrong) from error
    lines = {name: _line(some[0][0], some[0][1][name], some[1][0], some[1][1][name]) for name in some[0][1]}
    if segments.c is None:
        sent = lines["activation"]
        lines["activation"] = sent._replace(per_sample=sent.per_sample + bytes_of(labels) / len(labels))
    weights = {name: _weights(settings, name, module) for name, module in segments.modules().items()}
    middle = weights.pop("b")
    return Work(**lines, ends=Weights(*(sum(column) for column in zip(*weights.values(), strict=True))), middle=middle)


def _line(n_few: int, few: float, n_many: int, many: float) -> Line:
    if n_few == n_many:
        return Line(many / n_many)
    each = (many - few) / (n_many - n_few)
    return Line(each, few - each * n_few)


def _weights(settings: config.Config, name: str, module: nn.Module) -> Weights:
    tensors = tensors_of(module)
    down = sum(bytes_of(tensor) for tensor in tensors.values())
    if name in settings.model.freeze:
        return Weights(down)
    trained = [parameter for _, parameter in owned(module) if parameter.requires_grad]
    optimizer = settings.optimizer.of(name)
    slots = len(optimizers.slots(optimizer)) * sum(bytes_of(parameter) for parameter in trained)
    counts = sum(kind.itemsize for kind in optimizers.numbers(optimizer).values()) * len(trained)
    crosses = _crosses_beside(settings, name) * sum(map(_summed, trained))
    summed = sum(_summed(tensors[key]) for key in learned_keys(module))
    return Weights(down + crosses, summed + crosses, slots + counts)


def _crosses_beside(settings: config.Config, name: str) -> bool:
    """Whether what an algorithm remembers of a segment, as large as its weights, crosses: both ways."""
    algorithm = algorithm_of(settings.algorithm)
    shares = algorithm is not None and algorithm.shares
    return shares and name in schedule_of(settings.schedule).averaged


def _summed(tensor: torch.Tensor) -> int:
    """Bytes of a sum of such tensors: of those in half precision it is in single."""
    return bytes_of(tensor) * (2 if tensor.dtype in HALF else 1)


class _Side(NamedTuple):
    """A segment's forward: leaves that arrived, and what it returned."""

    arrived: Any
    outputs: Any


def _measured(settings: config.Config, segments: Segments, example: torch.Tensor) -> dict[str, float]:
    """One exchange, as the segments do it."""
    mode, found = FakeTensorMode(allow_non_fake_inputs=True), {}  # a model may hold constants of its own
    counter = FlopCounterMode(display=False, custom_mapping=FORMULAS)

    def counted() -> float:
        total = counter.get_total_flops()
        counter.flop_counts.clear()
        return float(total)

    sides = {}
    modules = {name: without_data(copy.deepcopy(module), mode) for name, module in segments.modules().items()}
    with mode:
        arrived: Any = torch.empty(example.shape, dtype=example.dtype)
    with mode, torch.enable_grad(), counter:
        for name, module in modules.items():
            frozen = name in settings.model.freeze
            computing = computing_of(settings, name, schedule_of(settings.schedule).on_server)
            sides[name] = _forward(module.train(not frozen), frozen, arrived, computing)
            arrived = sides[name].outputs
            found[name] = counted()
        backward, gradients = {}, {}
        for name in reversed(sides):
            _backward(sides[name].outputs)
            backward[name], gradients[name] = counted(), _gradients(sides[name].arrived)
    return {
        "a_forward": found["a"], "a_backward": backward["a"], "b_forward": found["b"], "b_backward": backward["b"],
        "c": found.get("c", 0.0) + backward.get("c", 0.0), "activation": bytes_of(sides["a"].outputs),
        "hidden": bytes_of(sides["b"].outputs) if "c" in sides else 0.0,
        "hidden_gradient": gradients.get("c", 0.0), "activation_gradient": gradients["b"],
    }  # fmt: skip


def _forward(module: nn.Module, frozen: bool, arrived: Any, computing: Computing) -> _Side:
    if frozen:
        module.requires_grad_(False)

    def leaf(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        return value.detach().requires_grad_(value.requires_grad)

    there = tree_map(leaf, arrived)
    own = tree_map(lambda x: x.clone() if isinstance(x, torch.Tensor) else x, there)
    with computing.around(torch.device("cpu")):
        return _Side(there, call(module, computing.taken(own)))


def _backward(outputs: Any) -> None:
    """From outputs whose gradient is wanted: of a sum, which takes no FLOPs that are counted."""
    wanted = [as_floats(x).sum() for x in leaves(outputs) if isinstance(x, torch.Tensor) and x.requires_grad]
    if wanted:
        torch.stack(wanted).sum().backward()  # type: ignore[no-untyped-call]


def _gradients(arrived: Any) -> float:
    return float(sum(bytes_of(x.grad) for x in leaves(arrived) if isinstance(x, torch.Tensor) and x.grad is not None))
