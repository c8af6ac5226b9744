"""What a model is given: a batch (n, ...), or of sequences of different lengths (values, mask), as two arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ray_split.cutting.own_segments import Chain
from ray_split.data.sequences import Padded
from ray_split.errors import SettingsError
from ray_split.messages.message import tree_map

NAMES = ("mask", "attention_mask")


def mask_of(model: nn.Module, name: str, asked: str | None) -> str:
    """The argument of the model's forward that is given the mask. Raises SettingsError for a model that takes none.

    `asked`: as the settings say; else one that is called so, or the second one if it is needed.
    """
    first = next(iter(model.children())) if isinstance(model, Chain) else model
    parameters = list(inspect.signature(first.forward).parameters.values())
    names = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD and p.kind is not p.VAR_POSITIONAL]
    if asked is not None:
        if asked not in names[1:]:
            wrong = f"the forward of {name} has no argument {asked!r} beside its first"
            raise SettingsError("model.mask", asked, f"Set {' or '.join(names[1:])}" if names[1:] else TAKE_ONE, wrong)
        return asked
    second = [p.name for p in parameters[1:2] if p.default is p.empty and p.name in names]
    if found := [each for each in NAMES if each in names[1:]] or second:
        return found[0]
    wrong = f"the samples are sequences of different lengths, and the forward of {name} takes no mask"
    raise SettingsError("model.name", name, TAKE_ONE, wrong)


TAKE_ONE = (
    "Give it forward(values, mask), with mask (n, longest) true where a step is no padding; take cnn1d or lstm; "
    "or pad all to one length"
)


def whole(model: nn.Module, inputs: Any, mask: str | None = None) -> Any:
    """Call an untouched model on its inputs; `mask` is the argument for that, if they have one."""
    if mask is None or not isinstance(inputs, tuple):
        return model(inputs)
    values, own = inputs
    return model(values, own) if isinstance(model, Chain) else model(values, **{mask: own})


def values_of(inputs: Any) -> torch.Tensor:
    """The batch without its mask."""
    found: torch.Tensor = inputs[0] if isinstance(inputs, tuple) else inputs
    return found


def count_of(inputs: Any) -> int:
    """How many samples a batch has."""
    return len(values_of(inputs))


def changed(inputs: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """A batch with other samples, or other places of them: values and mask alike."""
    return tree_map(change, inputs)


def revalued(inputs: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """A batch with other values, of sequences as long."""
    return Padded(change(inputs[0]), inputs[1]) if isinstance(inputs, tuple) else change(inputs)
