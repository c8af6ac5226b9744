"""A segment's borders: leaves of the graph for what arrives, and the backward from a gradient that arrives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ray_split.messages.message import ARRAYS, Tree, Wanted, clone, leaves, receive, receive_leaf, send, tree_map

Backprop = Callable[[Sequence[torch.Tensor], Sequence[torch.Tensor]], None]


CPU = torch.device("cpu")


def as_leaf(value: Any, differentiable: bool, device: torch.device = CPU) -> Any:
    """An array that arrived as a leaf of the graph; other leaves as they are.

    It shares memory with what arrived on a CPU, or as a tensor on the segment's own card.
    """
    tensor = receive_leaf(value)
    if not isinstance(tensor, torch.Tensor):
        return tensor
    if tensor is value:
        tensor = tensor.detach()  # the sender's tensor stays without a gradient
    tensor = tensor if device.type in ("cpu", tensor.device.type) else clone(tensor, device)
    return _keep_strides(tensor.requires_grad_()) if differentiable and can_have_gradient(tensor) else tensor


def _keep_strides(leaf: torch.Tensor) -> torch.Tensor:
    """Let its gradient lie in memory as it came: torch lays out a leaf's as the leaf is.

    In the model that is not cut there is no leaf here, and a bias before the cut is summed up in the gradient's order.
    """
    found: list[torch.Tensor] = []

    def keep(leaf: torch.Tensor) -> None:
        if len(found) == 1:  # a buffer may lead a later backward here, too: its gradient is sent to nobody
            leaf.grad = found[0]

    leaf.register_hook(found.append)  # type: ignore[no-untyped-call]
    leaf.register_post_accumulate_grad_hook(keep)  # type: ignore[no-untyped-call]
    return leaf


def can_have_gradient(tensor: torch.Tensor) -> bool:
    """Whether torch differentiates by such a tensor: numbers with a fraction, complex ones too."""
    return tensor.is_floating_point() or tensor.is_complex()


def as_leaves(message: Tree, wanted: Wanted, device: torch.device = CPU) -> Any:
    """What arrived as leaves of the graph; without a gradient those of which the sender wants none.

    More than a matter of bytes: a mask that needs a gradient makes attention take another kernel.
    """
    if isinstance(wanted, bool):
        return tree_map(lambda value: as_leaf(value, wanted, device), message)
    each = iter(wanted)
    return tree_map(lambda value: as_leaf(value, next(each), device), message)


def own_copy(value: Any, device: torch.device) -> Any:
    """A copy that is the segment's own: it may begin in place, and the memory is aligned."""
    if not isinstance(value, torch.Tensor):
        return value
    return value.clone() if device.type == value.device.type else value.to(device)


def gradients_of(arrived: Any, staying: torch.device | None = None) -> Tree:
    """The gradients of what arrived, in the same structure, as a message (`send`); None where there is none."""
    return tree_map(lambda x: send(x.grad, staying) if isinstance(x, torch.Tensor) else None, arrived)


def backward(
    outputs: Any,
    gradient: Any,
    device: torch.device,
    backprop: str = "autograd",
    waiting: Sequence[tuple[torch.Tensor, torch.Tensor]] = (),
) -> None:
    """Backward from outputs with the gradient that arrived; leaves that have none, or no graph, are passed over.

    `waiting`: weights, each with a gradient that another segment found for it, to which this backward adds its own.
    """
    both = zip(leaves(outputs), leaves(gradient), strict=True)
    pairs = [*waiting, *((output, receive(g, device)) for output, g in both if _has_graph(output, g))]
    if pairs:
        tensors, gradients = zip(*pairs, strict=True)
        BACKPROP[backprop](tensors, gradients)


def _has_graph(output: Any, gradient: Any) -> bool:
    return isinstance(output, torch.Tensor) and output.requires_grad and isinstance(gradient, ARRAYS)


class _Received(torch.autograd.Function):
    """A scalar of some outputs whose backward hands each of them the gradient that arrived for it.

    The same as torch.autograd.backward(outputs, gradients), which imports sympy (3 s in every actor) to check shapes.
    """

    @staticmethod
    def forward(ctx: Any, gradients: Sequence[torch.Tensor], *outputs: torch.Tensor) -> torch.Tensor:
        ctx.gradients = gradients
        return torch.zeros((), device=outputs[0].device)  # real, whatever the outputs are

    @staticmethod
    def backward(ctx: Any, _: torch.Tensor) -> Any:
        return None, *ctx.gradients


def by_autograd(outputs: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor]) -> None:
    """Backward with the gradients as they are."""
    _Received.apply(gradients, *outputs).backward()


def by_auxiliary_labels(outputs: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor]) -> None:
    """Fit the outputs c to constant labels c_hat = c - g: half the sum of (c_hat - c)^2 has the gradient g.

    For frameworks that can fit to labels but take no gradient. A mean would give g over the number of elements, and
    c + g, as the paper prints it, -g. In double precision at the border, since c - (c - g) cancels.
    Source: Palanisamy et al. 2021 (SplitEasy), equation 6, with the sign put right.
    """
    loss: Any = 0.0
    for output, gradient in zip(outputs, gradients, strict=True):
        c = _double(output)
        label = c.detach() - _double(gradient)
        loss = loss + ((label - c) ** 2).sum() / 2
    loss.backward()


def _double(tensor: torch.Tensor) -> torch.Tensor:
    """In double precision; of complex numbers the two parts, each of which has its part of the gradient."""
    return torch.view_as_real(tensor.to(torch.complex128).resolve_conj()) if tensor.is_complex() else tensor.double()


BACKPROP: dict[str, Backprop] = {"autograd": by_autograd, "auxiliary_labels": by_auxiliary_labels}


def as_floats(tensor: torch.Tensor) -> torch.Tensor:
    """Numbers in single precision, to take the norm of; of complex ones the two parts."""
    return (torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor).float()
