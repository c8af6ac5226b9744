"""Three modules of the user's own as a model that is cut between them, and needs no tracing."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

from ray_split.segments.segment import call


class Chain(nn.Module):
    """A, B and perhaps C, called in turn: what one returns, a tensor or a tuple of them, is the next one's arguments.

    Its state dict has each one's own names after 'a.', 'b.' or 'c.'.
    """

    def __init__(self, a: nn.Module, b: nn.Module, c: nn.Module | None = None) -> None:
        super().__init__()
        self.a, self.b = a, b
        if c is not None:
            self.c = c

    @property
    def cuts(self) -> list[str]:
        """Where it is cut: after all but the last."""
        return list(self._modules)[:-1]

    def forward(self, *inputs: Any) -> Any:
        """What the last one returns."""
        x: Any = inputs[0] if len(inputs) == 1 else inputs
        for module in self._modules.values():
            assert module is not None
            x = call(module, x)
        return x

    def links(self) -> list[Link]:
        """Each of the modules, copied, under the names that the whole model has for its parts."""
        whole = copy.deepcopy(self)
        return [Link(name, module) for name, module in whole._modules.items() if module is not None]


class Link(nn.Module):
    """One module of a chain."""

    def __init__(self, name: str, module: nn.Module) -> None:
        super().__init__()
        self.add_module(name, module)

    def forward(self, *inputs: Any) -> Any:
        """The module's own."""
        (module,) = self._modules.values()
        assert module is not None
        return module(*inputs)
