"""What each node of a traced model costs in a training step: one forward and one backward on tensors without data.

The tensors are torch's FakeTensors: they have shapes, types and storages, and nothing is computed. Sizes in bytes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch._subclasses import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from ray_split.arrays import Array
from ray_split.costs.cut_positions import Trace, uses
from ray_split.costs.shared_weights import SharedWeight, is_base, mark_base, shared_weights
from ray_split.errors import BROKEN, SettingsError
from ray_split.messages.message import leaves
from ray_split.segments.base_weight import BaseWeight

Shape = tuple[int, ...]


@dataclass
class Costs:
    """An element for each node (N,), of a step on one batch."""

    forward: Array  # FLOPs
    backward: Array  # FLOPs
    saved: Array  # bytes that the node is the first to keep for the backward
    alive: Array  # bytes of activations while the node runs forward: kept, or still needed
    workspace: Array  # bytes that a convolution takes more while it runs: its operands once more, in another layout
    parameters: Array  # numbers of weights that are used there first, trained or not
    weights: Array  # their bytes, and those of buffers
    trained: Array  # bytes of those that are trained: of their gradients, too
    largest: Array  # bytes of the largest of these
    crossing: Array  # bytes of what is needed after the node: what would cross there
    returning: Array  # bytes of its gradients
    touched: Array  # bytes of gradients of all that is alive just before or just after the node
    unkept: Array  # bytes of what would cross that no node up to here keeps
    shapes: list[tuple[Shape, ...]]  # of the tensors that would cross
    inputs: int  # bytes of the batch
    outputs: int  # bytes of what the model returns
    labels: int  # bytes of a batch's labels: a class for each sample, or for each token of it
    sent_before: Array  # bytes of the state of all up to the node: weights but a frozen base, and buffers
    sent_after: Array  # the same of all after it
    shared: list[SharedWeight]  # a weight that several nodes use; above it is the first one's


def convolution_backward(
    gradient: list[int], inputs: list[int], weight: list[int], *more: Any, out_shape: Any, **_: Any
) -> int:
    """FLOPs of a convolution's backward, of shapes: of inputs and of weights each as many as of the forward.

    torch's own formula counts the weights of a grouped convolution as many times as there are groups.
    """
    transposed, output_mask = more[4], more[7]
    each: int = conv_flop_count(inputs, weight, gradient, transposed)
    return each * (int(output_mask[0]) + int(output_mask[1]))


FORMULAS = {torch.ops.aten.convolution_backward: convolution_backward}


def without_data(model: nn.Module, mode: FakeTensorMode | None) -> nn.Module:
    """The model itself, its parameters and buffers replaced by fake ones; what was tied stays tied.

    Without a mode they are on the meta device, where a module can be copied.
    """
    made: dict[int, torch.Tensor] = {}

    def fake(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in made:
            with mode or nullcontext():
                empty = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu" if mode else "meta")
            made[id(tensor)] = _like(tensor, empty)
        return made[id(tensor)]

    def _like(tensor: torch.Tensor, empty: torch.Tensor) -> torch.Tensor:
        if isinstance(tensor, BaseWeight):
            found: torch.Tensor = BaseWeight(empty)
            mark_base(found)
            return found
        return nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty

    for module in model.modules():
        tables: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
        for table in tables:
            table.update({name: fake(tensor) for name, tensor in table.items() if tensor is not None})
    return model


def costs_of(
    model: nn.Module, trace: Trace, shape: Shape, mode: FakeTensorMode, dtype: torch.dtype = torch.float32
) -> Costs:
    """The costs of a step on a batch (batch size, ...), of a model without data, in train mode.

    The loss counts as a log-softmax of what the model returns. Raises SettingsError if the model can't take this.
    """
    run = _Run(model, trace)
    with mode, _unlogged():
        try:
            inputs = torch.empty(shape, dtype=dtype)
            run.step(inputs)
        except BROKEN as error:
            said = " ".join(str(error).partition("While executing")[0].split())  # what follows is fx's own
            wrong = f"the model can't take a batch of shape {tuple(shape)}: {type(error).__name__}: {said}"
            raise SettingsError("input", list(shape), _what_to_give(dtype), wrong) from error
    count = len(run.alive)
    columns: dict[str, Any] = {**run.columns(), **_weights(model, trace, count), **_live(trace, run)}
    sent: dict[str, Any] = {
        "sent_before": _sent(model, trace, count),
        "sent_after": _sent(model, trace, count, after=True),
    }
    return Costs(
        **columns,
        **sent,
        inputs=bytes_of(inputs),
        outputs=run.outputs,
        labels=_labels(inputs, run.shape),
        shared=shared_weights(uses(model, trace)),
    )


LABEL_BYTES = 8  # of a class: an int64


def _labels(inputs: torch.Tensor, outputs: Shape) -> int:
    """Scores of (samples, tokens, classes) are of the next token of each token."""
    of_tokens = not inputs.is_floating_point() and len(outputs) == 3 and outputs[:2] == tuple(inputs.shape)
    return LABEL_BYTES * (inputs.numel() if of_tokens else len(inputs))


def _what_to_give(dtype: torch.dtype) -> str:
    if not dtype.is_floating_point:
        return "Give the number of tokens that the model takes, such as 128"
    return "Give the shape of one sample, such as 3x224x224, or data.max_length for a model that reads tokens"


@contextmanager
def _unlogged() -> Iterator[None]:
    """torch logs a traceback of what then is raised, and told in a line."""
    log = logging.getLogger("torch._subclasses.fake_tensor")
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before


def bytes_of(value: Any) -> int:
    """Of the arrays that a value would be sent as."""
    return sum(leaf.numel() * leaf.element_size() for leaf in leaves(value) if isinstance(leaf, torch.Tensor))


def _rows(output: torch.Tensor) -> torch.Tensor:
    """An output as real numbers, a row a sample; of one without dimensions a single one."""
    real = torch.view_as_real(output) if output.is_complex() else output
    return real.reshape(len(output) if output.dim() else 1, -1)


def _key(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


@dataclass
class Value:
    """What is known of a node's result."""

    bytes: int
    returning: int  # bytes of its gradient
    shapes: tuple[Shape, ...]
    storages: dict[int, int]  # bytes by key


