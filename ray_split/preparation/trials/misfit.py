"""What a model that can't take its data's batches is told by: one line, and what would help."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ray_split import config
from ray_split.config.user_code.by_value import spoken
from ray_split.cutting.model_inputs import values_of
from ray_split.data.stream import Stream
from ray_split.errors import SettingsError, told
from ray_split.models import registry

NEAR = 64  # how far from the batch size asked for another is looked for
MOST_LEFT_OUT = 5  # phones that are not too many to name


def misfit(settings: config.Config, stream: Stream, inputs: Any, error: BaseException) -> SettingsError:
    """The line about a batch (n, ...) that the model raised `error` for."""
    batch = values_of(inputs)
    if "more than 1 value per channel" in str(error) and len(batch) == 1:
        return _batch_of_one(settings, stream)
    sizes = ", ".join(map(str, ("N", *batch.shape[1:]))) + "," * (batch.dim() == 1)  # how many samples nobody set
    shape = f"batches of shape ({sizes}) of {batch.dtype}".replace("torch.", "")
    wrong = f"{spoken(settings.model.name)} can't take this data, {shape}: {told(error)}"
    allowed = _hint(settings, batch, error) or "Choose a model that fits this data, or data that fits this model"
    return SettingsError("model.name", settings.model.name, allowed, wrong)


def _hint(settings: config.Config, batch: torch.Tensor, error: BaseException) -> str:
    """What may be the matter with the data, if it looks like it."""
    if batch.dtype != torch.float32 and "type" in str(error):
        return "If the inputs are values and not numbers of words, return them as float32"
    if batch.dim() == 4 and batch.shape[-1] in (1, 3, 4) and batch.shape[1] not in (1, 3, 4):
        return "Images have their channels first: return inputs.transpose(0, 3, 1, 2)"
    if batch.dim() == 2 and not batch.is_floating_point():
        return _of_tokens(settings, batch, error)
    return _others(settings, batch)


def _of_tokens(settings: config.Config, batch: torch.Tensor, error: BaseException) -> str:
    """What a model of tokens must be told of these (n, T)."""
    vocabulary, length = max(int(batch.max()) + 1, settings.model.num_classes or 0), batch.shape[1]
    if settings.model.name == "transformer":
        return f"Set model.kwargs to '{{vocabulary: {vocabulary}, length: {length}}}', or more of either"
    beyond = isinstance(error, IndexError) and "out of range" in str(error)
    return f"The model's vocabulary must have at least {int(batch.max()) + 1} tokens" if beyond else ""


FITS = {2: "mlp, which fits", 3: "cnn1d, lstm or mlp, which fit", 4: "cnn or mlp, which fit"}
"""Models that take their sizes from the data, by the dimensions of a batch."""


def _others(settings: config.Config, batch: torch.Tensor) -> str:
    """Which models fit these samples, where one of ours is made for others."""
    name, there = settings.model.name, batch.dtype == torch.float32 and batch.dim() in FITS
    if not there or name not in registry.MODELS or registry.takes_shape(settings.model):
        return ""
    return f"Choose {FITS[batch.dim()]} data of any size"


def _batch_of_one(settings: config.Config, stream: Stream) -> SettingsError:
    """Which phones have a batch of one, and a batch size with which none has, if there is any."""
    size, phones = stream.batch_size, _there(stream)
    samples = stream.samples(phones)
    one = "a batch of one sample, but BatchNorm needs two"
    if (samples == 1).any():
        few = phones[samples == 1]
        out = ", ".join(f"{phone}: 0" for phone in few)
        left_out = f", or set phones.left_out to '{{{out}}}'" if len(few) <= MOST_LEFT_OUT else ""
        wrong = f"{_named(few)} only one sample, and so {one}"
        return SettingsError("data.batch_size", size, f"Lower phones.count, so that phones have more{left_out}", wrong)
    # One with which each phone has a single batch helps always.
    others = [*_near(size), int(samples.max())]
    instead = next(other for other in others if not _ones(stream, samples, other).any())
    whose = _named(phones[_ones(stream, samples, size)])
    wrong = f"with batches of {size}, {whose} {one}"
    return SettingsError("data.batch_size", size, f"Set another size, such as {instead}", wrong)


def _there(stream: Stream) -> np.ndarray:
    return np.array([phone for phone in range(len(stream.partition)) if not stream.is_left_out(phone, 0)])


def _named(phones: np.ndarray) -> str:
    shown = ", ".join(map(str, phones[:5])) + (", ..." if len(phones) > 5 else "")
    return f"phone {shown} has" if len(phones) == 1 else f"phones {shown} have"


def _ones(stream: Stream, samples: np.ndarray, size: int) -> np.ndarray:
    """Which of the phones have a batch of one, with batches of this size."""
    full, rest = np.divmod(samples, size)
    reaches_rest = (stream.local_steps or len(samples) + full) > full
    found: np.ndarray = ((rest == 1) & reaches_rest & (not stream.drops_last)) | ((size == 1) & (full > 0))
    return found


def _near(size: int) -> list[int]:
    """Other batch sizes, the nearest first."""
    return [other for i in range(1, NEAR) for other in (size + i, size - i) if other > 1]
