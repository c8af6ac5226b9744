"""What may cross a cut, and of what types weights may be: tried before an actor starts. Raises SettingsError."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import numpy as np
import torch
from torch import nn

from ray_split import config
from ray_split.cutting.cut import Segments
from ray_split.errors import MISFITS, SettingsError, told
from ray_split.messages.message import as_bits, leaves, send
from ray_split.messages.trees import structure
from ray_split.schedules import schedule_of
from ray_split.segments.segment import call, learned_keys, tensors_of

TREES = "a tensor, a number, or tuples, lists, dicts and dataclasses of them"


def check_crossing(settings: config.Config, segments: Segments, example: torch.Tensor) -> None:
    """See that what crosses in a training step keeps its gradients and its type, and that weights can be kept."""
    _check_weights(settings, segments)
    crossing = _borders(settings, segments, example)
    for cut, outputs in crossing:
        for value in leaves(outputs):
            if problem := _problem(value):
                raise SettingsError("model.cuts", cut, f"another layer, or a model in which {TREES} cross: {problem}")
        _check_sent(cut, outputs)
    _check_shapes(settings, segments, example, crossing)


def _check_sent(cut: str, outputs: Any) -> None:
    """A message is pickled: a class that looks at its fields may not be one of arrays."""
    try:
        pickle.loads(pickle.dumps(send(outputs)))
    except MISFITS as error:
        kind = type(outputs).__name__
        raise SettingsError("model.cuts", cut, f"another layer: a {kind} can't be sent: {told(error)}") from error


def _check_shapes(
    settings: config.Config, segments: Segments, example: torch.Tensor, crossing: list[tuple[str, Any]]
) -> None:
    """Of batches of one size, messages of one structure and shape cross: what phones send is checked by it."""
    others = (torch.zeros_like(example), example.flip(0), *((-example,) if example.is_floating_point() else ()))
    each = [_borders(settings, segments, batch.clone()) for batch in others]
    for (cut, expected), *rest in zip(crossing, *each, strict=True):
        for _, found in rest:
            if _shape(found) != _shape(expected):
                allowed = (
                    "another layer: the shape or structure of what crosses there follows from the samples, and not"
                )
                raise SettingsError("model.cuts", cut, f"{allowed} from their number alone")


def _shape(outputs: Any) -> Any:
    return structure(outputs), [tuple(x.shape) if isinstance(x, torch.Tensor) else type(x) for x in leaves(outputs)]


def check_values(settings: config.Config, segments: Segments, example: torch.Tensor) -> None:
    """See that numbers that are no tensors are the same for all phones of a cohort: they have one of each."""
    if settings.phones.cohort == 1 and not schedule_of(settings.schedule).personal:
        return
    samples = (example[:1], example[-1:])
    first, last = (_borders(settings, segments, sample.expand_as(example).clone()) for sample in samples)
    for (cut, one), (_, other) in zip(first, last, strict=True):
        for a, b in zip(leaves(one), leaves(other), strict=False):
            if not isinstance(a, torch.Tensor) and not isinstance(b, torch.Tensor) and a is not b and a != b:
                allowed = f"another layer: of one batch {a!r:.40} crosses, of another {b!r:.40}, and phones of a cohort"
                raise SettingsError("model.cuts", cut, f"{allowed} have one of it; return a tensor, or phones.cohort 1")


def _borders(settings: config.Config, segments: Segments, arrived: Any) -> list[tuple[str, Any]]:
    """What crosses after each cut's layer."""
    found, cuts = [], settings.model.cuts or []
    for cut, (name, module) in zip(cuts, segments.modules().items(), strict=False):
        module = copy.deepcopy(module).train(name not in settings.model.freeze)
        try:
            with torch.random.fork_rng(devices=[]), torch.no_grad():
                arrived = call(module, arrived)
        except MISFITS as error:
            allowed = f"others: cut here, part {name.upper()} does not run in training: {told(error)}"
            raise SettingsError("model.cuts", cuts, allowed) from error
        found.append((cut, arrived))
    return found


def _problem(value: Any) -> str | None:
    """Why a leaf can't cross, if so."""
    if isinstance(value, torch.Tensor):
        try:
            as_bits(value)
        except MISFITS as error:
            return f"one tensor is not dense: {told(error)}"
        return None
    kind = type(value).__name__
    if isinstance(value, np.ndarray):
        return "numpy's array would arrive as a tensor"
    finder = _Finder(io.BytesIO(), protocol=pickle.HIGHEST_PROTOCOL)
    try:
        finder.dump(value)
    except MISFITS as error:
        return f"a {kind} can't be sent: {told(error)}"
    return f"tensors in a {kind} would get no gradient" if finder.found else None


class _Finder(pickle.Pickler):
    """Looks for tensors in an object."""

    found = False

    def persistent_id(self, value: Any) -> str | None:
        """Called by pickle for everything in an object."""
        if not isinstance(value, torch.Tensor):
            return None
        self.found = True
        return "tensor"


def _check_sparse(settings: config.Config, name: str, module: nn.Module) -> None:
    """Gradients of nn.Embedding(sparse=True) suit plain SGD alone."""
    optimizer = settings.optimizer
    if name in settings.model.freeze or (optimizer.name == "sgd" and not optimizer.momentum + optimizer.weight_decay):
        return
    for layer, each in module.named_modules():
        if isinstance(each, (nn.Embedding, nn.EmbeddingBag)) and each.sparse and each.weight.requires_grad:
            allowed = f"sgd without momentum and weight decay: {layer} has sparse gradients (or give it sparse=False)"
            raise SettingsError("optimizer.name", optimizer.name, allowed)


def _check_weights(settings: config.Config, segments: Segments) -> None:
    for name, module in segments.modules().items():
        _check_sparse(settings, name, module)
        learned = learned_keys(module) if name not in settings.model.freeze else frozenset()
        for key, tensor in tensors_of(module).items():
            shown = f"{str(tensor.dtype).removeprefix('torch.')} ({key.partition('/')[2]})"
            if tensor.dtype in (torch.complex128, torch.complex32):
                allowed = f"a model without weights of {shown}: checkpoints are safetensors, which have complex64 alone"
                raise SettingsError("model.name", settings.model.name, allowed)
            if key in learned and "float8" in shown:
                raise SettingsError("model.name", settings.model.name, f"a model that trains no weights of {shown}")
