"""Activation checkpointing: a block keeps its inputs alone, and is computed once more when its backward comes.

So a pending graph has one tensor for each block, and the memory of one block's graph while it goes backward. Source:
Chen et al. 2016, https://arxiv.org/abs/1604.06174; torch.utils.checkpoint does it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from ray_split.segments.buffers import Buffers

NEVER_CALLED = (nn.ModuleList, nn.ModuleDict)


def blocks_of(module: nn.Module) -> list[nn.Module]:
    """The blocks of a segment: the outermost lists of layers that have layers; where there is no list, these layers."""
    return list(_listed(module)) or list(_outermost(module))


def checkpoint_blocks(module: nn.Module) -> None:
    """Have each of a module's blocks computed once more in its backward, to the same bits. The module stays itself."""
    for block in blocks_of(module):
        block.__class__ = _checkpointed(type(block))


def _listed(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        inner = [layer for layer in child.children() if _has_layers(layer)]
        if len(inner) > 1 and (isinstance(child, nn.Sequential) or _is_never_called(child)):
            yield from inner
        else:
            yield from _listed(child)


def _outermost(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        if _is_never_called(child):
            yield from _outermost(child)
        elif _has_layers(child):
            yield child


def _is_never_called(layer: nn.Module) -> bool:
    """Whether it only holds layers; a cut model's segments hold theirs in plain modules."""
    return type(layer) is nn.Module or isinstance(layer, NEVER_CALLED)


def _has_layers(layer: nn.Module) -> bool:
    return any(True for _ in layer.children())


_CLASSES: dict[type[nn.Module], type[nn.Module]] = {}


def _checkpointed(kind: type[nn.Module]) -> type[nn.Module]:
    """A class of the same name whose forward keeps its inputs alone: copies are made of it as of the layer."""
    if kind not in _CLASSES:
        told = {"forward": _forward_of(kind), "__module__": kind.__module__, "__qualname__": kind.__qualname__}
        made = type(kind.__name__, (kind,), told)
        _CLASSES[kind] = _CLASSES[made] = made
    return _CLASSES[kind]


def _forward_of(kind: type[nn.Module]) -> Any:
    def forward(self: nn.Module, *arguments: Any, **named: Any) -> Any:
        if not torch.is_grad_enabled():
            return kind.forward(self, *arguments, **named)
        from torch.utils.checkpoint import checkpoint  # takes seconds, and is wanted here alone

        buffers = Buffers(self)
        kept = buffers.kept()

        def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
            return nullcontext(), buffers.as_before(kept)

        return checkpoint(kind.forward, self, *arguments, use_reentrant=False, context_fn=contexts, **named)

    return forward