@dataclass
class _Storages:
    """Bytes of memory by storage, each counted once; those of weights never."""

    ignored: set[int]
    seen: dict[int, int] = field(default_factory=dict)
    held: list[torch.Tensor] = field(default_factory=list)  # so that no key is given out twice

    def of(self, value: Any) -> dict[int, int]:
        tensors = [leaf for leaf in leaves(value) if isinstance(leaf, torch.Tensor)]
        return {_key(t): t.untyped_storage().nbytes() for t in tensors if _key(t) not in self.ignored}

    def hold(self, tensor: torch.Tensor) -> None:
        self.held.append(tensor)


class _Run(fx.Interpreter):
    """A forward, node by node, and a backward whose work is told by the node that it belongs to."""

    def __init__(self, model: nn.Module, trace: Trace) -> None:
        super().__init__(model, graph=trace.graph)
        count = len(trace.places)
        self.places = {node: i for i, node in enumerate(trace.places)}
        self.forward, self.backward = np.zeros(count), np.zeros(count)
        self.saved, self.alive, self.workspace = np.zeros(count), np.zeros(count), np.zeros(count)
        self.storages = _Storages({_key(t) for t in [*model.parameters(), *model.buffers()]})
        self.kept: dict[int, tuple[int, int]] = {}  # storage: the node that keeps it first, bytes
        self.values: dict[fx.Node, Value] = {}
        self.at, self.outputs = 0, 0
        self.shape: Shape = ()  # of the first that the model returns
        self._known: set[Any] = set()
        self._counter = FlopCounterMode(display=False, custom_mapping=FORMULAS)

    def step(self, inputs: torch.Tensor) -> None:
        with torch.enable_grad(), self._counter:
            with saved_tensors_hooks(self._keep, lambda tensor: tensor):
                outputs = [x for x in leaves(self.run(inputs)) if isinstance(x, torch.Tensor) and x.requires_grad]
                self.outputs, self.shape = bytes_of(outputs), tuple(outputs[0].shape) if outputs else ()
                loss = sum((torch.log_softmax(_rows(x), 1).sum() for x in outputs), torch.zeros(()))
            self._count(self.forward)
            if outputs:
                self._follow(loss)
                loss.backward()  # type: ignore[no-untyped-call]
                self._count(self.backward)

    def _keep(self, tensor: torch.Tensor) -> torch.Tensor:
        key = _key(tensor)
        if key not in self.storages.ignored and key not in self.kept:
            self.kept[key] = self.at, tensor.untyped_storage().nbytes()
            self.saved[self.at] += self.kept[key][1]
        self.storages.hold(tensor)
        return tensor

    def _count(self, column: Array) -> None:
        """What was counted since the last time is the present node's."""
        column[self.at] += self._counter.get_total_flops()
        self._counter.flop_counts.clear()

    def run_node(self, n: fx.Node) -> Any:
        self.at = self.places[n]
        result = super().run_node(n)
        if torch.ops.aten.convolution in self._counter.flop_counts["Global"]:
            self.workspace[self.at] = self._operands(n, result)
        self._count(self.forward)
        for leaf in leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.storages.hold(leaf)
                self._follow(leaf)
        self.values[n] = self._value(result)
        needed = self.storages.of([*self.env.values(), result])
        unkept = sum(size for key, size in needed.items() if key not in self.kept)
        self.alive[self.at] = self.saved.sum() + unkept
        return result

    def _value(self, result: Any) -> Value:
        tensors = [leaf for leaf in leaves(result) if isinstance(leaf, torch.Tensor)]
        trained = [tensor for tensor in tensors if tensor.requires_grad]
        return Value(
            bytes_of(tensors), bytes_of(trained), tuple(tuple(t.shape) for t in tensors), self.storages.of(result)
        )

    def _operands(self, n: fx.Node, result: Any) -> int:
        arguments = sum(self.values[argument].bytes for argument in n.all_input_nodes if argument in self.values)
        weights = list(self.submodules[str(n.target)].parameters()) if n.op == "call_module" else []
        return arguments + bytes_of([result, *weights])

    def _follow(self, tensor: torch.Tensor) -> None:
        """Note that the backward of all that led to a tensor, and is not known yet, belongs to the present node."""
        due, place = [tensor.grad_fn], self.at
        while due:
            function = due.pop()
            if function is not None and function not in self._known:
                self._known.add(function)
                function.register_prehook(self._entering(place))
                due += [before for before, _ in function.next_functions]

    def _entering(self, place: int) -> Callable[[Any], None]:
        def enter(_: Any) -> None:
            self._count(self.backward)
            self.at = place

        return enter

    def columns(self) -> dict[str, Array]:
        names = ("forward", "backward", "saved", "alive", "workspace")
        return {name: getattr(self, name) for name in names}


