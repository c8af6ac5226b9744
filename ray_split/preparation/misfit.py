"""What a model that can't take its data's batches is told by: one line, and what would help."""

from __future__ import annotations

import numpy as np
import torch

from ray_split import config
from ray_split.data.stream import Stream
from ray_split.errors import SettingsError, told

NEAR = 64  # how far from the batch size asked for another is looked for
MOST_LEFT_OUT = 5  # phones that are not too many to name


def misfit(settings: config.Config, stream: Stream, batch: torch.Tensor, error: BaseException) -> SettingsError:
    """The line about a batch (n, ...) that the model raised `error` for."""
    if "more than 1 value per channel" in str(error) and len(batch) == 1:
        return _batch_of_one(settings, stream)
    shape = f"batches of shape {tuple(batch.shape)} of {batch.dtype}".replace("torch.", "")
    allowed = f"a model that takes this data, {shape}: {told(error)}{_hint(batch, error)}"
    return SettingsError("model.name", settings.model.name, allowed)


def _hint(batch: torch.Tensor, error: BaseException) -> str:
    """What may be the matter with the data, if it looks like it."""
    if batch.dtype != torch.float32 and "type" in str(error):
        return "; if these are values, not numbers of words, let data.name return float32"
    if batch.dim() == 4 and batch.shape[-1] in (1, 3, 4) and batch.shape[1] not in (1, 3, 4):
        return "; images have their channels first: inputs.transpose(0, 3, 1, 2)"
    return ""


def _batch_of_one(settings: config.Config, stream: Stream) -> SettingsError:
    """Which phones have a batch of one, and a batch size with which none has, if there is any."""
    size, phones = stream.batch_size, _there(stream)
    samples = stream.samples(phones)
    allowed = "a size that leaves no phone a batch of one, which BatchNorm can't train on"
    if (samples == 1).any():
        few = phones[samples == 1]
        out = ", ".join(f"{phone}: 0" for phone in few)
        left_out = f", or phones.left_out to '{{{out}}}'" if len(few) <= MOST_LEFT_OUT else ""
        helps = f"none does, as {_named(few)} but one sample: set fewer phones.count{left_out}"
        return SettingsError("data.batch_size", size, f"{allowed}; {helps}")
    # One with which each phone has a single batch helps always.
    others = [*_near(size), int(samples.max())]
    instead = next(other for other in others if not _ones(stream, samples, other).any())
    whose = _named(phones[_ones(stream, samples, size)])
    return SettingsError("data.batch_size", size, f"{allowed}, such as {instead}: now {whose} one")


def _there(stream: Stream) -> np.ndarray:
    return np.array([phone for phone in range(len(stream.partition)) if not stream.is_left_out(phone, 0)])


def _named(phones: np.ndarray) -> str:
    shown = ", ".join(map(str, phones[:5])) + (", ..." if len(phones) > 5 else "")
    return f"phone {shown} has" if len(phones) == 1 else f"phones {shown} have"


def _ones(stream: Stream, samples: np.ndarray, size: int) -> np.ndarray:
    """Which of the phones have a batch of one, with batches of this size."""
    full, rest = np.divmod(samples, size)
    reaches_rest = (stream.local_steps or len(samples) + full) > full
    found: np.ndarray = ((rest == 1) & reaches_rest) | ((size == 1) & (full > 0))
    return found


def _near(size: int) -> list[int]:
    """Other batch sizes, the nearest first."""
    return [other for i in range(1, NEAR) for other in (size + i, size - i) if other > 1]
