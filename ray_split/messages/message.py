"""Tensors <-> what goes into the object store: numpy arrays, which cross without a copy and read-only.

A message is a tensor, a number, or a tree of them, with every tensor as a numpy array.
Nothing that arrived is ever written to: `receive` copies once, into memory of torch's own, which is
aligned to 64 bytes wherever in the object store the array lay. numpy has no bfloat16, float8 or complex32: such a
tensor crosses as its bits (bits.py). Trees keep their types (trees.py).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
import torch

from ray_split.arrays import Array
from ray_split.messages import bits, layout, on_card
from ray_split.messages.staging import staging_of
from ray_split.messages.trees import leaves as leaves
from ray_split.messages.trees import tree_map as tree_map
from ray_split.messages.weight_checks import norms

# Said once per process by torch.from_numpy of a read-only array; what it warns of is what receive() prevents.
warnings.filterwarnings("ignore", message="The given NumPy array is not writable")

Tree = Any

Groups = list[Any]
"""A cohort's message: for each run of phones with equally large batches a tree of arrays (phones, batch size, ...)."""


Wanted = bool | tuple[bool, ...]
"""Whether the gradient of what crosses is wanted: of all leaves of its tree alike, or of each, in their order."""


class Message(NamedTuple):
    """What crosses between client and server in one call."""

    groups: Groups
    at: float  # seconds since the epoch, when it was ready
    sizes: tuple[int, ...] | None = None  # each phone's batch size; of messages from clients
    wanted: Wanted = True  # of which leaves the sender has a use for the gradient: not of masks, or where it is frozen
    labels: Sequence[Array] | None = None  # single split: with the activation, for the loss on the server
    figures: tuple[Array, Array] | None = None  # with the gradient, of a loss on the server: Learned's
    norms: Mapping[str, Array] | None = None  # of B's gradients (k,), by parameter, where they are clipped by all's

    def __reduce__(self) -> tuple[Any, ...]:
        """A pickle, of which numpy would lay out anew what isn't contiguous."""
        if all(layout.is_plain(leaf) for leaf in leaves(self.groups) if isinstance(leaf, np.ndarray)):
            return Message, tuple(self)
        return _unpickled, (tree_map(layout.packed, self.groups), *self[1:])


def _unpickled(groups: Any, *rest: Any) -> Message:
    return Message(tree_map(layout.unpacked, groups), *rest)


def send(tree: Any, staying: torch.device | None = None) -> Tree:
    """Tensors as numpy arrays, detached and on the CPU; other leaves as they are. Shares memory with CPU tensors.

    `staying`: a card that the receiver computes on, too, in the same process. What is there stays, as detached tensors.
    """

    def sent(x: Any) -> Any:
        if not isinstance(x, torch.Tensor):
            return x
        return on_card.detached(x) if on_card.stays(x, staying) else as_bits(x)

    return tree_map(sent, tree)


ARRAYS = (np.ndarray, torch.Tensor)
"""What is an array in a message: a tensor where it stays on a card."""


BITS = bits.BFLOAT16
_RAW = {getattr(torch, name): (torch.from_numpy(np.zeros(0, i)).dtype, bits.TYPES[name]) for name, i in
        bits.INTEGERS.items()}  # fmt: skip


def as_bits(tensor: torch.Tensor) -> Array:
    """A tensor as an array of the same bits. Shares memory with a CPU tensor."""
    if tensor.is_cuda and tensor.layout is torch.strided:
        tensor = staging_of(tensor.device).to_host(tensor)
    if tensor.dtype in _RAW:
        integer, named = _RAW[tensor.dtype]
        return tensor.detach().cpu().resolve_conj().view(integer).numpy().view(named)
    return tensor.numpy(force=True)  # what is conjugated or negated only when it is looked at, too


def receive_leaf(value: Any) -> Any:
    """An array as a tensor that shares its memory; what isn't one as it is."""
    if not isinstance(value, np.ndarray):
        return value
    name = bits.name_of(value.dtype)
    if name is None:
        return torch.from_numpy(value)
    return torch.from_numpy(value.view(bits.INTEGERS[name])).view(getattr(torch, name))


def wanted_of(outputs: Any) -> tuple[bool, ...]:
    """Of each leaf of a segment's outputs whether its gradient is wanted: of those that anything trained led to."""
    return tuple([isinstance(x, torch.Tensor) and x.requires_grad for x in leaves(outputs)])


def wanted_by_any(each: Iterable[Wanted]) -> Wanted:
    """What is wanted by one or another."""
    none: Wanted = False
    return reduce(_either, each, none)


def _either(one: Wanted, other: Wanted) -> Wanted:
    if isinstance(one, bool) or isinstance(other, bool):
        return (one or other) if isinstance(one, bool) else (other or one)
    return tuple([a or b for a, b in zip(one, other, strict=True)])


def times(message: Tree, scale: Array) -> Tree:
    """Every array (phones, ...) times its phone's scale (phones,)."""

    def scaled(x: Any) -> Any:
        if isinstance(x, torch.Tensor):
            return on_card.times(x, scale)
        if not isinstance(x, np.ndarray):
            return x
        each = scale.reshape(-1, *[1] * (x.ndim - 1))
        if bits.name_of(x.dtype):
            tensor = receive_leaf(x)
            return as_bits((single(tensor) * torch.from_numpy(each).float()).to(tensor.dtype))
        return x * each.astype(x.real.dtype)

    return message if (scale == 1).all() else tree_map(scaled, message)