def _weights(model: nn.Module, trace: Trace, count: int) -> dict[str, Array]:
    names = ("parameters", "weights", "trained", "largest")
    columns = {name: np.zeros(count) for name in names}
    seen: set[int] = set()
    for place, tensor in uses(model, trace):
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        columns["weights"][place] += bytes_of(tensor)
        if isinstance(tensor, nn.Parameter):
            columns["parameters"][place] += tensor.numel()
            trained = bytes_of(tensor) * tensor.requires_grad
            columns["trained"][place] += trained
            columns["largest"][place] = max(columns["largest"][place], trained)
    return columns


def _sent(model: nn.Module, trace: Trace, count: int, after: bool = False) -> Array:
    """Bytes of the state of all up to each node (N,), or of all after it: a tensor that both use is in both."""
    own, seen = np.zeros(count), set[int]()
    for place, tensor in sorted(uses(model, trace), key=lambda use: use[0], reverse=after):
        if id(tensor) not in seen and not is_base(tensor):
            seen.add(id(tensor))
            own[place] += bytes_of(tensor)
    return np.asarray(np.cumsum(own[::-1])[::-1] - own if after else np.cumsum(own))


def _live(trace: Trace, run: _Run) -> dict[str, Any]:
    """What is alive after each node, by the values that are needed there."""
    count = len(run.alive)
    columns = {name: np.zeros(count) for name in ("crossing", "returning", "touched", "unkept")}
    shapes: list[tuple[Shape, ...]] = [() for _ in range(count)]
    storages: list[dict[int, int]] = [{} for _ in range(count)]
    for node, made, last in trace.spans():
        value = run.values[node]
        columns["crossing"][made:last] += value.bytes
        columns["returning"][made:last] += value.returning
        columns["touched"][made : last + 1] += value.returning if node.op != "placeholder" else 0
        for place in range(made, last):
            shapes[place] += value.shapes
            storages[place].update(value.storages)
    for place, found in enumerate(storages):
        kept = (run.kept.get(key, (count, 0))[0] for key in found)
        columns["unkept"][place] = sum(s for s, by in zip(found.values(), kept, strict=True) if by > place)
    return {**columns, "shapes": shapes}
