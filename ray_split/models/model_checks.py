"""What a model must be, as soon as it is built: whole in copies, its state in dense tensors of its own."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from ray_split.cutting.foreign_draws import check_draws
from ray_split.cutting.references import check_references, own_attributes, registered
from ray_split.errors import SettingsError, first_line


def check_built(name: str, model: nn.Module) -> None:
    """Raises SettingsError, naming the layer; mends what copies can't be made of and loses nothing by it."""
    _check_state(name, model)
    _check_lazy(name, model)
    _check_dense(name, model)
    check_references(name, model)
    _detach(model)
    _check_copies(name, model)
    check_draws(name, model)


def _check_state(name: str, model: nn.Module) -> None:
    """A layer's state is tensors of its own: more would be lost on the way."""
    for layer, module in model.named_modules():
        if type(module).get_extra_state is not nn.Module.get_extra_state:
            where = f"{layer or 'the model'} ({type(module).__name__})"
            wrong = f"{where} has get_extra_state, but only parameters and buffers are saved"
            raise SettingsError("model.name", name, "Keep that state in a buffer, with register_buffer", wrong)


def _check_lazy(name: str, model: nn.Module) -> None:
    """Weights that are made in the first forward would be other ones for each actor."""
    lazy = [path for path, tensor in registered(model) if is_lazy(tensor)]
    if lazy:
        allowed = "Give each layer its sizes, such as nn.Linear(in, out) instead of nn.LazyLinear(out)"
        raise SettingsError("model.name", name, allowed, f"{lazy[0]} has no size yet")


def _check_dense(name: str, model: nn.Module) -> None:
    """States are numpy arrays. An expanded buffer gets its own memory for each number, so that it can be written to."""
    for path, tensor in registered(model):
        if tensor.layout is not torch.strided:
            allowed = "Store x.to_dense() instead"
            raise SettingsError("model.name", name, allowed, f"{path} is a sparse tensor")
    for module in model.modules():
        for key, buffer in module._buffers.items():
            if buffer is not None and any(s == 0 and n > 1 for s, n in zip(buffer.stride(), buffer.shape, strict=True)):
                module._buffers[key] = buffer.contiguous()


def _detach(model: nn.Module) -> None:
    """A weight that torch's old weight_norm computed, and computes anew in each forward: as it is, no copy is made."""
    for module in model.modules():
        for attribute, value in vars(module).items():
            if isinstance(value, torch.Tensor) and not value.is_leaf:
                vars(module)[attribute] = value.detach()


def _check_copies(name: str, model: nn.Module) -> None:
    """Phones train copies; and an iterator goes on with every use, which no checkpoint could hold."""
    own = {id(each): each for each in (*model.modules(), *(tensor for _, tensor in registered(model)))}
    for layer, module in model.named_modules():
        where = f"{layer or 'the model'} ({type(module).__name__})"
        for attribute, value in own_attributes(module):
            if _goes_on(value):
                wrong = f"{where}.{attribute} is an iterator, whose position can't be saved in a checkpoint"
                raise SettingsError("model.name", name, "Use a buffer that counts instead", wrong)
            try:
                copy.deepcopy(value, dict(own))
            except Exception as error:  # whatever an object's own __deepcopy__ raises
                wrong = f"{where}.{attribute} can't be copied, but every phone trains a copy: {first_line(error)}"
                raise SettingsError(
                    "model.name", name, f"Create {attribute} in forward, or make it a global", wrong
                ) from error


def _goes_on(value: Any) -> bool:
    return isinstance(value, Iterator) and not isinstance(value, itertools.count)
