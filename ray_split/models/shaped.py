"""Small networks that take their sizes from the data: for images and for series of any shape."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ray_split.errors import SettingsError

SMALLEST = 4  # pixels or steps that two poolings leave something of


class CNN(nn.Module):
    """FedAvg's network for images: two convolutions of 5x5, each pooled, and two linear layers.

    As in McMahan et al. 2017 (https://arxiv.org/abs/1602.05629), of 1,663,370 parameters for 1x28x28 and 10 classes.
    Input (N, *input_shape) with input_shape (channels, height, width), output (N, num_classes). Raises SettingsError.
    """

    def __init__(
        self, num_classes: int = 10, input_shape: Sequence[int | None] | None = None, width: int = 32, hidden: int = 512
    ) -> None:
        super().__init__()
        channels, height, across = _sizes("cnn", input_shape, ("channels", "height", "width"))
        pixels = (height // 4) * (across // 4)
        self.block1 = nn.Sequential(nn.Conv2d(channels, width, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2))
        self.block2 = nn.Sequential(nn.Conv2d(width, 2 * width, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2))
        self.hidden = nn.Sequential(nn.Flatten(), nn.Linear(2 * width * pixels, hidden), nn.ReLU())
        self.head = nn.Linear(hidden, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Class scores (N, num_classes) of images (N, *input_shape)."""
        output: torch.Tensor = self.head(self.hidden(self.block2(self.block1(images))))
        return output


class CNN1d(nn.Module):
    """`CNN` for series: two convolutions over 5 steps, each pooled, and two linear layers.

    Input (N, *input_shape) with input_shape (channels, length), output (N, num_classes). Of series of different
    lengths, input_shape (channels, None) or (None, channels), it takes a mask (N, longest) too, and the linear layers
    the mean over the steps that are a series' own. Raises SettingsError.
    """

    def __init__(
        self, num_classes: int = 10, input_shape: Sequence[int | None] | None = None, width: int = 32, hidden: int = 128
    ) -> None:
        super().__init__()
        self.block1: nn.Module
        self.block2: nn.Module
        if _vary(input_shape):
            channels, self.steps_first = _channels("cnn1d", input_shape)
            self.block1, self.block2 = MaskedBlock(channels, width), MaskedBlock(width, 2 * width)
            self.mean, self.hidden = MaskedMean(), nn.Sequential(nn.Linear(2 * width, hidden), nn.ReLU())
        else:
            channels, length = _sizes("cnn1d", input_shape, ("channels", "length"))
            self.block1 = nn.Sequential(nn.Conv1d(channels, width, 5, padding=2), nn.ReLU(), nn.MaxPool1d(2))
            self.block2 = nn.Sequential(nn.Conv1d(width, 2 * width, 5, padding=2), nn.ReLU(), nn.MaxPool1d(2))
            self.hidden = nn.Sequential(nn.Flatten(), nn.Linear(2 * width * (length // 4), hidden), nn.ReLU())
        self.head = nn.Linear(hidden, num_classes)

    def forward(self, series: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Class scores (N, num_classes) of series (N, *input_shape)."""
        output: torch.Tensor
        if mask is None:
            output = self.head(self.hidden(self.block2(self.block1(series))))
            return output
        steps = self.block1(series.transpose(1, 2) if self.steps_first else series, mask)
        steps = self.block2(steps, halved(mask))
        output = self.head(self.hidden(self.mean(steps.transpose(1, 2), halved(halved(mask)))))
        return output


class MaskedBlock(nn.Module):
    """A convolution over 5 steps, ReLU and pooling that a series' own steps alone tell in.

    What is not its own is zero for the convolution, and never the largest for the pooling: so no value depends on how
    far a series is padded. Of an odd number of steps the last is pooled alone.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, width, 5, padding=2)
        self.pool = nn.MaxPool1d(2, ceil_mode=True)

    def forward(self, series: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(N, width, half the length, rounded up) of (N, channels, length)."""
        own = mask.unsqueeze(1)
        output: torch.Tensor = self.pool(torch.relu(self.conv(series * own)) * own)
        return output


class MaskedMean(nn.Module):
    """The mean over the steps that are a series' own: (N, length, width) to (N, width)."""

    def forward(self, steps: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """With a mask (N, length)."""
        own = mask.unsqueeze(2).to(steps.dtype)
        return (steps * own).sum(1) / own.sum(1)


def halved(mask: torch.Tensor) -> torch.Tensor:
    """The mask (N, half the length, rounded up) after a pooling of two steps: of pairs of which one is own."""
    return mask[:, ::2]


class LSTM(nn.Module):
    """A linear layer and LayerNorm at each step, LSTM (Hochreiter and Schmidhuber 1997), and classes of the mean.

    Input (N, *input_shape) with input_shape (channels, length), output (N, num_classes). Of series of different
    lengths, input_shape (channels, None) or (None, channels), it takes a mask (N, longest) too, and the mean is over
    the steps that are a series' own. Raises SettingsError.
    """

    def __init__(
        self, num_classes: int = 10, input_shape: Sequence[int | None] | None = None, width: int = 64, depth: int = 1
    ) -> None:
        super().__init__()
        if _vary(input_shape):
            channels, steps_first = _channels("lstm", input_shape)
        else:
            channels, steps_first = _sizes("lstm", input_shape, ("channels", "length"), least=1)[0], False
        self.embedding = EachStep(channels, width, steps_first)
        self.recurrent = MeanOfSteps(width, depth)
        self.head = nn.Linear(width, num_classes)

    def forward(self, series: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Class scores (N, num_classes) of series (N, *input_shape)."""
        steps = self.embedding(series)
        output: torch.Tensor = self.head(self.recurrent(steps) if mask is None else self.recurrent(steps, mask))
        return output


class EachStep(nn.Module):
    """A linear layer and LayerNorm, the same at each step: (N, channels, length) to (N, length, width).

    LSTM gives a gradient whose memory lies step by step, and autograd lays it out anew where it enters a segment, which
    would change the order in which a linear layer adds it up. LayerNorm does so too, in the whole model as in A.
    """

    def __init__(self, channels: int, width: int, steps_first: bool = False) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, width)
        self.norm = nn.LayerNorm(width)
        self.steps_first = steps_first

    def forward(self, series: torch.Tensor) -> torch.Tensor:
        """(N, length, width) of (N, channels, length), or (N, length, channels)."""
        output: torch.Tensor = self.norm(self.linear(series if self.steps_first else series.transpose(1, 2)))
        return output


class MeanOfSteps(nn.Module):
    """LSTM layers, and the mean of the last one's outputs: (N, length, width) to (N, width).

    A gradient reaches each step at once. With the last output alone plain SGD learns nothing from zeros after the end.
    """

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, width, depth, batch_first=True)
        self.mean = MaskedMean()

    def forward(self, steps: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """(N, width) of (N, length, width), of the steps that a mask (N, length) has, if there is one."""
        outputs: torch.Tensor = self.lstm(steps)[0]
        if mask is None:
            return outputs.mean(1)
        found: torch.Tensor = self.mean(outputs, mask)
        return found


def _vary(given: Sequence[int | None] | None) -> bool:
    return given is not None and None in given


def _channels(name: str, given: Sequence[int | None] | None) -> tuple[int, bool]:
    """How many channels series of different lengths have, and whether a sample has its steps first."""
    sizes = [size for size in given or () if size is not None]
    if len(given or ()) != 2 or len(sizes) != 1:
        wrong = f"{name} takes series of several channels, and these are {_told(given)}"
        raise SettingsError("model.name", name, "Return series (length, channels) or (channels, length)", wrong)
    return sizes[0], (given or ())[0] is None


def _told(given: Sequence[int | None] | None) -> str:
    return f"({', '.join('length' if size is None else str(size) for size in given or ())})"


def _sizes(name: str, given: Sequence[int | None] | None, axes: Sequence[str], least: int = SMALLEST) -> list[int]:
    """A sample's shape, if it has these axes, and `least` along each but the channels. Raises SettingsError."""
    if given is None:
        allowed = "Set it to the shape of a sample, such as 1,28,28"
        raise SettingsError(
            "model.input_shape", None, allowed, f"is not set, and {name} needs it where there is no data"
        )
    sizes = [size for size in given if size is not None]
    if not len(given) == len(sizes) == len(axes) or min(sizes[1:]) < least:
        of = f", of {least} or more" if least > 1 else ""
        these = tuple(given) if len(sizes) == len(given) else _told(given)
        wrong = f"{name} takes samples ({', '.join(axes)}){of}, but these are {these}"
        raise SettingsError(
            "model.name", name, "Choose cnn for images, cnn1d or lstm for series, or mlp for any shape", wrong
        )
    return sizes
