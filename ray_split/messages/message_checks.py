"""Checks what a phone sent before it can do harm: on the server activations, gradients and labels.

A message that is not what the cut promises raises BadPhoneError, which names the phone, and nothing has been computed
with it. Where a cohort's message is wrong as a whole, its phones can't be told apart, and all are named.
Shapes: k phones with equally large batches of n samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby, repeat
from typing import Any

import numpy as np
import torch

from ray_split.arrays import Array
from ray_split.config.phones import MaxNorm
from ray_split.errors import BadPhoneError
from ray_split.messages import on_card
from ray_split.messages.contract import Between, Contract, Labels
from ray_split.messages.message import Groups, Message, Wanted, differentiable, leaves, norms_of, tree_map, type_of
from ray_split.messages.trees import structure
from ray_split.messages.weight_checks import norm_shown, shown

Phones = tuple[int, ...]
Run = tuple[int, int]  # k, n


class Checks:
    """What a server expects next of its phones."""

    def __init__(self, contract: Contract, bounds: MaxNorm, labels: bool, staying: torch.device | None = None) -> None:
        """`labels`: whether they come with the activation (single split). `staying`: a card on which tensors may be."""
        self._contract, self._bounds, self._with_labels, self._staying = contract, bounds, labels, staying
        self._sent: dict[Phones, tuple[tuple[int, ...], Groups]] = {}  # sizes, and what a gradient is to be like

    def forget(self) -> None:
        """Expect nothing: what is under way is dropped."""
        self._sent.clear()

    def activation(self, phones: Phones, sent: Any) -> None:
        """Raises BadPhoneError unless it is the activation of these phones, or of the first of them."""
        told = self._told(sent)
        sizes = self._sizes(phones, told)
        runs = self._runs(sizes)
        problem = _first(
            _activation_problem(group, self._contract.activation, run) for group, run in _pairs(told, runs)
        )
        if problem:
            raise BadPhoneError(phones, f"its activation {problem}")
        bounded = [leaf.bounded for leaf in leaves(self._contract.activation)]
        _check_norms(phones, runs, sent.groups, self._bounds.activation, "activation", bounded)
        if self._with_labels or sent.labels is not None:
            self._labels(phones, sent.labels, runs)

    def _told(self, sent: Any) -> Any:
        """A message with placeholders for the tensors that stay on the card: to be looked at as any other."""
        if self._staying is None or type(sent) is not Message or type(sent.groups) is not list:
            return sent
        return sent._replace(groups=tree_map(self._shown, sent.groups))

    def _shown(self, leaf: Any) -> Any:
        is_there = isinstance(leaf, torch.Tensor) and on_card.stays(leaf, self._staying)
        return _empty(type_of(leaf), tuple(leaf.shape)) if is_there else leaf

    def _sizes(self, phones: Phones, sent: Any) -> tuple[int, ...]:
        problem = _envelope_problem(sent)
        smallest, largest = self._contract.smallest, self._contract.largest
        if problem is None and not _is_wanted(sent.wanted, len(leaves(self._contract.activation))):
            problem = f"wants {shown(sent.wanted)}; it is whether each of its leaves is to have a gradient"
        if problem is None and not _are_sizes(sent.sizes, len(phones), smallest, largest):
            problem = f"says batch sizes {shown(sent.sizes)}; each is from {smallest} to {largest}"
        if problem is None and len(sent.groups) != len(self._runs(sent.sizes)):
            problem = f"has {len(sent.groups)} groups, for batch sizes {shown(sent.sizes)}"
        if problem is not None:
            raise BadPhoneError(phones, f"its activation {problem}")
        return tuple(sent.sizes)

    def _runs(self, sizes: Sequence[int]) -> list[Run]:
        return [(1, n) for n in sizes] if self._contract.apart else _runs(sizes)

    def _labels(self, phones: Phones, labels: Any, runs: Sequence[Run]) -> None:
        problem = labels_problem(labels, self._contract.labels, runs) if self._with_labels else "come unasked"
        if problem:
            raise BadPhoneError(phones, f"its labels {problem}")

    def expect(self, phones: Phones, sizes: tuple[int, ...], hidden: Groups, wanted: Wanted = True) -> None:
        """Hidden goes to these phones: a gradient like what is `wanted` of it is next."""
        self._sent[phones] = sizes, [_like(tree_map(self._shown, group), wanted) for group in hidden]

    def gradient(self, phones: Phones, sent: Any) -> None:
        """Raises BadPhoneError unless it is the gradient of the hidden that went to these phones."""
        if phones not in self._sent:
            raise BadPhoneError(phones, "a gradient came, and no hidden was sent")
        sizes, hidden = self._sent[phones]
        problem = _envelope_problem(sent)
        if problem is None and sent.labels is not None:
            problem = "comes with labels"
        if problem is None and type(sent.wanted) is not bool:
            problem = "is no message of groups"
        if problem is None and (not _are_sizes(sent.sizes, len(sizes), 1, max(sizes)) or sent.sizes != sizes):
            problem = f"says batch sizes {shown(sent.sizes)}, its activation {shown(sizes)}"
        if problem is None and len(sent.groups) != len(hidden):
            problem = f"has {len(sent.groups)} groups, not {len(hidden)}"
        if problem is None:
            both = zip(self._told(sent).groups, hidden, strict=True)
            problem = _first(_gradient_problem(group, like) for group, like in both)
        if problem is not None:
            raise BadPhoneError(phones, f"its gradient of hidden {problem}")
        _check_norms(phones, self._runs(sizes), sent.groups, self._bounds.gradient, "gradient of hidden")
        del self._sent[phones]


def check_labels(phones: Phones, promised: Labels, labels: Sequence[Array]) -> None:
    """Raises BadPhoneError for phones whose labels, groups (k, n, ...), are no classes."""
    start, bad = 0, []
    for group in labels:
        if promised.out_of_range(group):
            bad += [phones[start + i] for i, own in enumerate(group) if promised.out_of_range(own)]
        start += len(group)
    if bad:
        raise BadPhoneError(tuple(bad), f"its labels are not all from 0 to {(promised.classes or 0) - 1}")


def labels_problem(labels: Any, promised: Labels, runs: Sequence[Run]) -> str | None:
    """What is wrong with the labels of runs of phones, if anything."""
    if not isinstance(labels, (list, tuple)) or len(labels) != len(runs):
        return f"are {shown(labels)}, not an array for each group"
    for group, run in zip(labels, runs, strict=True):
        if problem := _array_problem(group, promised.dtype, (*run, *promised.shape)):
            return problem
        if promised.out_of_range(group):
            return f"are not all from 0 to {(promised.classes or 0) - 1}: {group.min()} to {group.max()}"
        if promised.finite and not np.isfinite(group).all():
            return "are not all finite"
    return None


def _pairs(sent: Message, runs: Sequence[Run]) -> Iterable[tuple[Any, Run]]:
    return zip(sent.groups, runs, strict=True)


def _first(problems: Iterable[str | None]) -> str | None:
    return next((problem for problem in problems if problem), None)


def _envelope_problem(sent: Any) -> str | None:
    if type(sent) is not Message:
        return f"is {shown(sent)}, no message"
    if type(sent.groups) is not list or type(sent.at) is not float:
        return "is no message of groups"
    return "comes with what phones don't send" if sent.figures is not None else None


def _is_wanted(wanted: Any, parts: int) -> bool:
    if type(wanted) is bool:
        return True
    return type(wanted) is tuple and len(wanted) == parts and all(type(each) is bool for each in wanted)


def _are_sizes(sizes: Any, most_phones: int, smallest: int, largest: int) -> bool:
    if type(sizes) is not tuple or not 1 <= len(sizes) <= most_phones:
        return False
    return all(type(size) is int and smallest <= size <= largest for size in sizes)


def _activation_problem(group: Any, promised: Any, run: Run) -> str | None:
    if structure(group) != structure(promised):
        return f"has {len(leaves(group))} parts in another structure; {len(leaves(promised))} cross this cut"
    lengths: dict[Between, set[int]] = {}  # what follows from how long sequences are is alike in all parts
    for leaf, like in zip(leaves(group), leaves(promised), strict=True):
        wanted = like.at(run[1])
        if like.dtype is None:
            if not _is_value(leaf, wanted, like.varies):
                return f"has {shown(leaf)} where {shown(wanted)} crosses"
            _note_lengths(lengths, (leaf,), (wanted,))
        elif problem := _array_problem(leaf, like.dtype, (run[0], *wanted)):
            return problem
        else:
            _note_lengths(lengths, leaf.shape[1:], wanted)
    uneven = [found for found in lengths.values() if len(found) > 1]
    return f"has parts of {' and of '.join(map(str, sorted(uneven[0])))} steps" if uneven else None


def _note_lengths(lengths: dict[Between, set[int]], shape: Sequence[int], wanted: Sequence[int | Between]) -> None:
    for size, own in zip(shape, wanted, strict=True):
        if isinstance(own, Between):
            lengths.setdefault(own, set()).add(size)


def _is_value(value: Any, wanted: Any, varies: bool) -> bool:
    if isinstance(wanted, Between):
        return type(value) is int and wanted.allows(value)
    return type(value) is type(wanted) and bool(varies or value == wanted)


def _gradient_problem(group: Any, like: Any) -> str | None:
    if structure(group) != structure(like):
        return f"has {len(leaves(group))} parts in another structure; hidden has {len(leaves(like))}"
    for leaf, own in zip(leaves(group), leaves(like), strict=True):
        if leaf is None:
            continue  # what is no number with a fraction, or what C makes no use of, has no gradient
        if own is None:
            return f"has {shown(leaf)} where hidden has no gradient"
        if problem := _array_problem(leaf, own.dtype, own.shape):
            return problem
    return None


def _like(group: Any, wanted: Wanted) -> Any:
    """Of each array an empty one of its type and shape, that holds no memory; None for what has no gradient."""
    each = repeat(wanted) if isinstance(wanted, bool) else iter(wanted)
    return tree_map(lambda leaf: _placeholder(leaf) if next(each) else None, group)


def _placeholder(leaf: Any) -> Any:
    if not isinstance(leaf, np.ndarray) or not differentiable(leaf.dtype):
        return None
    return _empty(leaf.dtype, leaf.shape)


def _empty(dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    return np.broadcast_to(np.zeros((), dtype), shape)


def _array_problem(array: Any, dtype: np.dtype[Any], shape: tuple[int | Between, ...]) -> str | None:
    if type(array) is not np.ndarray:
        return f"has {shown(array)} where an array is expected"
    if array.dtype != dtype:
        return f"is of {array.dtype}, not {dtype}"
    if array.shape == shape or (len(array.shape) == len(shape) and all(map(_is_size, array.shape, shape))):
        return None
    wanted = ", ".join(f"{n.least} to {n.most}" if isinstance(n, Between) else str(n) for n in shape)
    return f"has shape {array.shape}, not ({wanted}{',' if len(shape) == 1 else ''})"


def _is_size(size: int, wanted: int | Between) -> bool:
    return wanted.allows(size) if isinstance(wanted, Between) else size == wanted


def _runs(sizes: Sequence[int]) -> list[Run]:
    """Neighbours with equally large batches are one group."""
    return [(len(list(same)), n) for n, same in groupby(sizes)]


def _check_norms(
    phones: Phones, runs: Sequence[Run], groups: Groups, bound: float, what: str, bounded: Sequence[bool] | None = None
) -> None:
    """`bounded`: of which of a group's leaves the norm is bounded; none: of all."""
    start, bad = 0, []
    for group, (k, _) in zip(groups, runs, strict=True):
        found = norms_of(
            group if bounded is None else [x for x, own in zip(leaves(group), bounded, strict=True) if own]
        )
        bad += [(phones[start + i], found[i]) for i in np.flatnonzero(~(found <= bound))]
        start += k
    if bad:
        raise BadPhoneError(tuple(phone for phone, _ in bad), f"its {norm_shown(what, bad[0][1], bound)}")


def check_weights(phones: Phones, name: str, found: Array, bound: float) -> None:
    """Raises BadPhoneError for phones whose norm of a segment's weights is above the bound, or not finite."""
    bad = np.flatnonzero(~(found <= bound))
    if len(bad):
        raise BadPhoneError(tuple(phones[i] for i in bad), f"its {norm_shown(name, found[bad[0]], bound)}")
