"""A segment's layers, as they are told, as a module of torch: the other way round of layers.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from ray_split.devices.layers import TENSORS, Described, Layer, LayerError

Shapes = Mapping[str, tuple[int, ...]]
"""Of the tensors, by name."""


def _sized(layer: Layer, shapes: Shapes) -> tuple[int, ...]:
    return shapes[layer["weight"]]


def _linear(layer: Layer, shapes: Shapes) -> nn.Module:
    outputs, inputs = _sized(layer, shapes)
    return nn.Linear(inputs, outputs, bias=layer["bias"] is not None)


def _conv(kind: Any) -> Callable[[Layer, Shapes], nn.Module]:
    def make(layer: Layer, shapes: Shapes) -> nn.Module:
        outputs, inputs, *kernel = _sized(layer, shapes)
        sizes = {name: tuple(layer[name]) for name in ("stride", "padding", "dilation")}
        made: nn.Module = kind(inputs * layer["groups"], outputs, tuple(kernel), **sizes, groups=layer["groups"],
                               bias=layer["bias"] is not None)  # fmt: skip
        return made

    return make


def _pool(kind: Any, *more: str) -> Callable[[Layer, Shapes], nn.Module]:
    def make(layer: Layer, shapes: Shapes) -> nn.Module:
        sizes = [tuple(layer[name]) for name in ("kernel", "stride", "padding")]
        made: nn.Module = kind(*sizes, ceil_mode=layer["ceil_mode"], **{name: layer[name] for name in more})
        return made

    return make


def _batch_norm(layer: Layer, shapes: Shapes) -> nn.Module:
    (features,) = shapes[layer["mean"]]
    return _AnyBatchNorm(features, layer["eps"], layer["momentum"], affine=layer["weight"] is not None)


class _AnyBatchNorm(nn.modules.batchnorm._BatchNorm):
    """BatchNorm of samples with any number of dimensions: what they are is the segment's to know."""

    def _check_input_dim(self, input: torch.Tensor) -> None:
        return None


def _layer_norm(layer: Layer, shapes: Shapes) -> nn.Module:
    affine, bias = layer["weight"] is not None, layer["bias"] is not None
    return nn.LayerNorm(tuple(layer["shape"]), layer["eps"], elementwise_affine=affine, bias=bias)


def _embedding(layer: Layer, shapes: Shapes) -> nn.Module:
    count, size = _sized(layer, shapes)
    return nn.Embedding(count, size, layer["padding"])


KINDS: dict[str, Callable[[Layer, Shapes], nn.Module]] = {
    "linear": _linear,
    "conv1d": _conv(nn.Conv1d),
    "conv2d": _conv(nn.Conv2d),
    "relu": lambda *_: nn.ReLU(),
    "gelu": lambda layer, _: nn.GELU(layer["approximate"]),
    "sigmoid": lambda *_: nn.Sigmoid(),
    "tanh": lambda *_: nn.Tanh(),
    "max_pool1d": lambda layer, shapes: _pool(nn.MaxPool1d)(layer, shapes),
    "max_pool2d": lambda layer, shapes: _pool(nn.MaxPool2d)(layer, shapes),
    "avg_pool1d": _pool(nn.AvgPool1d, "count_include_pad"),
    "avg_pool2d": _pool(nn.AvgPool2d, "count_include_pad"),
    "adaptive_avg_pool1d": lambda layer, _: nn.AdaptiveAvgPool1d(layer["output"][0]),
    "adaptive_avg_pool2d": lambda layer, _: nn.AdaptiveAvgPool2d(tuple(layer["output"])),
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "flatten": lambda layer, _: nn.Flatten(layer["start"], layer["end"]),
    "dropout": lambda layer, _: nn.Dropout(layer["p"]),
    "embedding": _embedding,
}


class LayeredModule(nn.Module):
    """A segment made of its layers. Its weights have the names that the unsplit model has for them."""

    def __init__(self, described: Described, shapes: Shapes) -> None:
        """`shapes`: of all its tensors. Raises LayerError for a kind that isn't known."""
        super().__init__()
        self._input, self._output = described["input"], described["output"]
        self._calls: list[tuple[str, list[str], str | None]] = []
        for layer in described["layers"]:
            if layer["kind"] == "add":
                self._calls.append((layer["name"], layer["inputs"], None))
                continue
            make = KINDS.get(layer["kind"])
            if make is None:
                raise LayerError(f"this client can't compute layer {layer['name']}, a {layer['kind']}")
            path = _path(layer)
            if path not in dict(self.named_modules()):
                _put(self, path, make(layer, shapes))
            self._calls.append((layer["name"], layer["inputs"], path))

    def forward(self, x: Any) -> Any:
        """The output (n, ...) of the input (n, ...)."""
        values = {self._input: x}
        for name, inputs, path in self._calls:
            given = [values[each] for each in inputs]
            values[name] = given[0] + given[1] if path is None else self.get_submodule(path)(*given)
        return values[self._output]


def _path(layer: Layer) -> str:
    """Where the layer is: by its tensors' names, so that one that is called twice is one; else by its own."""
    named = next((layer[known] for known in TENSORS.values() if layer.get(known) is not None), None)
    own = str(layer["name"]).replace("'", "_again")
    return own if named is None else str(named).rpartition(".")[0]


def _put(root: nn.Module, path: str, module: nn.Module) -> None:
    *parents, last = path.split(".")
    for name in parents:
        if name not in root._modules:
            root.add_module(name, nn.Module())
        found = root._modules[name]
        assert found is not None
        root = found
    root.add_module(last, module)
