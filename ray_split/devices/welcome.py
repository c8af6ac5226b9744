"""What a device is told when it joins a run: the layers, the optimizers, the loss, how many samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from ray_split import config
from ray_split.config.user_code.by_value import spoken
from ray_split.data.load import Parts
from ray_split.devices.frames import VERSION
from ray_split.devices.layers import Described, LayerError, describe, hash_of
from ray_split.segments.optimization import optimizers
from ray_split.segments.tied_weight import tied_names

OPTIMIZERS: dict[str, tuple[str, ...]] = {
    "sgd": ("momentum", "dampening", "nesterov", "weight_decay"),
    "adam": ("betas", "eps", "weight_decay", "amsgrad"),
    "adamw": ("betas", "eps", "weight_decay", "amsgrad"),
}
"""Those that devices have, and their fields."""


def layers_of(segments: Mapping[str, nn.Module]) -> dict[str, Described]:
    """A's and C's layers. Raises LayerError for one that devices can't compute."""
    if tied := tied_names(segments["c"]):
        raise LayerError(f"A and C share a weight ({', '.join(tied)} in C), which devices would have twice")
    return {name: describe(segments[name]) for name in ("a", "c")}


def optimizer_of(settings: config.Optimizer) -> dict[str, Any]:
    """An optimizer as a device is told of it, with all its fields."""
    made = optimizers.new([nn.Parameter(torch.zeros(1))], settings)
    (group,) = made.param_groups
    return {"name": settings.name, **{name: group[name] for name in OPTIMIZERS[settings.name]}}


def welcome_of(settings: config.Config, layers: Mapping[str, Described], parts: Parts) -> dict[str, Any]:
    """What all devices are told; a phone's own number and samples come with it."""
    train = parts.train.inputs
    return {
        "version": VERSION,
        "run": str(settings.run.name),
        "rounds": settings.run.rounds,
        "schedule": spoken(settings.schedule.name),
        "batch_size": settings.data.batch_size,
        "threads": settings.cluster.cpus_per_client,
        "input": {"shape": list(train.shape[1:]), "dtype": str(train.dtype), "max": _most(train), **_scale(parts)},
        "num_classes": settings.model.num_classes,
        "classes": None if parts.classes is None else [str(name) for name in parts.classes],
        "layers": dict(layers),
        "hash": hash_of(layers),
        "optimizers": {name: optimizer_of(settings.optimizer.of(name)) for name in ("a", "c")},
        "loss": {"name": "cross_entropy", "label_smoothing": settings.task.label_smoothing},
        "examples": spoken(settings.data.name) if settings.gateway.examples else None,
    }


def _most(inputs: Any) -> int:
    """The highest value of a byte: of digits' it is 16. Of data that is read when it is needed, any may be."""
    return int(inputs.max()) if isinstance(inputs, np.ndarray) and inputs.dtype == np.uint8 else 255


def _scale(parts: Parts) -> dict[str, Any]:
    return {"scale": np.asarray(parts.scale).tolist(), "shift": np.asarray(parts.shift).tolist()}
