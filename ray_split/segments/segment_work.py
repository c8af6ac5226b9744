"""What each side of the cuts computes, roughly: for a rule that shares out CPUs, without counting operations."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import nn

from ray_split.segments.segment import call

BACKWARD = 2  # times a forward's FLOPs


class SegmentWork(NamedTuple):
    """FLOPs of an exchange of one phone: forward and backward of A and C, and of B."""

    client: float
    server: float


def segment_work(modules: Mapping[str, nn.Module], example: Any, on_server: bool) -> SegmentWork:
    """Of A, B and C by name, from one forward of a batch: what layers with weights compute.

    What else a model does is little beside it. Without a server's part, as in fedavg, all is the client's.
    """
    found, arrived = dict[str, float](), example
    for name, module in modules.items():
        with torch.random.fork_rng(devices=[]):
            found[name], arrived = _forward(copy.deepcopy(module).train(), arrived)
    middle = found["b"] if on_server else 0.0
    return SegmentWork((1 + BACKWARD) * (sum(found.values()) - middle), (1 + BACKWARD) * middle)


def forward_seen(module: nn.Module, inputs: Any, see: Callable[[nn.Module, Any], None]) -> Any:
    """A forward's outputs; `see` is told each layer that was called, and what it returned."""
    handles = [layer.register_forward_hook(lambda layer, _, output: see(layer, output)) for layer in module.modules()]
    try:
        with torch.no_grad():
            return call(module, inputs)
    finally:
        for handle in handles:
            handle.remove()


def _forward(module: nn.Module, inputs: Any) -> tuple[float, Any]:
    """The FLOPs of a forward, and what it returns."""
    flops = list[float]()

    def see(layer: nn.Module, output: Any) -> None:
        output = output[0] if isinstance(output, tuple) and output else output  # of an LSTM
        if isinstance(output, torch.Tensor) and not isinstance(layer, nn.Embedding):
            flops.extend(_flops(weight, output) for weight in layer.parameters(recurse=False) if weight.dim() > 1)

    outputs = forward_seen(module, inputs, see)
    return sum(flops), outputs


def _flops(weight: torch.Tensor, output: torch.Tensor) -> float:
    """Each weight is multiplied, and added, once for each place of the output: a pixel, a token, a sample."""
    features = weight.shape[0] if weight.shape[0] in output.shape[1:] else (output.shape or (1,))[-1]
    return 2.0 * weight.numel() * output.numel() / max(1, features)
