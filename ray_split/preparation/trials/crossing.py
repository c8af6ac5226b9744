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
from ray_split.cutting.model_inputs import changed, revalued, values_of
from ray_split.errors import MISFITS, SettingsError, shown, told
from ray_split.messages.message import as_bits, leaves, send
from ray_split.messages.trees import structure
from ray_split.schedules import schedule_of
from ray_split.segments.device.computing import computing_of
from ray_split.segments.segment import call, learned_keys, tensors_of

OTHER = "Cut after another layer"
TREES = "a tensor, a number, or tuples, lists, dicts and dataclasses of them"


def check_crossing(settings: config.Config, segments: Segments, example: Any) -> None:
    """See that what crosses in a training step keeps its gradients and its type, and that weights can be kept."""
    _check_weights(settings, segments)
    crossing = _borders(settings, segments, example)
    for cut, outputs in crossing:
        for value in leaves(outputs):
            if problem := _problem(value):
                allowed = f"{OTHER}, or return {TREES} there"
                raise SettingsError("model.cuts", cut, allowed, f"can't cut after {shown(cut)}, because {problem}")
        _check_sent(cut, outputs)
    _check_shapes(settings, segments, example, crossing)


def _check_sent(cut: str, outputs: Any) -> None:
    """A message is pickled: a class that looks at its fields may not be one of arrays."""
    try:
        pickle.loads(pickle.dumps(send(outputs)))
    except MISFITS as error:
        kind = type(outputs).__name__
        wrong = f"can't cut after {shown(cut)}, because a {kind} crosses there, which can't be sent: {told(error)}"
        raise SettingsError("model.cuts", cut, OTHER, wrong) from error


def _check_shapes(settings: config.Config, segments: Segments, example: Any, crossing: list[tuple[str, Any]]) -> None:
    """Of batches of one size, messages of one structure and shape cross: what phones send is checked by it."""
    negative = [revalued(example, torch.neg)] if values_of(example).is_floating_point() else []
    others = (revalued(example, torch.zeros_like), changed(example, lambda x: x.flip(0)), *negative)
    each = [_borders(settings, segments, changed(batch, torch.clone)) for batch in others]
    for (cut, expected), *rest in zip(crossing, *each, strict=True):
        for _, found in rest:
            if _shape(found) != _shape(expected):
                wrong = f"can't cut after {shown(cut)}, because the shape of its output depends on samples' values"
                raise SettingsError("model.cuts", cut, OTHER, wrong)


def _shape(outputs: Any) -> Any:
    return structure(outputs), [tuple(x.shape) if isinstance(x, torch.Tensor) else type(x) for x in leaves(outputs)]


def check_values(settings: config.Config, segments: Segments, example: Any) -> None:
    """See that numbers that are no tensors are the same for all phones of a cohort: they have one of each."""
    if settings.phones.cohort == 1 and not schedule_of(settings.schedule).personal:
        return
    samples = [changed(example, lambda x, at=at: x[at].expand_as(x).clone()) for at in (0, -1)]  # type: ignore[misc]
    first, last = (_borders(settings, segments, sample) for sample in samples)
    for (cut, one), (_, other) in zip(first, last, strict=True):
        for a, b in zip(leaves(one), leaves(other), strict=False):
            if not isinstance(a, torch.Tensor) and not isinstance(b, torch.Tensor) and a is not b and a != b:
                values = f"{a!r:.40} for one phone and {b!r:.40} for another"
                wrong = f"can't cut after {shown(cut)}, because a number crosses there that is {values}"
                allowed = f"{OTHER}, return a tensor there, or set phones.cohort to 1"
                raise SettingsError("model.cuts", cut, allowed, wrong)


def _borders(settings: config.Config, segments: Segments, arrived: Any) -> list[tuple[str, Any]]:
    """What crosses after each cut's layer."""
    found, cuts = [], settings.model.cuts or []
    for cut, (name, module) in zip(cuts, segments.modules().items(), strict=False):
        module = copy.deepcopy(module).train(name not in settings.model.freeze)
        computing = computing_of(settings, name, schedule_of(settings.schedule).on_server)
        try:
            with torch.random.fork_rng(devices=[]), torch.no_grad(), computing.around(torch.device("cpu")):
                arrived = call(module, computing.taken(arrived))
        except MISFITS as error:
            wrong = f"with these cuts, segment {name.upper()} doesn't run in training: {told(error)}"
            raise SettingsError("model.cuts", cuts, OTHER, wrong) from error
        found.append((cut, arrived))
    return found


def _problem(value: Any) -> str | None:
    """Why a leaf can't cross, if so."""
    if isinstance(value, torch.Tensor):
        try:
            as_bits(value)
        except MISFITS as error:
            return f"a tensor there is not dense: {told(error)}"
        return None
    kind = type(value).__name__
    if isinstance(value, np.ndarray):
        return "a numpy array there would arrive as a tensor"
    finder = _Finder(io.BytesIO(), protocol=pickle.HIGHEST_PROTOCOL)
    try:
        finder.dump(value)
    except MISFITS as error:
        return f"a {kind} there can't be sent: {told(error)}"
    return f"tensors in a {kind} there would get no gradient" if finder.found else None


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
    optimizer = settings.optimizer.of(name)
    plain = optimizer.name == "sgd" and not optimizer.momentum + optimizer.weight_decay
    if name in settings.model.freeze or (plain and optimizer.clip_norm is None):
        return
    for layer, each in module.named_modules():
        if isinstance(each, (nn.Embedding, nn.EmbeddingBag)) and each.sparse and each.weight.requires_grad:
            wrong = f"can't be used with the sparse gradients of {layer}"
            instead = f"or set sparse=False in {layer}"
            if plain:
                do = f"Remove optimizer.clip_norm, {instead}"
                raise SettingsError("optimizer.clip_norm", optimizer.clip_norm, do, wrong)
            allowed = f"Use sgd without momentum and weight decay, {instead}"
            raise SettingsError("optimizer.name", optimizer.name, allowed, wrong)


def _check_weights(settings: config.Config, segments: Segments) -> None:
    for name, module in segments.modules().items():
        _check_sparse(settings, name, module)
        learned = learned_keys(module) if name not in settings.model.freeze else frozenset()
        for key, tensor in tensors_of(module).items():
            called = f"{str(tensor.dtype).removeprefix('torch.')} ({key.partition('/')[2]})"
            if tensor.dtype in (torch.complex128, torch.complex32):
                wrong = f"the model has weights of {called}, which checkpoints can't hold"
                raise SettingsError("model.name", settings.model.name, "Use complex64", wrong)
            if key in learned and "float8" in called:
                wrong = f"the model trains weights of {called}, which optimizers can't step"
                raise SettingsError("model.name", settings.model.name, "Use float32, or freeze that segment", wrong)
