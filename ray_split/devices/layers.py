"""A segment as layers that a device can compute: JSON, without code (docs/protocol.md, "Layers").

What has no place in the table is refused with its name, before any device joins.
"""

from __future__ import annotations

import hashlib
import json
import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from ray_split.cutting.segment_module import Value

Layer = dict[str, Any]
Described = dict[str, Any]
"""`input`, `output`, and `layers` in the order in which they are computed."""


class LayerError(ValueError):
    """A layer that devices can't compute."""


def _list(value: Any, dimensions: int) -> list[int]:
    return [int(each) for each in value] if isinstance(value, (tuple, list)) else [int(value)] * dimensions


def _linear(layer: Any) -> Layer:
    return {"kind": "linear"}


def _conv(layer: Any) -> Layer:
    if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        raise LayerError("has padding that is not a number of zeros")
    dimensions = layer.weight.dim() - 2
    shapes = {name: _list(getattr(layer, name), dimensions) for name in ("stride", "padding", "dilation")}
    return {"kind": f"conv{dimensions}d", **shapes, "groups": layer.groups}


def _max_pool(layer: Any, dimensions: int) -> Layer:
    if _list(layer.dilation, dimensions) != [1] * dimensions or layer.return_indices:
        raise LayerError("has a dilation, or returns indices")
    return {"kind": f"max_pool{dimensions}d", **_window(layer, dimensions)}


def _avg_pool(layer: Any, dimensions: int) -> Layer:
    if getattr(layer, "divisor_override", None) is not None:
        raise LayerError("has a divisor of its own")
    counts = {"count_include_pad": bool(layer.count_include_pad)}
    return {"kind": f"avg_pool{dimensions}d", **_window(layer, dimensions), **counts}


def _window(layer: Any, dimensions: int) -> Layer:
    stride = layer.kernel_size if layer.stride is None else layer.stride
    sizes = {"kernel": layer.kernel_size, "stride": stride, "padding": layer.padding}
    return {name: _list(size, dimensions) for name, size in sizes.items()} | {"ceil_mode": bool(layer.ceil_mode)}


def _adaptive_pool(layer: Any, dimensions: int) -> Layer:
    output = _list(layer.output_size, dimensions)
    return {"kind": f"adaptive_avg_pool{dimensions}d", "output": output}


def _batch_norm(layer: Any) -> Layer:
    if not layer.track_running_stats:
        raise LayerError("keeps no running statistics")
    return {"kind": "batch_norm", "eps": layer.eps, "momentum": layer.momentum}


def _layer_norm(layer: Any) -> Layer:
    return {"kind": "layer_norm", "shape": list(layer.normalized_shape), "eps": layer.eps}


def _embedding(layer: Any) -> Layer:
    if layer.max_norm is not None or layer.scale_grad_by_freq or layer.sparse:
        raise LayerError("has a max_norm, scale_grad_by_freq or sparse")
    return {"kind": "embedding", "padding": layer.padding_idx}


MODULES: dict[type[nn.Module], Callable[[Any], Layer]] = {
    nn.Linear: _linear,
    nn.Conv1d: _conv,
    nn.Conv2d: _conv,
    nn.ReLU: lambda _: {"kind": "relu"},
    nn.GELU: lambda layer: {"kind": "gelu", "approximate": layer.approximate},
    nn.Sigmoid: lambda _: {"kind": "sigmoid"},
    nn.Tanh: lambda _: {"kind": "tanh"},
    nn.MaxPool1d: lambda layer: _max_pool(layer, 1),
    nn.MaxPool2d: lambda layer: _max_pool(layer, 2),
    nn.AvgPool1d: lambda layer: _avg_pool(layer, 1),
    nn.AvgPool2d: lambda layer: _avg_pool(layer, 2),
    nn.AdaptiveAvgPool1d: lambda layer: _adaptive_pool(layer, 1),
    nn.AdaptiveAvgPool2d: lambda layer: _adaptive_pool(layer, 2),
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.LayerNorm: _layer_norm,
    nn.Flatten: lambda layer: {"kind": "flatten", "start": layer.start_dim, "end": layer.end_dim},
    nn.Dropout: lambda layer: {"kind": "dropout", "p": layer.p},
    nn.Embedding: _embedding,
}
"""What each kind of layer is to a device, beside its tensors."""

TENSORS = {
    "weight": "weight",
    "bias": "bias",
    "running_mean": "mean",
    "running_var": "var",
    "num_batches_tracked": "count",
}
"""A layer's own tensors, and what a device knows them as."""

PLAIN: dict[Any, str] = {
    torch.relu: "relu", F.relu: "relu", "relu": "relu", torch.sigmoid: "sigmoid", F.sigmoid: "sigmoid",
    "sigmoid": "sigmoid", torch.tanh: "tanh", F.tanh: "tanh", "tanh": "tanh", operator.add: "add", torch.add: "add",
    operator.iadd: "add", "add": "add", "add_": "add", "relu_": "relu",
}  # fmt: skip
"""Functions and methods of tensors alone."""


