"""What stays on a card, where sender and receiver compute on it in one process: tensors in the place of arrays.

They are the sender's own memory, as they come from it: nobody may write to them. What is done to arrays on their way
is done to these here, so that they are laid out as the arrays would be.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ray_split.arrays import Array
from ray_split.messages.bits import INTEGERS
from ray_split.messages.layout import without_gaps

WHOLE = (torch.float32, torch.float64, torch.complex64, torch.complex128)


def stays(tensor: torch.Tensor, card: torch.device | None) -> bool:
    """Whether it is on this card, in memory of a plain layout."""
    return card is not None and tensor.device.type == card.type and tensor.layout is torch.strided


def detached(tensor: torch.Tensor) -> torch.Tensor:
    """It without its graph; not conjugated or negated only when it is looked at."""
    return tensor.detach().resolve_conj().resolve_neg()


def stack(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """As layout.stack."""
    if _is_plain(tensors[0]):
        return _plainly(tensors)
    each = [_laid(tensor) for tensor in tensors]
    if any((tensor.shape, own[1]) != (tensors[0].shape, each[0][1]) for tensor, own in zip(tensors, each, strict=True)):
        return _plainly(tensors)
    values = torch.stack([own for own, _ in each])
    return values.as_strided((len(tensors), *tensors[0].shape), (values.shape[1], *each[0][1]))


def _plainly(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.stack([tensor.contiguous() for tensor in tensors])


def _is_plain(tensor: torch.Tensor) -> bool:
    """As layout.is_plain."""
    count = tensor.dim()
    return list(tensor.stride()) == without_gaps(tensor.shape, range(count), [False] * count)


def _laid(tensor: torch.Tensor) -> tuple[torch.Tensor, list[int]]:
    """Its values in the order of memory, each once, and its strides without gaps: as layout.laid."""
    strides = tensor.stride()
    order = sorted(range(tensor.dim()), key=lambda i: -strides[i])
    repeated = [size > 1 and not stride for size, stride in zip(tensor.shape, strides, strict=True)]
    once = tensor[tuple(slice(0, 1) if each else slice(None) for each in repeated)].permute(order)
    kept = list(strides) if once.is_contiguous() else without_gaps(tensor.shape, order, repeated)
    return once.reshape(-1), kept


def concatenate(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Along the first dimension, in the order of memory of the first of them, as numpy does."""
    strides = tensors[0].stride()
    order = sorted(range(tensors[0].dim()), key=lambda i: -strides[i])
    whole = torch.cat([tensor.permute(order).contiguous() for tensor in tensors], order.index(0))
    return whole.permute([order.index(i) for i in range(len(order))])


def times(tensor: torch.Tensor, scale: Array) -> torch.Tensor:
    """A tensor (phones, ...) times its phone's scale (phones,)."""
    each: torch.Tensor = torch.from_numpy(scale).to(tensor.device).reshape(-1, *[1] * (tensor.dim() - 1))
    if str(tensor.dtype).removeprefix("torch.") in INTEGERS:
        return (wide(tensor) * each.float()).to(tensor.dtype)
    return tensor * each.to(tensor.real.dtype)


def norms(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Of each phone the L2 norm over all of these (phones, ...); not finite if one of them isn't."""
    each = [torch.linalg.vector_norm(wide(tensor).reshape(len(tensor), -1), dim=1).double() for tensor in tensors]
    found: torch.Tensor = torch.linalg.vector_norm(torch.stack(each), dim=0)
    return found


def wide(tensor: torch.Tensor) -> torch.Tensor:
    """Numbers of less than single precision in it; others as they are."""
    if tensor.dtype in WHOLE:
        return tensor
    return tensor.to(torch.complex64 if tensor.is_complex() else torch.float32)
