"""Whether a model's forward keeps to the weights and buffers that a state can hold: the same, of the same shapes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from ray_split.errors import SettingsError

LAZY = "lazy"  # LazyBatchNorm's: to be made by the first forward


@contextmanager
def keeps_its_state(model: nn.Module, name: str, averaged: bool = False) -> Iterator[None]:
    """See that what the model does meanwhile changes values alone. Raises SettingsError that names the layer.

    A buffer that appears in forward, or gets another shape or type there, has no place in a state that was made before;
    a parameter that is made anew is in no optimizer. `averaged`: whether phones' weights are; a parameter that isn't
    trained is the same for all and so in no average, and what forward writes to it would be lost.
    """
    weights, before = dict(model.named_parameters()), _kinds(model)
    fixed = {key: weight.clone() for key, weight in weights.items() if averaged and not weight.requires_grad}
    yield
    for key, value in fixed.items():
        if not torch.equal(_bits(weights[key]), _bits(value)):
            wrong = f"forward writes to {key}, which is a parameter that isn't trained, so the change would be lost"
            raise SettingsError("model.name", name, f"Make {key} a buffer, with register_buffer", wrong)
    for key, weight in model.named_parameters():
        if weights.get(key) is not weight:
            wrong = f"forward replaces the parameter {key}, so no optimizer trains the new one"
            raise SettingsError("model.name", name, f"Write to {key} in place instead", wrong)
    after = _kinds(model)
    for key in sorted({*before, *after}):
        if before.get(key) != after.get(key) and before.get(key) != LAZY:
            told = f"{before.get(key, 'nothing')} at first and {after.get(key, 'nothing')} after a forward"
            wrong = f"the buffer {key} changes: {told}"
            raise SettingsError("model.name", name, "Register the buffer with its final shape and type", wrong)


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def _kinds(model: nn.Module) -> dict[str, str]:
    """The shape and type of each buffer, for people."""
    return {key: _kind(buffer) for key, buffer in model.named_buffers()}


def _kind(buffer: torch.Tensor) -> str:
    return LAZY if is_lazy(buffer) else f"{tuple(buffer.shape)} of {str(buffer.dtype).removeprefix('torch.')}"
