"""How many samples are evaluated at a time: a rule over shapes, so that scores of a large vocabulary fit memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ray_split import config
from ray_split.config.sections import EVALUATED_AT_ONCE
from ray_split.cutting.model_inputs import count_of
from ray_split.messages.message import leaves

MOST = 2**26
"""Numbers that a model returns for a batch: 256 MB in single precision, and a loss makes several more as large."""


def settle_evaluation(settings: config.Config, outputs: Any, examples: Sequence[Any]) -> config.Config:
    """The settings with data.eval_batch_size a number, by what the model returned of the last of these batches."""
    if settings.data.eval_batch_size != "auto":
        return settings
    count = sum(leaf.numel() for leaf in leaves(outputs) if isinstance(leaf, torch.Tensor))
    each = -(-count // count_of(examples[-1]))
    size = max(1, min(EVALUATED_AT_ONCE, MOST // max(each, 1)))
    return settings.with_values(data={"eval_batch_size": size})
