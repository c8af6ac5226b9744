"""In which precision a segment computes, how its images lie in memory, and whether it is compiled."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.func import functional_call, vmap

from ray_split import config
from ray_split.errors import SettingsError, first_line
from ray_split.messages.message import Tree, send, tree_map
from ray_split.segments.device.checkpointing import checkpoint_blocks


@dataclass(frozen=True)
class Computing:
    """What is done around each of a segment's forwards. As it is by default nothing is.

    `half`: torch's autocast to bfloat16; parameters, their gradients and the optimizer stay what they are. `widens`:
    the segment isn't half, and its neighbours are: what arrives in bfloat16 is made float32, inside the graph, as
    whoever leaves an autocast region does. So it crosses in two bytes.
    """

    half: bool = False
    widens: bool = False
    channels_last: bool = False
    compiled: bool = False
    checkpointing: bool = False  # its blocks are computed once more in backward
    staying: torch.device | None = None  # a card on which what it sends stays: its receiver is there, too

    def around(self, device: torch.device) -> AbstractContextManager[Any]:
        """Around a forward and its loss."""
        return torch.autocast(device.type, torch.bfloat16) if self.half else nullcontext()

    def sent(self, tree: Any) -> Tree:
        """What crosses of the outputs: see `send`."""
        return send(tree, self.staying)

    def taken(self, tree: Any) -> Any:
        """What the module is given for what arrived."""
        if self.widens:
            tree = widened(tree)
        return tree_map(_channels_last, tree) if self.channels_last else tree

    def laid_out(self, module: nn.Module) -> nn.Module:
        """A module with its weights as they are to lie in memory, and its blocks as they are to be computed."""
        if self.checkpointing:
            checkpoint_blocks(module)
        return module.to(memory_format=torch.channels_last) if self.channels_last else module

    def scored(self, outputs: Any) -> Any:
        """Outputs in eval mode, to take losses and metrics of, which have no use for few digits."""
        return widened(outputs) if self.half else outputs


PLAIN = Computing()


def computing_of(settings: config.Config, name: str, on_server: bool = True) -> Computing:
    """How segment 'a', 'b' or 'c' computes, wherever it is tried; the server knows more. B may be on the phone."""
    theirs = settings.phones.dtype
    ours = settings.server.dtype if on_server else theirs
    own, other = (ours, theirs) if name == "b" else (theirs, ours)
    return Computing(half=own == "bfloat16", widens=own != other == "bfloat16")


def computing_at_server(settings: config.Config, on_server: bool = True) -> Computing:
    """How the server computes B; where B is trained on the phone, it is evaluated as it is trained."""
    server, computing = settings.server, computing_of(settings, "b", on_server)
    return replace(
        computing,
        channels_last=server.channels_last,
        compiled=server.compile and on_server,
        checkpointing=server.activation_checkpointing and on_server,
    )


def widened(tree: Any) -> Any:
    """Tensors in bfloat16 in float32; the rest as it is."""
    return tree_map(lambda x: x.float() if isinstance(x, torch.Tensor) and x.dtype is torch.bfloat16 else x, tree)


def _channels_last(x: Any) -> Any:
    if isinstance(x, torch.Tensor) and x.dim() == 4:
        return x.contiguous(memory_format=torch.channels_last)
    return x


Run = Callable[..., Any]


def compiled(backend: str = "inductor") -> Run:
    """Calls a module with arguments, compiled. Raises SettingsError, at its first call, where that can't be.

    One for all modules of a kind, which share what was compiled. A graph that breaks would be run in parts, silently.
    """
    run = torch.compile(lambda module, *arguments: module(*arguments), fullgraph=True, backend=backend)
    return refused_in_words(run)


def compiled_over_phones(module: nn.Module, shared: bool, backend: str = "inductor") -> Run:
    """Calls a module for k phones: (weights, buffers, arrived), as stacked copies do; compiled, as `compiled` is."""

    def one(weights: Any, buffers: Any, arrived: tuple[Any, ...]) -> Any:
        return functional_call(module, {**weights, **buffers}, arrived)

    own = None if shared else 0
    return refused_in_words(torch.compile(vmap(one, in_dims=(own, own, 0)), fullgraph=True, backend=backend))


def refused_in_words(run: Run) -> Run:
    """A compiled function whose refusal is one line."""
    from torch._dynamo.exc import TorchDynamoException  # takes seconds, and is wanted here alone

    def called(*arguments: Any) -> Any:
        try:
            return run(*arguments)
        except TorchDynamoException as error:
            wrong = f"the server's part can't be compiled: {first_line(error)}"
            raise SettingsError("server.compile", True, "Set server.compile to false", wrong) from error

    return called
