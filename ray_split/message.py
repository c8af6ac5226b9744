"""Tensors <-> what goes into the object store: numpy arrays, which cross without a copy and read-only.

A message is a tensor, a number, or tuples, lists and dicts of them, with every tensor as a numpy array.
Nothing that arrived is ever written to: `receive` copies once, into memory of torch's own, which is
aligned to 64 bytes wherever in the object store the array lay. numpy has no bfloat16: such a tensor crosses as its
bits, in an array whose one field is called so.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from ray_split.state import Array
from ray_split.state_checks import norms

# Said once per process by torch.from_numpy of a read-only array; what it warns of is what receive() prevents.
warnings.filterwarnings("ignore", message="The given NumPy array is not writable")

Message = Any

Groups = list[Any]
"""A cohort's message: for each run of phones with equally large batches a tree of arrays (phones, batch size, ...)."""


class Sent(NamedTuple):
    """What crosses between client and server in one call."""

    groups: Groups
    at: float  # seconds since the epoch, when it was ready
    sizes: tuple[int, ...] | None = None  # each phone's batch size; of messages from clients
    wanted: bool = True  # whether the gradient of it is wanted: not by segments that learn nothing
    labels: Sequence[Array] | None = None  # single split: with the activation, for the loss on the server
    figures: tuple[Array, Array] | None = None  # with the gradient, of a loss on the server: Learned's


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
    return tree_map(lambda x: _array(x.detach().cpu()) if isinstance(x, torch.Tensor) else x, tree)


BITS = np.dtype([("bfloat16", np.int16)])


def _array(tensor: torch.Tensor) -> Array:
    if tensor.dtype is torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(BITS)
    return tensor.numpy()


def receive_leaf(value: Any) -> Any:
    """An array as a tensor that shares its memory; what isn't one as it is."""
    if not isinstance(value, np.ndarray):
        return value
    if value.dtype == BITS:
        return torch.from_numpy(value.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(value)


def times(message: Message, scale: Array) -> Message:
    """Every array (phones, ...) times its phone's scale (phones,)."""

    def scaled(x: Any) -> Any:
        if not isinstance(x, np.ndarray):
            return x
        if x.dtype == BITS:
            return _array(receive_leaf(x) * torch.from_numpy(scale.reshape(-1, *[1] * (x.ndim - 1))).bfloat16())
        return x * scale.astype(x.dtype).reshape(-1, *[1] * (x.ndim - 1))

    return message if (scale == 1).all() else tree_map(scaled, message)


def receive(message: Message, device: torch.device) -> Any:
    """Arrays as fresh tensors on `device`, that are nobody else's; other leaves as they are."""
    return tree_map(lambda x: _copy(x, device) if isinstance(x, np.ndarray) else x, message)


def _copy(array: Array, device: torch.device) -> torch.Tensor:
    shared: torch.Tensor = receive_leaf(array)
    return shared.clone() if device.type == "cpu" else shared.to(device)


def row(tree: Any, place: int) -> Any:
    """One phone's part of a group's message: every array at `place` of its leading dimension."""
    return tree_map(lambda x: x[place] if isinstance(x, (np.ndarray, torch.Tensor)) else x, tree)


def stack(trees: Sequence[Any]) -> Any:
    """Phones' messages as one group's, with a leading dimension; what isn't an array must be the same in all."""
    if len(trees) == 1:
        return tree_map(lambda x: x[None] if isinstance(x, np.ndarray) else x, trees[0])
    columns = zip(*(leaves(tree) for tree in trees), strict=True)
    values = iter([np.stack(column) if isinstance(column[0], np.ndarray) else column[0] for column in columns])
    return tree_map(lambda _: next(values), trees[0])


def group_size(tree: Any) -> int:
    """How many phones a group's message is of."""
    return next(len(x) for x in leaves(tree) if isinstance(x, (np.ndarray, torch.Tensor)))


def num_bytes(message: Message) -> int:
    """Bytes of a message's arrays: what the four messages of an exchange are counted by."""
    return sum(leaf.nbytes for leaf in leaves(message) if isinstance(leaf, np.ndarray))


def norms_of(message: Message) -> Array:
    """Of each phone of a group the L2 norm over all its arrays (k, ...) of numbers with a fraction."""
    floats = [x for x in leaves(message) if isinstance(x, np.ndarray) and (x.dtype.kind == "f" or x.dtype == BITS)]
    return norms([receive_leaf(x).float().numpy() if x.dtype == BITS else x for x in floats], of_each=True)


def labels_of(activation: Sent) -> Sequence[Array]:
    """Single split: the labels that came with an activation."""
    if activation.labels is None:
        raise ValueError("single split, and the activation came without labels")
    return activation.labels


def scales_of(sent: Sent, largest: int) -> list[Array]:
    """Each phone's batch size over the largest one, for each group; of gradients that nobody wanted none."""
    if sent.sizes is None:
        raise ValueError("a message without its phones' batch sizes")
    found, start = [], 0
    for group in sent.groups:
        phones = group_size(group) if any(isinstance(x, np.ndarray) for x in leaves(group)) else 0
        found.append(np.array(sent.sizes[start : start + phones]) / largest)
        start += phones
    return found
