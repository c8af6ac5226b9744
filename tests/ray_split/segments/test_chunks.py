"""Of more phones than a chunk no graph is kept between forward and backward, and the gradients are the same."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import ray_split as rs
from ray_split.segments.looped_copies import LoopedCopies
from ray_split.segments.segment import Segment
from ray_split.segments.shared_segment import SharedSegment
from ray_split.segments.stacked_copies import StackedCopies

PHONES, SAMPLES = 6, 5
SGD = rs.config.Optimizer(lr=0.1)


def module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(7, 8), nn.Tanh(), nn.Dropout(0.4), nn.Linear(8, 3))


def copies(kind: str) -> Any:
    made = module()
    if kind == "shared":
        return SharedSegment(Segment(made, SGD), vmapped=False)
    found = StackedCopies(made, SGD) if kind == "stacked" else LoopedCopies(lambda: Segment(module(), SGD))
    found.load(Segment(made, SGD).state(), PHONES)
    return found


class Saved:
    """What a graph has saved, as long as the graph is alive."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor


def exchanged(kind: str, chunk: int | None) -> tuple[int, list[np.ndarray]]:
    """How many tensors graphs hold between forward and backward, and what both returned."""
    draw, alive = np.random.default_rng(1), weakref.WeakSet[Saved]()
    arrived = draw.normal(size=(PHONES, SAMPLES, 7)).astype(np.float32)
    gradient = draw.normal(size=(PHONES, SAMPLES, 3)).astype(np.float32)

    def pack(tensor: torch.Tensor) -> Saved:
        saved = Saved(tensor.detach())  # with its history it would keep its graph alive itself
        alive.add(saved)
        return saved

    tried = copies(kind)
    tried.chunk = chunk
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved.tensor):
        if kind == "shared":
            (hidden,) = tried.forward("key", [arrived], range(PHONES))
            held = len(alive)
            (back,) = tried.backward("key", [gradient], [np.ones(PHONES)])
        else:
            (hidden,) = tried.forward([arrived], range(PHONES))
            held = len(alive)
            (back,) = tried.backward([gradient])
    return held, [hidden, back]


@pytest.mark.parametrize("kind", ["looped", "shared", "stacked"])
def test_graphs_of_more_phones_than_a_chunk_are_computed_again(kind: str) -> None:
    held, whole = exchanged(kind, None)
    none, pieces = exchanged(kind, 4)
    assert held > 0
    assert none == 0
    for one, other in zip(whole, pieces, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["looped", "shared", "stacked"])
def test_graphs_of_as_many_phones_as_a_chunk_are_kept(kind: str) -> None:
    assert exchanged(kind, PHONES)[0] == exchanged(kind, None)[0] > 0
