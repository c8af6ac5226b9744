"""The figures that whoever holds the last segment tells of its outputs, and the sizes of what crosses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ray_split.arrays import Array
from ray_split.messages.message import Groups, num_bytes, receive
from ray_split.messages.report import Report, added
from ray_split.segments.segment import as_array
from ray_split.tasks.task import Task, flat

CPU = torch.device("cpu")


def evaluated(
    task: Task,
    outputs: Sequence[Any],
    labels: Sequence[Array],
    phones: tuple[int, ...],
    several: frozenset[int] = frozenset(),
) -> Report:
    """The report of outputs in eval mode, groups (phones, n, ...) on the CPU; of nobody in particular (no phones).

    `several`: those of the phones that belong beside others which are not here (Task.losses).
    """
    targets = [receive(group, CPU) for group in labels]
    sizes = batch_sizes(labels)
    first = np.cumsum([0, *map(len, labels)]).tolist()  # each group's, among the phones
    beside = [bool(several) and phones[start] in several for start in first[:-1]]
    losses = [as_array(task.losses(*each)) for each in zip(outputs, targets, beside, strict=True)]
    right = [task.corrects(o, t) for o, t in zip(outputs, targets, strict=True)]
    tallies = [task.tallies(flat(o), t.flatten(0, 1)) for o, t in zip(outputs, targets, strict=True)]
    own = np.array(phones[: len(sizes)]) if phones else None
    return Report(own, sizes, np.concatenate(losses) * sizes, np.concatenate(right), tallies=added(tallies))


def batch_sizes(groups: Sequence[Array]) -> Array:
    """The batch size of each phone, of groups (phones, batch size, ...)."""
    return np.repeat([group.shape[1] for group in groups], [len(group) for group in groups])


def bytes_each(groups: Groups, counts: Sequence[int]) -> Array:
    """What crosses for each phone, of groups of so many phones."""
    each = [num_bytes(group) // count for group, count in zip(groups, counts, strict=True)]
    return np.repeat(each, counts)
