"""What crosses lies in memory as it would in the model that is not cut: sums have the bits of that model's."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from ray_split import config
from ray_split.cutting.cut import cut
from ray_split.messages.message import Message, Wanted, send, wanted_of
from ray_split.segments.segment import Segment

OPTIMIZER = config.Optimizer(lr=0.01, momentum=0.9)


class Transposed(nn.Module):
    """The gradient of a's output is transposed, that of mid's the same all along a dimension."""

    cuts, shape = ("a", "mid"), (8, 301, 5)

    def __init__(self) -> None:
        super().__init__()
        self.a, self.mid, self.head = nn.Linear(5, 57), nn.Conv1d(57, 57, 1), nn.Linear(57, 3)

    def forward(self, x: torch.Tensor) -> Any:
        return self.head(self.mid(self.a(x).transpose(1, 2)).sum(2) / 301)


class Recurrent(nn.Module):
    """A ends in an LSTM that computes with time first, whatever its inputs have first."""

    cuts, shape = ("rec", "mid"), (8, 56, 1)

    def __init__(self) -> None:
        super().__init__()
        self.rec, self.mid, self.head = nn.LSTM(1, 8, batch_first=True), nn.Linear(8, 57), nn.Linear(57, 3)

    def forward(self, x: torch.Tensor) -> Any:
        return self.head(self.mid(self.rec(x)[0]).tanh().mean(1))


class ChannelsLast(nn.Module):
    """Images whose channels lie together."""

    cuts, shape = ("c1", "pool"), (4, 3, 19, 19)

    def __init__(self) -> None:
        super().__init__()
        self.c1, self.c2 = nn.Conv2d(3, 33, 3), nn.Conv2d(33, 33, 3)
        self.pool, self.c3, self.head = nn.AdaptiveAvgPool2d(1), nn.Conv2d(33, 17, 1), nn.Linear(17, 3)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: torch.Tensor) -> Any:
        return self.head(self.c3(self.pool(self.c2(self.c1(x).relu()))).flatten(1))


def sent(tree: Any) -> Any:
    """As it is after a pickle, which is what Ray makes of a message."""
    return pickle.loads(pickle.dumps(Message([send(tree)], 0.0), protocol=5)).groups[0]


def learn(segments: list[Segment], inputs: torch.Tensor, labels: torch.Tensor) -> None:
    arrived: Any = inputs.numpy()
    outputs: Any = None
    wanted: Wanted = False
    for segment in segments:
        outputs = segment.forward(arrived, 0, wanted)
        arrived, wanted = sent(outputs), wanted_of(outputs)
    gradient = segments[-1].backward_loss(cross_entropy(outputs, labels))
    for segment in segments[-2::-1]:
        gradient = segment.backward(sent(gradient))
    for segment in segments:
        segment.step()


@pytest.mark.parametrize("kind", [Transposed, Recurrent, ChannelsLast])
def test_gradients_in_any_layout_have_the_bits_of_the_untouched_model(kind: Any) -> None:
    torch.manual_seed(0)
    model = kind()
    parts = cut(copy.deepcopy(model), kind.cuts).modules()
    segments = [Segment(module, OPTIMIZER) for module in parts.values()]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    for _ in range(3):
        inputs, labels = torch.randn(kind.shape), torch.randint(0, 3, kind.shape[:1])
        optimizer.zero_grad()
        cross_entropy(model(inputs), labels).backward()
        optimizer.step()
        learn(segments, inputs, labels)
    ours = {n: p for segment in segments for n, p in segment.module.named_parameters()}
    assert {n: p.tolist() for n, p in model.named_parameters()} == {n: ours[n].tolist() for n in dict(ours)}
