"""Hooks on parameters, which torch leaves out of copies: segments, and each phone's copies of them, have them too.

A hook is called with the gradient of one phone's batch: so hooked segments are looped, not stacked.
"""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import nn

Module = TypeVar("Module", bound=nn.Module)


def copied(module: Module) -> Module:
    """A deep copy whose parameters have the hooks of the module's: the same functions, which are not copied."""
    made = copy.deepcopy(module)
    own = dict(made.named_parameters())
    for name, parameter in module.named_parameters():
        if _is_hooked(parameter):
            _hand_on(parameter, own[name])
    return made


def first_hooked(module: nn.Module) -> str | None:
    """The name of the first trained parameter that has hooks, if one has."""
    return next((n for n, p in module.named_parameters() if p.requires_grad and _is_hooked(p)), None)


def _is_hooked(parameter: nn.Parameter) -> bool:
    return bool(parameter._backward_hooks or parameter._post_accumulate_grad_hooks)


def _hand_on(parameter: nn.Parameter, own: nn.Parameter) -> None:
    trained, own.requires_grad = own.requires_grad, True  # hooks may be older than the parameter's being frozen
    for hook in (parameter._backward_hooks or {}).values():
        own.register_hook(hook)  # type: ignore[no-untyped-call]
    for after in (parameter._post_accumulate_grad_hooks or {}).values():
        own.register_post_accumulate_grad_hook(after)  # type: ignore[no-untyped-call]
    own.requires_grad = trained
