"""What copies of a model would lose: memory that two tensors share, and references back to the model in functions.

Phones train copies. copy.deepcopy gives each parameter memory of its own, and leaves functions as they are: what such
a function uses of the model it was made in (a closure, a weak reference) is the first model's for ever.
"""

from __future__ import annotations

import functools
import itertools
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from types import FunctionType, MethodType
from typing import Any, NamedTuple

import torch
from torch import nn

from ray_split.errors import SettingsError

DEPTH = 6
LONGEST = 10_000  # items of a container that are looked at
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
INTERNAL = frozenset(vars(nn.Module()))  # torch's own bookkeeping
OLD_NORMS = ("_orig", "_g")  # torch's old spectral_norm and weight_norm keep beside these what they compute of them


class Reference(NamedTuple):
    """A module or tensor that a layer refers to otherwise than as its child, parameter or buffer."""

    attribute: str
    target: nn.Module | torch.Tensor
    is_kept: bool  # whether it stays with the original when the layer is copied


def references_of(module: nn.Module) -> Iterator[Reference]:
    """Those of one layer, without its children's."""
    plain = own_attributes(module)
    hooks = [("a hook", hook) for kind in HOOKS for hook in (getattr(module, kind, None) or {}).values()]
    for name, value in [*plain, *hooks]:
        for target, is_kept in _reached(value, set(), DEPTH, False):
            if target is not module or is_kept:
                yield Reference(name, target, is_kept)


def own_attributes(module: nn.Module) -> list[tuple[str, Any]]:
    """A layer's plain attributes; none of torch's own layers, which know how to be copied."""
    if type(module).__module__.startswith("torch."):
        return []
    return [(name, value) for name, value in vars(module).items() if name not in INTERNAL]


def _reached(value: Any, seen: set[int], depth: int, is_kept: bool) -> Iterator[tuple[nn.Module | torch.Tensor, bool]]:
    if isinstance(value, (nn.Module, torch.Tensor)):
        yield value, is_kept
        return
    if id(value) in seen or not depth or isinstance(value, (str, bytes, int, float, type)):
        return
    seen.add(id(value))
    if isinstance(value, weakref.ref):
        found = value()
        within, is_kept = [found] if found is not None else [], True
    elif isinstance(value, FunctionType):
        within, is_kept = (
            [*cells_of(value).values(), *(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()],
            True,
        )
    elif isinstance(value, MethodType):
        within = [value.__self__]
    elif isinstance(value, functools.partial):
        within = [value.func, *value.args, *value.keywords.values()]
    elif isinstance(value, dict):
        within = list(itertools.islice(value.values(), LONGEST))
    elif isinstance(value, (list, tuple, set, frozenset, deque)):
        within = list(itertools.islice(value, LONGEST))
    else:
        within = [*vars(value).values()] if hasattr(value, "__dict__") else []
        within += [getattr(value, name) for name in slots_of(value) if hasattr(value, name)]
    for item in within:
        yield from _reached(item, seen, depth - 1, is_kept)


def slots_of(value: Any) -> list[str]:
    """The names of an object's slots."""
    found: list[str] = []
    for kind in type(value).__mro__:
        names = vars(kind).get("__slots__", ())
        found += [names] if isinstance(names, str) else list(names)
    return [name for name in found if name not in ("__dict__", "__weakref__")]


def cells_of(function: FunctionType) -> dict[str, Any]:
    """What a function's closure holds, by the variables' names."""
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with suppress(ValueError):  # it is empty
            found[name] = cell.cell_contents
    return found


def check_references(name: str, model: nn.Module) -> None:
    """Raises SettingsError for a model whose copies would train something else, naming what and where."""
    own = names_of(model)
    held: dict[int, tuple[str, torch.Tensor]] = {}
    for key, tensor in registered(model):
        _check_memory(name, held, key, tensor)
    for layer, module in model.named_modules():
        for reference in references_of(module):
            where, target = f"{layer}.{reference.attribute}".lstrip("."), reference.target
            if reference.is_kept and id(target) in own:
                what = own[id(target)] or "the model itself"
                wrong = f"{where} holds a function or weak reference to {what}, so copies would use the first model's"
                raise SettingsError("model.name", name, "Make the function a method of the layer", wrong)
            if isinstance(target, torch.Tensor) and id(target) not in own and not _is_old_norm(module, reference):
                _check_memory(name, held, where, target)


def names_of(model: nn.Module) -> dict[int, str]:
    """The names of a model's layers, parameters and buffers, by their ids."""
    found = {id(module): layer for layer, module in model.named_modules()}
    return found | {id(tensor): key for key, tensor in registered(model)}


def registered(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """A model's parameters and buffers, each once."""
    yield from model.named_parameters()
    yield from model.named_buffers()


def _is_old_norm(module: nn.Module, reference: Reference) -> bool:
    return any(f"{reference.attribute}{ending}" in module._parameters for ending in OLD_NORMS)


def _check_memory(name: str, held: dict[int, tuple[str, torch.Tensor]], key: str, tensor: torch.Tensor) -> None:
    """A parameter shares its memory with nothing else; constants may with each other."""
    if tensor.layout is not torch.strided or tensor.is_meta or not tensor.numel():
        return
    memory = tensor.untyped_storage().data_ptr()
    other, there = held.setdefault(memory, (key, tensor))
    if there is not tensor and any(isinstance(each, nn.Parameter) for each in (there, tensor)):
        wrong = f"{other} and {key} share their memory, but in a copy of the model they would not"
        hint = "Tie them as one parameter (self.c.weight = self.b.weight), and make views in forward"
        raise SettingsError("model.name", name, hint, wrong)
