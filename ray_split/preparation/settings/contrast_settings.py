"""Whether there is a representation for an algorithm to compare: what the model's last segment is given."""

from __future__ import annotations

import copy
from typing import Any

import torch

from ray_split import config
from ray_split.algorithms import contrast_of
from ray_split.config.user_code.by_value import spoken
from ray_split.cutting.cut import Segments
from ray_split.cutting.model_inputs import count_of
from ray_split.errors import SettingsError, shown
from ray_split.messages.message import leaves
from ray_split.segments.segment import call


def check_representation(settings: config.Config, segments: Segments, example: Any) -> None:
    """Raises SettingsError if that is none: a tensor (n, ...) of numbers with a fraction, of a batch of n samples."""
    if contrast_of(settings.algorithm) is None:
        return
    crosses: Any = example
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        for module in list(segments.modules().values())[:-1]:
            crosses = call(copy.deepcopy(module).eval(), crosses)
    (z, *others) = leaves(crosses)
    if (
        others
        or not isinstance(z, torch.Tensor)
        or not z.is_floating_point()
        or len(z) != count_of(example)
        or z.dim() < 2
    ):
        last = (settings.model.cuts or [""])[-1]
        wrong = f"{spoken(str(settings.algorithm.name))} needs one row of numbers for each sample after {shown(last)}"
        raise SettingsError("model.cuts", settings.model.cuts, "Make the last cut after another layer", wrong)
