"""A model whose cuts are crossed by more than plain float32 batches: 'tests.crossing_nets:crossed', by `kinds`.

Each kind is something that block1 makes, and that crosses both cuts: block2 and head both use it, so that its gradient
is the sum of two.
"""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn

WIDTH = 8


class Pair(NamedTuple):
    first: torch.Tensor
    second: torch.Tensor


class Output(OrderedDict):
    """As transformers' ModelOutput: what is in it is an attribute too."""

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        raise AttributeError(name)


@dataclass
class Fields:
    first: torch.Tensor
    second: int


Plain = namedtuple("Plain", "value")

Make = Callable[["Block1", torch.Tensor], Any]
Use = Callable[[Any, torch.Tensor], torch.Tensor]


def _number(made: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
    return made.to(h.dtype) * h


def _types(made: Any, h: torch.Tensor) -> torch.Tensor:
    dtype, device, size, nothing, name, piece, dots = made
    assert isinstance(size, torch.Size) and size[-1] == WIDTH and nothing is None and name == "h" and dots is ...
    return h.to(dtype=dtype, device=device)[:, piece].reshape(len(h), -1).mean(1, keepdim=True)


def _trees(made: Any, h: torch.Tensor) -> torch.Tensor:
    assert type(made["pair"]) is Pair and type(made["output"]) is Output and type(made["fields"]) is Fields
    highest = made["highest"].values + made["highest"].indices  # torch.return_types.max
    return made["pair"].second + made["output"].state * made["fields"].first / made["fields"].second + highest[:, None]


def _make_trees(block: Block1, h: torch.Tensor) -> Any:
    state = Output(state=h * 2, other=h)
    return {"pair": Pair(h, h + 1), "output": state, "fields": Fields(h.exp(), 3), "highest": torch.max(h, 1)}


KINDS: dict[str, tuple[Make, Use]] = {
    "learned number": (lambda block, h: block.log_scale.exp(), _number),
    "mean": (lambda block, h: h.mean(), _number),
    "parameter": (lambda block, h: block.log_scale, _number),
    "whole number": (lambda block, h: torch.tensor(3), _number),
    "complex": (lambda block, h: torch.fft.rfft(h), lambda made, h: torch.fft.irfft(made)),
    "conjugated": (lambda block, h: torch.fft.rfft(h).conj(), lambda made, h: torch.fft.irfft(made * (1 + 2j))),
    "negated": (lambda block, h: torch.fft.fft(h).conj().imag, _number),
    "complex128": (lambda block, h: torch.fft.rfft(h.double()), lambda made, h: torch.fft.irfft(made).float()),
    "float64": (lambda block, h: h.double() ** 2, _number),
    "float16": (lambda block, h: h.half(), _number),
    "bfloat16": (lambda block, h: h.bfloat16(), _number),
    "float8": (lambda block, h: h.detach().to(torch.float8_e4m3fn), _number),
    "complex32": (lambda block, h: torch.fft.rfft(h).to(torch.complex32),
                  lambda made, h: torch.fft.irfft(made.to(torch.complex64))),
    "mask": (lambda block, h: (h.detach() > 0).float(), _number),
    "detached": (lambda block, h: block.log_scale.detach() + 1, _number),
    "whole numbers": (lambda block, h: (h.argmax(1), h > 0, (h > 0).to(torch.uint8), (h * 9).to(torch.int16)),
                      lambda made, h: sum((each.reshape(len(h), -1) * h for each in made), torch.zeros(()))),
    "nothing in it": (lambda block, h: h[:, :0], lambda made, h: made.sum() + h),
    "expanded": (lambda block, h: block.row.expand_as(h), _number),
    "one number expanded": (lambda block, h: block.log_scale.expand(len(h), WIDTH), _number),
    "twice": (lambda block, h: (h, h), lambda made, h: made[0] * made[1]),
    "view": (lambda block, h: h.view(len(h), 2, -1).transpose(1, 2), lambda made, h: made.flatten(1)),
    "images": (lambda block, h: h.view(-1, 2, 2, 2).contiguous(memory_format=torch.channels_last),
               lambda made, h: nn.functional.avg_pool2d(made, 2).mean(1).flatten(1)),
    "types": (lambda block, h: (h.dtype, h.device, h.shape, None, "h", slice(0, 2), ...), _types),
    "trees": (_make_trees, _trees),
}  # fmt: skip


class Block1(nn.Module):
    def __init__(self, kinds: list[str]) -> None:
        super().__init__()
        self.kinds = kinds
        self.layer = nn.Linear(64, WIDTH)
        self.log_scale = nn.Parameter(torch.tensor(0.3))
        self.row = nn.Parameter(torch.linspace(-1, 1, WIDTH))

    def forward(self, x: torch.Tensor) -> Any:
        h = torch.tanh(self.layer(x.flatten(1)) * 0.3)
        return h, [KINDS[kind][0](self, h) for kind in self.kinds]


class Uses(nn.Module):
    def __init__(self, kinds: list[str], outputs: int, last: bool) -> None:
        super().__init__()
        self.kinds, self.last = kinds, last
        self.layer = nn.Linear(WIDTH, outputs)

    def forward(self, arrived: Any) -> Any:
        h, made = arrived
        used = [KINDS[kind][1](each, h) for kind, each in zip(self.kinds, made, strict=True)]
        h = self.layer(torch.tanh(h + 0.3 * sum(used)))
        return h if self.last else (torch.tanh(h), made)


class Crossed(nn.Module):
    def __init__(self, kinds: list[str], classes: int) -> None:
        super().__init__()
        self.block1 = Block1(kinds)
        self.block2 = Uses(kinds, WIDTH, last=False)
        self.head = Uses(kinds, classes, last=True)
        self.hidden = nn.Identity()  # tests/reference.py calls B block2 and hidden

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.block2(self.block1(x)))


def crossed(num_classes: int, kinds: list[str]) -> nn.Module:
    return Crossed(kinds, num_classes)
