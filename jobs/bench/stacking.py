"""The rule that decides what is stacked, against measurement."""

from __future__ import annotations

import copy
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import nn

from jobs.bench.timing import Row, interleaved
from ray_split import config
from ray_split.preparation import cohort_rule
from ray_split.segments.copies import Copies
from ray_split.segments.looped_copies import LoopedCopies
from ray_split.segments.segment import Segment
from ray_split.segments.stacked_copies import StackedCopies

OPTIMIZER = config.Optimizer(lr=0.01)


def conv(inputs: int, outputs: int) -> nn.Module:
    """A convolution and a ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU())


SEGMENTS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "linear 64-64-64": (nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64)), (64,)),
    "linear 512-64": (nn.Linear(512, 64), (512,)),
    "linear 784-128": (nn.Linear(784, 128), (784,)),
    "conv 1-8, 8x8": (conv(1, 8), (1, 8, 8)),
    "conv 8-16, 4x4": (conv(8, 16), (8, 4, 4)),
    "conv 16-32, 8x8": (conv(16, 32), (16, 8, 8)),
    "conv 1-4, 28x28": (conv(1, 4), (1, 28, 28)),
    "conv 1-16, 28x28": (conv(1, 16), (1, 28, 28)),
    "conv 16-16, 16x16, BatchNorm": (
        nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()),
        (16, 16, 16),
    ),
    "conv 3-16, 32x32": (conv(3, 16), (3, 32, 32)),
    "conv 32-32, 16x16": (conv(32, 32), (32, 16, 16)),
}


def step(copies: Copies, inputs: np.ndarray[Any, Any]) -> Callable[[], None]:
    """A forward, a backward and an optimizer step of all phones."""

    def run() -> None:
        outputs = copies.forward([inputs], range(len(inputs)))
        copies.backward([np.ones_like(outputs[0])])
        copies.step()

    return run


def measured(module: nn.Module, shape: tuple[int, ...], phones: int, batch: int, repeats: int) -> dict[str, Any]:
    """How many times faster stacked copies are than looped ones, and what the rule says."""
    size, _ = cohort_rule.sizes(module, torch.zeros(batch, *shape))
    looped: LoopedCopies = LoopedCopies(lambda: Segment(copy.deepcopy(module), OPTIMIZER))
    cases = {}
    inputs = np.random.default_rng(0).normal(size=(phones, batch, *shape)).astype(np.float32)
    for name, copies in (("looped", looped), ("stacked", StackedCopies(module, OPTIMIZER))):
        copies.load(Segment(copy.deepcopy(module), OPTIMIZER).state(), phones)
        cases[name] = step(copies, inputs)
    times = interleaved(cases, repeats, 1)
    gain = median(a / b for a, b in zip(times["looped"], times["stacked"], strict=True))
    stack = cohort_rule.suits(size)
    lost = max(1.0, 1 / gain if stack else gain)
    return {"gain": round(gain, 2), "rule": "stacked" if stack else "looped", "lost": round(lost, 2)}


def stacking_row(repeats: int, calls: int) -> Row:
    """Every segment at two batch sizes; `lost` is how much slower the rule's choice is than the other."""
    torch.set_num_threads(1)
    found = {
        f"{name}, batch {batch}": measured(module, shape, 32, batch, min(repeats, 7))
        for name, (module, shape) in SEGMENTS.items()
        for batch in (2, 16)
    }
    lost = [row["lost"] for row in found.values()]
    return {"segments": found, "right": sum(each <= 1.1 for each in lost), "of": len(lost), "most_lost": max(lost)}