def describe(segment: nn.Module) -> Described:
    """The layers of a segment whose one input and one output are tensors. Raises LayerError."""
    programs = getattr(segment, "_ray_split_programs", None)
    if programs is None:
        raise LayerError("the model is cut into modules of its own, whose layers aren't known")
    program = programs[True]
    if len(program.inputs) != 1 or len(program.crossing) > 1:
        raise LayerError(f"{max(len(program.inputs), len(program.crossing))} tensors cross, and not one")
    walk = _Walk(segment)
    values = {program.inputs[0]: "x"}
    for call in program.calls:
        values[call.name] = walk.call(call.name, call.kind, call.target, call.args, call.kwargs, values)
    results = [program.result] if isinstance(program.result, Value) else list(program.result)
    if len(results) != 1 or not isinstance(results[0], Value):
        raise LayerError("the output is not one tensor")
    return {"input": "x", "output": values[results[0].name], "layers": walk.layers}


class _Walk:
    """The layers of a segment, found in the order of its calls."""

    def __init__(self, segment: nn.Module) -> None:
        self._segment = segment
        self.layers: list[Layer] = []
        self._names = {"x"}

    def call(self, name: str, kind: str, target: Any, args: Any, kwargs: Any, values: Mapping[str, str]) -> str:
        """Add what one call of a program is; returns the name of its result."""
        inputs, others = _inputs(args, kwargs, values)
        if kind == "call_module":
            return self.module(target, self._segment.get_submodule(target), inputs)
        known = PLAIN.get(target)
        if known is not None and not others and len(inputs) == (2 if known == "add" else 1):
            return self._add(name, {"kind": known, "inputs": inputs})
        if (found := _with_arguments(target, args, kwargs, inputs)) is not None:
            return self._add(name, {**found, "inputs": inputs[:1]})
        raise LayerError(f"devices can't compute {_shown(target)}")

    def module(self, path: str, module: nn.Module, inputs: list[str]) -> str:
        """Add a module, or what it is made of; returns the name of its result."""
        if isinstance(module, nn.Identity):
            return inputs[0]
        make = MODULES.get(type(module))
        if make is None:
            return self._inside(path, module, inputs)
        if len(inputs) != 1:
            raise LayerError(f"layer {path} takes {len(inputs)} tensors, and devices give it one")
        try:
            told = make(module)
        except LayerError as error:
            raise LayerError(f"layer {path} {error}") from error
        tensors = {known: None if getattr(module, own) is None else f"{path}.{own}"
                   for own, known in TENSORS.items() if hasattr(module, own)}  # fmt: skip
        return self._add(path, {**told, **tensors, "inputs": inputs})

    def _inside(self, path: str, module: nn.Module, inputs: list[str]) -> str:
        if not list(module.children()):
            raise LayerError(f"layer {path} is a {type(module).__name__}, which devices can't compute")
        try:
            graph = fx.symbolic_trace(module).graph
        except Exception as error:
            raise LayerError(f"layer {path} ({type(module).__name__}) can't be taken apart: {error}") from error
        given, values = iter(inputs), dict[str, str]()
        for node in graph.nodes:
            if node.op == "placeholder":
                values[node.name] = next(given, "")
            elif node.op == "call_module":
                own, _ = _inputs(node.args, node.kwargs, values)
                child = f"{path}.{node.target}"
                values[node.name] = self.module(child, module.get_submodule(node.target), own)
            elif node.op == "output":
                (result,) = node.all_input_nodes
                return values[result.name]
            elif node.op in ("call_function", "call_method"):
                name = f"{path}.{node.name}"
                values[node.name] = self.call(name, node.op, node.target, node.args, node.kwargs, values)
            else:
                raise LayerError(f"layer {path} has {node.target}, a tensor of its own outside of layers")
        raise LayerError(f"layer {path} has no output")

    def _add(self, name: str, layer: Layer) -> str:
        while name in self._names:  # a layer that is called twice
            name += "'"
        self._names.add(name)
        self.layers.append({"name": name, **layer})
        return name


def _inputs(args: Any, kwargs: Any, values: Mapping[str, str]) -> tuple[list[str], bool]:
    """The names of the tensors among a call's arguments, and whether there are others beside them."""
    each = [*args, *kwargs.values()]
    names = [str(getattr(value, "name", "")) for value in each]
    found = [values[name] for name in names if name in values]
    harmless = all(name == "inplace" for name in kwargs if getattr(kwargs[name], "name", "") not in values)
    return found, not harmless or len(found) < len(args)


def _with_arguments(target: Any, args: Any, kwargs: Any, inputs: list[str]) -> Layer | None:
    """A function that is a layer with arguments; None if it is none of these."""
    given = dict(zip(("x", "start_dim", "end_dim"), args, strict=False)) | dict(kwargs)
    if target in (torch.flatten, "flatten") and len(inputs) == 1:
        return {"kind": "flatten", "start": given.get("start_dim", 0), "end": given.get("end_dim", -1)}
    if target is F.gelu and len(inputs) == 1:
        return {"kind": "gelu", "approximate": kwargs.get("approximate", "none")}
    return None


def _shown(target: Any) -> str:
    return str(getattr(target, "__name__", target))


def hash_of(layers: Mapping[str, Described]) -> str:
    """SHA-256 of the segments' layers, by which both sides know that they mean the same."""
    text = json.dumps(layers, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
