"""Trees: what crosses a cut, or leaves a model: tuples, lists, dicts and dataclasses, nested, with anything as leaves.

A tree that is made from another is of the same types: named tuples, what torch returns of several values, subclasses
of dict (OrderedDict, transformers' ModelOutput), dataclasses, and what is registered with torch.utils._pytree.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch.utils._pytree import SUPPORTED_NODES

T = TypeVar("T")

_LEAVES: set[type] = {torch.Tensor, np.ndarray, type(None), int, float, bool, str}


def leaf(kind: type[T]) -> type[T]:
    """Never take these apart, whatever they are."""
    _LEAVES.add(kind)
    return kind


class _Node(NamedTuple):
    """A tree taken apart: what is in it, by what names, and how to make one like it."""

    kind: type
    keys: tuple[Any, ...]
    values: list[Any]
    with_values: Callable[[list[Any]], Any]


def tree_map(function: Callable[[Any], Any], tree: Any) -> Any:
    """Apply `function` to every leaf of a tree; the result is of the tree's own types."""
    kind = type(tree)
    if kind is tuple:
        return tuple([tree_map(function, value) for value in tree])
    if kind is list:
        return [tree_map(function, value) for value in tree]
    if kind is dict:
        return {key: tree_map(function, value) for key, value in tree.items()}
    if kind in _LEAVES or (node := _node(tree)) is None:
        return function(tree)
    return node.with_values([tree_map(function, value) for value in node.values])


def leaves(tree: Any) -> list[Any]:
    """The leaves of a tree, in order."""
    found: list[Any] = []
    _collect(tree, found)
    return found


def _collect(tree: Any, found: list[Any]) -> None:
    kind = type(tree)
    if kind in _LEAVES:
        found.append(tree)
        return
    values = tree if kind is tuple or kind is list else tree.values() if kind is dict else None
    if values is None:
        node = _node(tree)
        values = [] if node is None else node.values
        if node is None:
            found.append(tree)
    for value in values:
        _collect(value, found)


def structure(tree: Any) -> Any:
    """A tree without what is in it, to compare with another's: its types and keys."""
    node = None if type(tree) in _LEAVES else _node(tree)
    return None if node is None else (node.kind, node.keys, tuple([structure(value) for value in node.values]))


def _node(tree: Any) -> _Node | None:
    """None of a leaf."""
    kind = type(tree)
    if isinstance(tree, tuple):
        return _tuple(kind, tree)
    if isinstance(tree, list):
        return _Node(kind, (len(tree),), list(tree), lambda values: _list(tree, values))
    if isinstance(tree, dict):
        return _Node(kind, tuple(tree), list(tree.values()), lambda values: _dict(tree, values))
    if registered := SUPPORTED_NODES.get(kind):
        values, context = registered.flatten_fn(tree)
        return _Node(kind, (repr(context),), list(values), lambda values: registered.unflatten_fn(values, context))
    if dataclasses.is_dataclass(kind):
        names = tuple(field.name for field in dataclasses.fields(kind))
        there = [getattr(tree, name) for name in names]
        return _Node(kind, names, there, lambda values: _with_fields(tree, zip(names, values, strict=True)))
    return None


def _tuple(kind: Any, tree: tuple[Any, ...]) -> _Node:
    if kind is torch.Size:
        return _Node(tuple, (len(tree),), list(tree), _size)
    if hasattr(kind, "_fields"):
        return _Node(kind, (len(tree),), list(tree), kind._make)
    if hasattr(kind, "n_sequence_fields"):  # torch.return_types
        return _Node(kind, (len(tree),), list(tree), kind)
    return _Node(kind, (len(tree),), list(tree), lambda values: _plain(tree, values))


def _size(values: list[Any]) -> tuple[Any, ...]:
    """A size is of whole numbers alone: what is made of one may be none."""
    return torch.Size(values) if all(type(value) is int for value in values) else tuple(values)


def _plain(tree: tuple[Any, ...], values: list[Any]) -> Any:
    made = tuple.__new__(type(tree), values)
    if attributes := getattr(tree, "__dict__", None):
        made.__dict__.update(attributes)
    return made


def _list(tree: list[Any], values: list[Any]) -> Any:
    made = copy.copy(tree)
    made[:] = values
    return made


def _dict(tree: dict[Any, Any], values: list[Any]) -> Any:
    if type(tree) is dict:
        return dict(zip(tree, values, strict=True))
    made = copy.copy(tree)
    for key, value in zip(tree, values, strict=True):
        made[key] = value
    return made


def _with_fields(tree: Any, values: Iterable[tuple[str, Any]]) -> Any:
    made = copy.copy(tree)
    for name, value in values:
        object.__setattr__(made, name, value)  # of a frozen one, too
    return made
