"""What phones may send, found by trying the segments with the smallest and the largest batch."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch

from ray_split import config
from ray_split.cutting.cut import Segments
from ray_split.messages.contract import Contract, Labels, promise
from ray_split.messages.message import send
from ray_split.segments.optimizers import slots
from ray_split.segments.segment import bounded_keys, call, learned_keys
from ray_split.tasks.losses import LOSSES, CrossEntropy, Distance


def contract(
    settings: config.Config, segments: Segments, examples: Sequence[torch.Tensor], labels: torch.Tensor
) -> Contract:
    """What is promised by the segments, tried with the smallest and the largest batch (n, ...); `labels` of that.

    Raises ValueError if an activation's shape doesn't grow with the batch.
    """
    few, many = (_activation(segments, inputs) for inputs in (examples[0], examples[-1]))
    frozen, modules = settings.model.freeze, segments.modules()
    return Contract(
        promise(few, len(examples[0]), many, len(examples[-1])),
        _labels_of(settings, labels),
        len(examples[0]),
        len(examples[-1]),
        {name: learned_keys(module) for name, module in modules.items() if name not in frozen},
        frozenset(key for module in modules.values() for key in bounded_keys(module)),
        frozenset([*slots(settings.optimizer), *([] if settings.optimizer.name == "sgd" else ["step"])]),
    )


def _activation(segments: Segments, inputs: torch.Tensor) -> Any:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        return send(call(copy.deepcopy(segments.a).train(), inputs))


def _labels_of(settings: config.Config, labels: torch.Tensor) -> Labels:
    found = labels.numpy()
    loss = LOSSES.get(settings.task.loss)
    classes = settings.model.num_classes if isinstance(loss, CrossEntropy) else None
    return Labels(found.dtype, found.shape[1:], classes, isinstance(loss, Distance))
