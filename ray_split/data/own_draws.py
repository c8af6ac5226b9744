"""Torch's random draws of one thread from a generator of its own: torch's default generator is all threads'."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

Seed = Callable[[int], object]
"""Lets what is drawn next follow from a seed."""

_OF = torch.Tensor
DRAWS = frozenset({
    torch.rand, torch.randn, torch.randint, torch.randperm, torch.normal, torch.bernoulli, torch.multinomial,
    torch.poisson, _OF.uniform_, _OF.normal_, _OF.random_, _OF.bernoulli_, _OF.bernoulli, _OF.multinomial,
    _OF.exponential_, _OF.geometric_, _OF.cauchy_, _OF.log_normal_,
})  # fmt: skip
"""What draws, as far as our augmentations call it."""


class OwnDraws(TorchFunctionMode):
    """In this thread what draws is given the generator, and so draws the same as the default one with its seed."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.Generator()

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        more = {"generator": self.generator} if function in DRAWS else {}
        return function(*args, **(kwargs or {}), **more)


@contextmanager
def seeded(beside: bool) -> Iterator[Seed]:
    """Draws that follow from the seeds that are told; torch's default generator is afterwards as it was.

    `beside`: other threads draw from it meanwhile, so it is left alone.
    """
    if beside:
        with OwnDraws() as draws:
            yield draws.generator.manual_seed
    else:
        with torch.random.fork_rng(devices=[]):
            yield torch.default_generator.manual_seed
