"""Small networks of ours, to try things with: for 8x8 images, and for anything flattened."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import nn

from ray_split.errors import SettingsError


class DigitsCNN(nn.Module):
    """Two convolution blocks and two linear layers, for 8x8 images: 38,282 parameters at width 16.

    Input (N, 1, 8, 8), output (N, num_classes).
    """

    def __init__(self, num_classes: int = 10, width: int = 16, hidden: int = 64) -> None:
        super().__init__()
        self.block1 = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.ReLU())
        self.block2 = nn.Sequential(nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        self.hidden = nn.Sequential(nn.Flatten(), nn.Linear(2 * width * 4 * 4, hidden), nn.ReLU())
        self.head = nn.Linear(hidden, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Class scores (N, num_classes) of images (N, 1, 8, 8)."""
        output: torch.Tensor = self.head(self.hidden(self.block2(self.block1(images))))
        return output


class TinyCNN(nn.Module):
    """Two convolution blocks and a linear layer, for 8x8 images: 1,898 parameters. For many phones and for speed.

    Input (N, 1, 8, 8), output (N, num_classes).
    """

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.block1 = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        self.block2 = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
        self.head = nn.Linear(64, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Class scores (N, num_classes) of images (N, 1, 8, 8)."""
        output: torch.Tensor = self.head(self.block2(self.block1(images)))
        return output


class MLP(nn.Module):
    """Linear layers with ReLU between. Input (N, ...) flattened, output (N, num_classes).

    It has `inputs` values in a sample; none: as many as `input_shape` has, or 64.
    """

    def __init__(
        self,
        num_classes: int = 10,
        inputs: int | None = None,
        width: int = 64,
        depth: int = 3,
        input_shape: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if inputs is None and None in (input_shape or ()):
            wrong = "mlp takes samples of one length, and these are sequences of different ones"
            raise SettingsError("model.name", "mlp", "Take cnn1d or lstm", wrong)
        if inputs is None:
            inputs = prod(input_shape) if input_shape is not None else 64
        self.flatten = nn.Flatten()
        self.layers = nn.ModuleList(nn.Linear(inputs if i == 0 else width, width) for i in range(depth - 1))
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores (N, num_classes)."""
        x = self.flatten(x)
        for layer in self.layers:
            x = torch.relu(layer(x))
        output: torch.Tensor = self.head(x)
        return output
