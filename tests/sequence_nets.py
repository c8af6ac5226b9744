"""Data and models of sequences of different lengths."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

import ray_split as rs

LENGTHS = (3, 9)


def series(samples: int = 60, channels: int = 3, seed: int = 0) -> tuple[list[np.ndarray], np.ndarray]:
    """Series (length, channels) of three classes, of 3 to 9 steps."""
    draw = np.random.default_rng(seed)
    labels = np.arange(samples) % 3
    lengths = draw.integers(LENGTHS[0], LENGTHS[1] + 1, samples)
    lengths[:2] = LENGTHS
    return [draw.normal(label - 1, 1, (n, channels)) for n, label in zip(lengths, labels, strict=True)], labels


def turned() -> tuple[list[np.ndarray], np.ndarray]:
    """The same, (channels, length)."""
    inputs, labels = series()
    return [each.T for each in inputs], labels


def words() -> tuple[list[np.ndarray], np.ndarray]:
    """Numbers of words (length,)."""
    inputs, labels = series()
    return [np.arange(len(each)) + label for each, label in zip(inputs, labels, strict=True)], labels


class Tagger(nn.Module):
    """Words embedded, mixed by attention that the mask is told to, and the mean of the last layer over own words."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        self.words = nn.Embedding(16, 8)
        self.middle = nn.Linear(8, 8)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(8, num_classes)

    def forward(self, tokens: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        x = self.words(tokens)
        x = functional.scaled_dot_product_attention(x, x, x, attn_mask=attention_mask[:, None, :])
        x = self.dropout(torch.relu(self.middle(x)))
        own = attention_mask[..., None].to(x.dtype)
        return self.head((x * own).sum(1) / own.sum(1))


class ByKeyword(nn.Module):
    """Takes the mask by keyword alone; pads its BatchNorm, as the untouched model would."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(3, 6), nn.BatchNorm1d(6)
        self.second, self.head = nn.Linear(6, 6), nn.Linear(6, num_classes)

    def forward(self, x: torch.Tensor, scale: float = 1.0, *, real: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.first(x * scale).transpose(1, 2)).transpose(1, 2)
        x = torch.relu(self.second(x)) * real.unsqueeze(-1)
        return self.head(x.sum(1) / x.shape[1])


class NoMask(nn.Module):
    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(3, 6), nn.Linear(6, 6), nn.Linear(6, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.second(self.first(x)).mean(1))


class _Ends(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 6)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.linear(x), mask


class _Middle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return (torch.tanh(self.linear(x)) * mask.unsqueeze(-1)).sum(1)


def in_segments(num_classes: int = 3) -> Any:
    """Segments of one's own: A is given the values and the mask, and says itself what goes on."""
    return rs.Segments(_Ends(), _Middle(), nn.Linear(6, num_classes))
