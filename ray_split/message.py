"""Tensors <-> what goes into the object store: numpy arrays, which cross without a copy and read-only.

A message is a tensor, a number, or tuples, lists and dicts of them, with every tensor as a numpy array.
Nothing that arrived is ever written to: `receive` copies once, into memory of torch's own, which is
aligned to 64 bytes wherever in the object store the array lay.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ray_split.state import Array

# Said once per process by torch.from_numpy of a read-only array; what it warns of is what receive() prevents.
warnings.filterwarnings("ignore", message="The given NumPy array is not writable")

Message = Any


def tree_map(function: Callable[[Any], Any], tree: Any) -> Any:
    """Apply `function` to every leaf of nested tuples (named ones too), lists and dicts."""
    if not isinstance(tree, (tuple, list, dict)):
        return function(tree)
    if isinstance(tree, tuple):
        values = [tree_map(function, value) for value in tree]
        return type(tree)(*values) if hasattr(tree, "_fields") else tuple(values)
    if isinstance(tree, list):
        return [tree_map(function, value) for value in tree]
    return {key: tree_map(function, value) for key, value in tree.items()}


def leaves(tree: Any) -> list[Any]:
    """The leaves of a tree, in order."""
    found: list[Any] = []
    tree_map(found.append, tree)
    return found


def send(tree: Any) -> Message:
    """Tensors as numpy arrays, detached and on the CPU; other leaves as they are. Shares memory with CPU tensors."""
    return tree_map(lambda x: x.detach().cpu().numpy() if isinstance(x, torch.Tensor) else x, tree)


def receive(message: Message, device: torch.device) -> Any:
    """Arrays as fresh tensors on `device`, that are nobody else's; other leaves as they are."""
    return tree_map(lambda x: _copy(x, device) if isinstance(x, np.ndarray) else x, message)


def _copy(array: Array, device: torch.device) -> torch.Tensor:
    shared = torch.from_numpy(array)
    return shared.clone() if device.type == "cpu" else shared.to(device)


def num_bytes(message: Message) -> int:
    """Bytes of a message's arrays: what the four messages of an exchange are counted by."""
    return sum(leaf.nbytes for leaf in leaves(message) if isinstance(leaf, np.ndarray))
