"""What phones may send, found by trying the segments with the smallest and the largest batch."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Any

import numpy as np
import torch

from ray_split import config
from ray_split.cutting.cut import Segments
from ray_split.cutting.model_inputs import count_of
from ray_split.messages.contract import Between, Contract, Labels, promise, widened
from ray_split.messages.message import send
from ray_split.segments.device.computing import Computing, computing_of
from ray_split.segments.optimization import optimizers
from ray_split.segments.segment import bounded_keys, call, learned_keys
from ray_split.segments.tied_weight import tied_names
from ray_split.tasks.losses import LOSSES, CrossEntropy, Distance, MultiLabel


def contract(
    settings: config.Config,
    segments: Segments,
    examples: Sequence[Any],
    labels: torch.Tensor,
    shorter: Sequence[Any] = (),
    by_step: bool = False,
) -> Contract:
    """What is promised by the segments, tried with the smallest and the largest batch (n, ...); `labels` of that.

    `shorter`: of sequences the same with the shortest ones. `by_step`: whether each of their steps has a label.
    Raises ValueError if an activation's shape doesn't grow with the batch.
    """
    fewest, most = count_of(examples[0]), count_of(examples[-1])
    computing = computing_of(settings, "a")
    each = [
        [_activation(segments, batch, computing) for batch in (some[0], some[-1])]
        for some in (shorter, examples)
        if some
    ]
    promises = [promise(few, fewest, many, most) for few, many in each]
    frozen, modules = settings.model.freeze, segments.modules()
    return Contract(
        reduce(widened, promises),
        _labels_of(settings, labels, by_step),
        fewest,
        most,
        {name: learned_keys(module) for name, module in modules.items() if name not in frozen},
        frozenset(key for module in modules.values() for key in bounded_keys(module)),
        *_remembered(settings, modules),
        tied={} if segments.c is None else tied_names(segments.c),
        apart=bool(shorter),
    )


def _remembered(settings: config.Config, names: Iterable[str]) -> tuple[frozenset[str], dict[str, np.dtype[Any]]]:
    """What the segments' optimizers remember of each weight, and what of that are numbers, of which type."""
    found = [optimizers.probed(settings.optimizer.of(name)) for name in names]
    kinds = {slot: kind for each in found for slot, kind in each.items()}
    return frozenset(kinds), {slot: kind.dtype for slot, kind in kinds.items() if kind.number}


def _activation(segments: Segments, inputs: Any, computing: Computing) -> Any:
    with torch.random.fork_rng(devices=[]), torch.no_grad(), computing.around(torch.device("cpu")):
        return send(call(copy.deepcopy(segments.a).train(), inputs))


def _labels_of(settings: config.Config, labels: torch.Tensor, by_step: bool) -> Labels:
    found = labels.numpy()
    shape = (Between(1, found.shape[1]),) if by_step else found.shape[1:]
    loss = LOSSES.get(settings.task.loss)
    classes = settings.model.num_classes if isinstance(loss, CrossEntropy) else None
    return Labels(found.dtype, shape, classes, isinstance(loss, (Distance, MultiLabel)))
