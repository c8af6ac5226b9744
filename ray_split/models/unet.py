"""A small U-Net. Its skips stay in one segment, or cross a cut beside what was computed from them."""

from __future__ import annotations

import torch
from torch import nn


class Down(nn.Module):
    """Two convolutions with ReLU on half the resolution. Input (N, C, H, W), output (N, channels, H / 2, W / 2)."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(2)
        self.convs = convolutions(inputs, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Half as high and wide."""
        output: torch.Tensor = self.convs(self.pool(x))
        return output


class Up(nn.Module):
    """Up to the skip's resolution, and two convolutions with ReLU of both.

    Inputs (N, 2 * channels, H, W) and the skip (N, channels, 2 H, 2 W), output as the skip.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(2 * channels, channels, 2, stride=2)
        self.convs = convolutions(2 * channels, channels)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """As high and wide as the skip."""
        output: torch.Tensor = self.convs(torch.cat([self.up(x), skip], 1))
        return output


def convolutions(inputs: int, channels: int) -> nn.Sequential:
    """Two 3x3 convolutions, each with ReLU, that keep height and width."""
    return nn.Sequential(
        nn.Conv2d(inputs, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU()
    )


class UNet(nn.Module):
    """Two levels down and up, padded and without normalization: 29,339 parameters at width 8 and 3 classes.

    Input (N, channels, H, W) with H and W divisible by 4, output (N, num_classes, H, W). Cut at stem and up1 all skips
    are inside B; cut at down1 and down2 they cross both cuts.
    Source: Ronneberger, Fischer and Brox 2015, https://arxiv.org/abs/1505.04597.
    """

    def __init__(self, num_classes: int = 3, channels: int = 1, width: int = 8) -> None:
        super().__init__()
        self.stem = convolutions(channels, width)
        self.down1 = Down(width, 2 * width)
        self.down2 = Down(2 * width, 4 * width)
        self.up2 = Up(2 * width)
        self.up1 = Up(width)
        self.head = nn.Conv2d(width, num_classes, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Class scores of each pixel."""
        whole = self.stem(images)
        half = self.down1(whole)
        quarter = self.down2(half)
        output: torch.Tensor = self.head(self.up1(self.up2(quarter, half), whole))
        return output