def single(tensor: torch.Tensor) -> torch.Tensor:
    """Numbers that torch can hardly compute with in single precision."""
    return tensor.to(torch.complex64 if tensor.is_complex() else torch.float32)


def receive(message: Tree, device: torch.device) -> Any:
    """Arrays as fresh tensors on `device`, that are nobody else's; other leaves as they are."""
    return tree_map(lambda x: _copy(x, device) if isinstance(x, ARRAYS) else x, message)


def _copy(array: Array | torch.Tensor, device: torch.device) -> torch.Tensor:
    return clone(receive_leaf(array), device)


def clone(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A copy that lies in memory as the tensor does; what it repeats along a dimension is repeated in the copy, too."""
    repeated = [size > 1 and not stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)]
    if any(repeated):
        once = tensor[tuple(slice(0, 1) if each else slice(None) for each in repeated)]
        return clone(once, device).expand(tensor.shape)
    if device.type == "cuda" and tensor.device.type == "cpu":
        return staging_of(device).to_device(tensor)
    return tensor.clone() if device.type == tensor.device.type else tensor.to(device)


def row(tree: Any, place: int) -> Any:
    """One phone's part of a group's message: every array at `place` of its leading dimension."""
    # With the dots what has no dimension stays an array: without, numpy makes a number of it, which has no gradient.
    return tree_map(lambda x: x[place, ...] if isinstance(x, ARRAYS) else x, tree)


def stack(trees: Sequence[Any]) -> Any:
    """Phones' messages as one group's, with a leading dimension; what isn't an array must be the same in all."""
    if len(trees) == 1:
        return tree_map(_alone, trees[0])
    columns = zip(*(leaves(tree) for tree in trees), strict=True)
    values = iter([together(column, layout.stack, on_card.stack) for column in columns])
    return tree_map(lambda _: next(values), trees[0])


def _alone(x: Any) -> Any:
    return layout.alone(x) if isinstance(x, np.ndarray) else x[None] if isinstance(x, torch.Tensor) else x


def together(
    column: Sequence[Any],
    join: Callable[[Sequence[Array]], Array],
    join_there: Callable[[Sequence[torch.Tensor]], torch.Tensor],
) -> Any:
    """One leaf of several phones: arrays by `join`, on a card by `join_there`; what isn't one as it is.

    Raises ValueError where they differ.
    """
    arrays = [isinstance(value, ARRAYS) for value in column]
    if all(arrays):
        return join_there(column) if isinstance(column[0], torch.Tensor) else join(column)
    if any(arrays) or any(value is not column[0] and value != column[0] for value in column):
        found = sorted({"a tensor" if array else repr(v)[:40] for v, array in zip(column, arrays, strict=True)})
        raise ValueError(
            f"what crosses (or its gradient) is {' for one phone, for another '.join(found[:2])}, and they train as "
            "one cohort: set phones.cohort 1, or let the model return a tensor for each sample"
        )
    return column[0]


def group_size(tree: Any) -> int:
    """How many phones a group's message is of."""
    return next(len(x) for x in leaves(tree) if isinstance(x, ARRAYS))


def num_bytes(message: Tree) -> int:
    """Bytes of a message's arrays: what the four messages of an exchange are counted by."""
    return sum(leaf.nbytes for leaf in leaves(message) if isinstance(leaf, ARRAYS))


def norms_of(message: Tree) -> Array:
    """Of each phone of a group the L2 norm over all its arrays (k, ...) of numbers with a fraction."""
    floats = [x for x in leaves(message) if isinstance(x, np.ndarray) and differentiable(x.dtype)]
    here = norms([single(receive_leaf(x)).numpy() if x.dtype.names else x for x in floats], of_each=True)
    there = [x for x in leaves(message) if isinstance(x, torch.Tensor) and differentiable(type_of(x))]
    return np.hypot(here, as_bits(on_card.norms(there))) if there else here


def type_of(tensor: torch.Tensor) -> np.dtype[Any]:
    """The type of the array that would cross in a tensor's place."""
    found: np.dtype[Any] = as_bits(torch.empty(0, dtype=tensor.dtype)).dtype
    return found


def differentiable(dtype: np.dtype[Any]) -> bool:
    """Whether arrays of this type are of tensors that can have a gradient."""
    return dtype.kind in "fcV"


def labels_of(activation: Message) -> Sequence[Array]:
    """Single split: the labels that came with an activation."""
    if activation.labels is None:
        raise ValueError("single split, and the activation came without labels")
    return activation.labels


def scales_of(sent: Message, largest: int) -> list[Array]:
    """Each phone's batch size over the largest one, for each group; of gradients that nobody wanted none."""
    if sent.sizes is None:
        raise ValueError("a message without its phones' batch sizes")
    found, start = [], 0
    for group in sent.groups:
        phones = group_size(group) if any(isinstance(x, ARRAYS) for x in leaves(group)) else 0
        found.append(np.array(sent.sizes[start : start + phones]) / largest)
        start += phones
    return found
