"""Modules of torch as segments of docs/protocol.md, for the tests: a chain, or the tests' residual."""

from __future__ import annotations

from typing import Any

from torch import nn

Json = dict[str, Any]


def sides(value: Any, count: int) -> list[int]:
    return list(value) if isinstance(value, tuple | list) else [value] * count


def _named(module: nn.Module, path: str, *fields: tuple[str, str]) -> Json:
    """Of each pair (field, attribute): the tensor's name, or None."""
    return {field: None if getattr(module, attribute) is None else f"{path}{attribute}" for field, attribute in fields}


def _weights(module: nn.Module, path: str) -> Json:
    return _named(module, path, ("weight", "weight"), ("bias", "bias"))


def _convolution(module: Any, path: str) -> Json:
    rank = module.weight.ndim - 2
    fields = {name: sides(getattr(module, name), rank) for name in ("stride", "padding", "dilation")}
    return {"kind": f"conv{rank}d", **_weights(module, path), **fields, "groups": module.groups}


def _pool(module: Any, _path: str) -> Json:
    kind, rank = ("max" if "Max" in type(module).__name__ else "avg"), int(type(module).__name__[-2])
    found = {"kernel": module.kernel_size, "stride": module.stride, "padding": module.padding}
    found = {name: sides(value, rank) for name, value in found.items()}
    counting = {"count_include_pad": module.count_include_pad} if kind == "avg" else {}
    return {"kind": f"{kind}_pool{rank}d", **found, "ceil_mode": module.ceil_mode, **counting}


def _adaptive(module: Any, _path: str) -> Json:
    rank = int(type(module).__name__[-2])
    return {"kind": f"adaptive_avg_pool{rank}d", "output": sides(module.output_size, rank)}


def _batch_norm(module: Any, path: str) -> Json:
    statistics = (("mean", "running_mean"), ("var", "running_var"), ("count", "num_batches_tracked"))
    found = {**_weights(module, path), **_named(module, path, *statistics)}
    return {"kind": "batch_norm", **found, "eps": module.eps, "momentum": module.momentum}


def _layer_norm(module: Any, path: str) -> Json:
    shape = list(module.normalized_shape)
    return {"kind": "layer_norm", **_weights(module, path), "shape": shape, "eps": module.eps}


KINDS: dict[type[nn.Module], Any] = {
    nn.Linear: lambda module, path: {"kind": "linear", **_weights(module, path)},
    nn.Conv1d: _convolution,
    nn.Conv2d: _convolution,
    nn.ReLU: lambda *_: {"kind": "relu"},
    nn.Sigmoid: lambda *_: {"kind": "sigmoid"},
    nn.Tanh: lambda *_: {"kind": "tanh"},
    nn.GELU: lambda module, _: {"kind": "gelu", "approximate": module.approximate},
    nn.MaxPool1d: _pool,
    nn.MaxPool2d: _pool,
    nn.AvgPool1d: _pool,
    nn.AvgPool2d: _pool,
    nn.AdaptiveAvgPool1d: _adaptive,
    nn.AdaptiveAvgPool2d: _adaptive,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.LayerNorm: _layer_norm,
    nn.Flatten: lambda module, _: {"kind": "flatten", "start": module.start_dim, "end": module.end_dim},
    nn.Dropout: lambda module, _: {"kind": "dropout", "p": module.p},
    nn.Embedding: lambda module, path: {
        "kind": "embedding",
        "weight": f"{path}weight",
        "padding": module.padding_idx,
    },
}


def described(module: nn.Module) -> Json:
    single = type(module) in KINDS
    children = [("", module)] if single else [(f"{name}.", child) for name, child in module.named_children()]
    layers: list[Json] = []
    last = "x"
    for number, (path, child) in enumerate(children):
        name = f"layer{number}"
        layers.append({"name": name, "inputs": [last], **KINDS[type(child)](child, path)})
        last = name
    if not single and not isinstance(module, nn.Sequential):
        layers.append({"name": "sum", "inputs": ["x", last], "kind": "add"})
        last = "sum"
    return {"input": "x", "output": last, "layers": layers}
