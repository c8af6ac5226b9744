"""What follows from the model: cohorts, what is stacked, and how `parallel` makes B's joint batch."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import nn

from ray_split import config, rule
from ray_split.cut import Segments
from ray_split.failure import MISFITS, SettingsError, told
from ray_split.maker import Maker
from ray_split.message import alike, leaves, send, tree_map
from ray_split.schedules import one_by_one
from ray_split.segment import call
from ray_split.state import Array

SEED = 1
CLOSE = 1e-3  # of outputs, relative and absolute: far more than rounding, far less than a layer computed wrongly


def settle(settings: config.Config, segments: Segments, example: torch.Tensor, per_round: int) -> config.Config:
    """The settings with cohort and stacked segments decided, by the shapes of a batch. Raises SettingsError."""
    phones = settings.phones
    if one_by_one(settings.schedule):
        for field, value, none in (("cohort", phones.cohort, ("auto", 1)), ("stacked", phones.stacked, (None, []))):
            if value not in none:
                allowed = f"left out: with {settings.schedule.name} phones train one by one"
                raise SettingsError(f"phones.{field}", value, allowed)
        return settings.with_values(phones={"cohort": 1, "stacked": []})
    modules, sizes, inputs = segments.modules(), {}, {}
    arrived: Any = example
    for name, module in modules.items():
        inputs[name] = arrived
        with torch.random.fork_rng(devices=[]):
            sizes[name], arrived = rule.sizes(copy.deepcopy(module).train(), arrived)
    stackable = _stackable(settings, modules, inputs, sizes)
    phones = rule.cohort(phones, sizes, per_round, stackable)
    settings = settings.with_values(phones={"cohort": phones.cohort, "stacked": phones.stacked})
    if settings.schedule.name != "parallel":
        return settings
    return _joint(settings, segments.b, (inputs["b"], inputs.get("c", arrived)), len(example))


def _stackable(
    settings: config.Config, modules: dict[str, nn.Module], inputs: dict[str, Any], sizes: dict[str, rule.Sizes]
) -> set[str]:
    """The segments to stack: those that were asked for, or whose shapes suit it and which torch can stack."""
    asked, phones = settings.phones.stacked, settings.phones
    if phones.cohort == 1:
        return set()
    names = [n for n in modules if n in asked] if asked is not None else [n for n in modules if rule.suits(sizes[n])]
    problems = {name: _why_not(Maker(name, modules[name], settings), inputs[name]) for name in names}
    for name in names:
        if problems[name] and asked is not None:
            allowed = f"without {name}, which can't be stacked: {problems[name]}"
            raise SettingsError("phones.stacked", asked, allowed)
    return {name for name in names if not problems[name]}


def _why_not(make: Maker, inputs: Any) -> str | None:
    """Why a segment can't be stacked, if so: two phones' outputs are compared with those of a loop."""
    group = tree_map(lambda x: _two(x) if isinstance(x, np.ndarray) else x, send(inputs))
    state, outputs = make.first_state(), []
    try:
        for copies in (make.looped(), make.stack()):
            copies.load(state, 2)
            with torch.random.fork_rng(devices=[]):
                outputs.append(copies.forward([group], [SEED, SEED + 1]))
    except MISFITS as error:
        return told(error)
    same = all(alike(a, b, CLOSE) for a, b in zip(*(leaves(o) for o in outputs), strict=True))
    return None if same else "stacked it computes something else"


def _two(one: Array) -> Array:
    return np.stack([one, one[::-1] if one.ndim else one])


def _joint(settings: config.Config, middle: nn.Module, borders: tuple[Any, Any], batch: int) -> config.Config:
    """Where B mixes the samples of a batch, `parallel` must make one batch of all phones'. Raises SettingsError."""
    kwargs = settings.schedule.kwargs
    if not mixes(middle, borders[0], batch) and kwargs.get("batch") != "joint":
        return settings.with_values(schedule={"kwargs": {"batch": "accumulated", **kwargs}})
    if kwargs.get("batch", "joint") != "joint":
        allowed = "batch: joint, because B mixes the samples of a batch (BatchNorm?)"
        raise SettingsError("schedule.kwargs", kwargs, allowed)
    if not all(_of_samples(x, batch) for x in leaves(borders)):
        allowed = "others: B mixes the samples of a batch, and what crosses isn't tensors that begin with the batch"
        raise SettingsError("model.cuts", settings.model.cuts, allowed)
    return settings.with_values(schedule={"kwargs": {**kwargs, "batch": "joint"}})


def _of_samples(value: Any, batch: int) -> bool:
    return isinstance(value, torch.Tensor) and value.dim() > 0 and len(value) == batch


def mixes(module: nn.Module, inputs: Any, batch: int) -> bool:
    """Whether in train mode a sample's output depends on the other samples of its batch.

    Where what arrives begins otherwise than with the batch, only BatchNorm is known to.
    """
    if any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in module.modules()):
        return True
    tensors = [x for x in leaves(inputs) if isinstance(x, torch.Tensor)]
    of_samples = [_of_samples(x, batch) for x in tensors]
    if not any(of_samples) or any(batch in x.shape for x, own in zip(tensors, of_samples, strict=True) if not own):
        return False

    def first(inputs: Any) -> list[Any]:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(SEED)
            outputs = call(copy.deepcopy(module).train(), inputs)
        return [x[0] if isinstance(x, torch.Tensor) and x.dim() else x for x in leaves(outputs)]

    same = tree_map(lambda x: x[:1].expand_as(x) if _of_samples(x, batch) else x, inputs)
    return not all(alike(a, b, CLOSE) for a, b in zip(send(first(inputs)), send(first(same)), strict=True))
