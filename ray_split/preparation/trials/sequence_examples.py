"""Batches to try a model with where samples are sequences of different lengths: as long as any is, and as short."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ray_split import config
from ray_split.cutting.model_inputs import count_of, mask_of
from ray_split.data.load import Parts, Sequences
from ray_split.data.sequences import Padded
from ray_split.errors import SettingsError
from ray_split.messages.labels import IGNORED


def with_mask(settings: config.Config, model: nn.Module, parts: Parts) -> config.Config:
    """The settings with the argument of the model's forward that is given the mask, if there is one."""
    asked = settings.model.mask
    if parts.sequences is not None:
        return settings.with_values(model={"mask": mask_of(model, settings.model.name, asked)})
    if asked is not None:
        wrong = f"all samples of {settings.data.name} are of one length, so there is no mask"
        raise SettingsError("model.mask", asked, "Leave it out", wrong)
    return settings


def check_sequences(settings: config.Config, parts: Parts) -> None:
    """Raises SettingsError for what can't be told of sequences of different lengths."""
    if parts.sequences is not None and settings.phones.device is not None:
        wrong = "virtual time follows from the batch size, and samples are sequences of different lengths"
        allowed = "Leave phones.device, phones.link, server.device and phones.deadline out, or pad all to one length"
        raise SettingsError("phones.device", settings.phones.device, allowed, wrong)


def longest(parts: Parts, example: Any) -> Any:
    """The example's batch with the longest of all parts' sequences as its first, so that it is as long as any."""
    found = max(_all(parts), key=lambda each: int(each.lengths.max(initial=0)))
    row = int(found.lengths.argmax())
    if count_of(example) == 0 or example.mask.shape[1] >= found.lengths[row]:
        return example
    first = torch.from_numpy(found[np.array([row])].values)
    values, mask = example
    axis = 1 + found.axis
    missing = first.shape[axis] - values.shape[axis]
    shape = [*values.shape]
    shape[axis] = missing
    values = torch.cat([values, values.new_zeros(shape)], axis)
    mask = torch.cat([mask, mask.new_zeros(len(mask), missing)], 1)
    values[0], mask[0] = first[0], True
    return Padded(values, mask)


def labels_for(parts: Parts, example: Any, labels: torch.Tensor) -> torch.Tensor:
    """The labels, where they are of steps for as many steps as the example has; those beyond their own are ignored."""
    if not parts.has_labels_by_step:
        return labels
    return functional.pad(labels, (0, example.mask.shape[1] - labels.shape[1]), value=IGNORED)


def shortest(parts: Parts, examples: Sequence[Any]) -> list[Any]:
    """Batches as large as the examples, of the shortest of all parts' sequences; of other samples none."""
    if parts.sequences is None:
        return []
    found = min(_all(parts), key=lambda each: int(each.lengths.min(initial=np.iinfo(np.int64).max)))
    row = int(found.lengths.argmin())
    each = [found[np.full(count_of(example), row)] for example in examples]
    return [Padded(*map(torch.from_numpy, batch)) for batch in each]


def _all(parts: Parts) -> list[Sequences]:
    inputs = [part.inputs for part in (parts.train, parts.val, parts.test)]
    return [each for each in inputs if isinstance(each, Sequences) and len(each)]
