"""What the settings name is there, fits the schedule, and works: seen before an actor starts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ray_split import config
from ray_split.algorithms import (
    ALGORITHMS,
    SERVER_OPTIMIZERS,
    algorithm_of,
    correct_of,
    encoder,
    named_algorithm,
    server_optimizer_of,
)
from ray_split.algorithms.algorithm import Algorithm
from ray_split.arrays import Array
from ray_split.config.user_code import by_value
from ray_split.config.user_code.plugins import blamed, called, signature_of, unknown_kwargs
from ray_split.errors import SettingsError, listed, shown
from ray_split.schedules.schedule import Schedule
from ray_split.segments import aggregators


def check(settings: config.Config, schedule: Schedule) -> None:
    """Raises SettingsError for an algorithm, or a server optimizer, that isn't there, or can't be what it is to be."""
    _check_algorithm(settings, schedule)
    _check_server_optimizer(settings, schedule)


def _check_algorithm(settings: config.Config, schedule: Schedule) -> None:
    named, algorithm = settings.algorithm, named_algorithm(settings.algorithm)
    if algorithm is None:
        _no_kwargs("algorithm", named.kwargs)
        return
    given = 5 if algorithm.remember is not None and algorithm.contrast is None else 3
    _check_kwargs("algorithm", named.name, algorithm.contrast or algorithm.correct or nothing, given, named.kwargs)
    if problem := _misfit(settings, algorithm, schedule):
        raise SettingsError("algorithm.name", named.name, *problem)
    _try_algorithm(named, algorithm)


REMOVE = "Remove algorithm.name"


def _misfit(settings: config.Config, algorithm: Algorithm, schedule: Schedule) -> tuple[str, str] | None:
    """What to do, and why an algorithm is none for these settings; None if it is one."""
    cant = f"{by_value.spoken(str(settings.algorithm.name))} can't be used"
    name, corrected = settings.schedule.name, schedule.averaged - frozenset(settings.model.freeze)
    if not schedule.averaged:
        do = f"{REMOVE}, or choose another schedule, such as fedavg"
        return do, f"{cant} with schedule.name {name}, where nothing is averaged and so phones don't drift apart"
    if not corrected:
        parts = " and ".join(sorted(schedule.averaged)).upper()
        wrong = f"{cant}, because with schedule.name {name} it corrects only {parts}, which model.freeze freezes"
        return f"{REMOVE}, or freeze fewer segments", wrong
    if algorithm.contrast is not None and schedule.on_server:
        wrong = (
            f"{cant} with schedule.name {name}, because the part of the model on the server would have to be run three "
            f"times in each exchange"
        )
        return "Set schedule.name to fedavg, or remove algorithm.name", wrong
    if algorithm.contrast is not None and algorithm_of(settings.algorithm) and not encoder(settings, corrected):
        wrong = f"{cant}, because model.freeze freezes all segments that it would change (those before the last)"
        return f"{REMOVE}, or freeze fewer segments", wrong
    if algorithm.remember is not None and not schedule.remembers:
        wrong = f"{cant} with schedule.name {name}, which doesn't hand on what phones remember"
        return f"{REMOVE}, or set remembers=True in the schedule's rs.Schedule and hand it on", wrong
    if algorithm.follow is not None and settings.server_optimizer.name is not None:
        wrong = (
            f"{cant} with server_optimizer.name {settings.server_optimizer.name}, because it has its own server step"
        )
        return "Remove one of the two", wrong
    return _misfit_of_mean(settings, algorithm) or _misfit_of_optimizer(settings, algorithm, corrected)


def _misfit_of_mean(settings: config.Config, algorithm: Algorithm) -> tuple[str, str] | None:
    if algorithm.remember is None or aggregators.aggregator_of(settings.aggregator).by_sums:
        return None
    wrong = (
        f"{by_value.spoken(str(settings.algorithm.name))} can't be used with aggregator.name {settings.aggregator.name}"
    )
    return "Remove aggregator.name (the default is mean), or remove algorithm.name", wrong


def _misfit_of_optimizer(
    settings: config.Config, algorithm: Algorithm, corrected: frozenset[str]
) -> tuple[str, str] | None:
    for segment in sorted(corrected) if algorithm.optimizer == "sgd" else ():
        own = settings.optimizer.of(segment)
        if own.name != "sgd" or own.momentum or own.kwargs.get("maximize"):
            instead = own.name if own.name != "sgd" else f"momentum {own.momentum:g}" if own.momentum else "maximize"
            whose = "" if own == settings.optimizer.of("b") else f" in segment {segment.upper()}"
            name = by_value.spoken(str(settings.algorithm.name))
            wrong = (
                f"{name} can't be used with {instead}{whose}, because it computes gradients from how far phones moved"
            )
            return f"Use sgd without momentum{whose}, or remove algorithm.name", wrong
    return None


def _check_server_optimizer(settings: config.Config, schedule: Schedule) -> None:
    named, optimizer = settings.server_optimizer, server_optimizer_of(settings.server_optimizer)
    if optimizer is None:
        _no_kwargs("server_optimizer", named.kwargs)
        if named.lr is not None:
            raise SettingsError(
                "server_optimizer.lr", named.lr, *_without_name("server_optimizer", "server_optimizer.lr")
            )
        return
    if not schedule.averaged:
        wrong = f"can't be used with schedule.name {settings.schedule.name}, where nothing is averaged"
        do = "Remove server_optimizer.name, or choose another schedule, such as fedavg"
        raise SettingsError("server_optimizer.name", named.name, do, wrong)
    _check_kwargs("server_optimizer", named.name, optimizer.step, 3, named.kwargs)
    change = np.array([0.5, -0.25, 0.0])
    with blamed("server_optimizer.name", str(named.name), named.kwargs):
        memory: dict[str, Any] = {}
        for _ in range(2):
            step, memory = optimizer.step(change, memory, optimizer.lr, **named.kwargs)
        right = _is_step(step, memory, change)
    if not right:
        do = "Return (step, memory): an array shaped like change, and a dict of arrays of that shape"
        raise SettingsError("server_optimizer.name", named.name, do, f"{_said(named)} returned something else")


def _is_step(step: Any, memory: Any, change: Array) -> bool:
    arrays = [step, *memory.values()]
    return all(isinstance(array, np.ndarray) and array.shape == change.shape for array in arrays)


def _try_algorithm(named: config.Algorithm, algorithm: Algorithm) -> None:
    """See that it gives gradients for gradients, and what phones are to remember."""
    if algorithm.correct is None:
        _try_contrast(named, algorithm)
        return
    correct = correct_of(named) or correct_of(named.model_copy(update={"kwargs": _on(named.kwargs, algorithm)}))
    assert correct is not None
    phones = (2,) if algorithm.elementwise else ()
    weights, start, gradients = _tensors(1, phones), _tensors(2), _tensors(3, phones)
    before = {name: weight.clone() for name, weight in weights.items()}
    with blamed("algorithm.name", str(named.name), named.kwargs):
        found = correct(gradients, weights, start, _tensors(4, phones), _tensors(5))
        shapes = {name: tuple(tensor.shape) for name, tensor in found.items()}
        remembered = _remembered(named, algorithm)
        followed = algorithm.follow is None or _is_step(
            *algorithm.follow(np.ones(3), {}, 0.5, **named.kwargs), np.ones(3)
        )
    if shapes != {name: tuple(tensor.shape) for name, tensor in gradients.items()}:
        do = "Return a dict with the same keys as gradients, each with a tensor of the same shape"
        raise SettingsError("algorithm.name", named.name, do, f"{_said(named)} returned {_of_shapes(shapes)}")
    if not all(torch.equal(weight, before[name]) for name, weight in weights.items()):
        do = "Return new gradients, and leave the weights as they are"
        raise SettingsError("algorithm.name", named.name, do, f"{_said(named)} changed the weights it was given")
    if not (remembered and followed):
        wrong = f"remember or follow of {_said(named)} returned arrays of other shapes than it was given"
        raise SettingsError("algorithm.name", named.name, "Return arrays of the shapes given", wrong)


def _try_contrast(named: config.Algorithm, algorithm: Algorithm) -> None:
    """See that it gives each phone a number that has a gradient."""
    z, *others = (torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(seed)) for seed in range(3))
    z.requires_grad_()
    with blamed("algorithm.name", str(named.name), named.kwargs):
        found: Any = algorithm.contrast(z, *others, **named.kwargs) if algorithm.contrast else None
    if not isinstance(found, torch.Tensor) or found.shape != (2,) or not found.requires_grad:
        wrong = f"contrast of {_said(named)} didn't return one number for each phone, with a gradient"
        do = "Return a tensor with one number for each phone, computed with torch functions from z"
        raise SettingsError("algorithm.name", named.name, do, wrong)


def _said(named: config.Algorithm | config.ServerOptimizer) -> str:
    return by_value.spoken(str(named.name))


def _of_shapes(shapes: dict[str, tuple[int, ...]]) -> str:
    return shown(shapes) if shapes else "an empty dict"


def nothing(gradients: Any, weights: Any, start: Any) -> Any:
    """An algorithm that does nothing."""
    return gradients


def _on(kwargs: dict[str, Any], algorithm: Algorithm) -> dict[str, Any]:
    """The kwargs with which it does something."""
    return {name: 1.0 if name == algorithm.off else value for name, value in kwargs.items()}


def _tensors(seed: int, phones: tuple[int, ...] = ()) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {name: torch.randn(*phones, *shape, generator=draw) for name, shape in (("weight", (3, 2)), ("bias", (3,)))}


def _remembered(named: config.Algorithm, algorithm: Algorithm) -> bool:
    if algorithm.remember is None:
        return True
    rows, one, length = np.ones((2, 3)), np.ones(3), np.ones((2, 1))
    return np.shape(algorithm.remember(rows, one, one, rows, length, **named.kwargs)) == rows.shape


def _no_kwargs(section: str, kwargs: dict[str, Any]) -> None:
    if kwargs:
        raise SettingsError(f"{section}.kwargs", kwargs, *_without_name(section, f"{section}.kwargs"))


def _without_name(section: str, field: str) -> tuple[str, str]:
    """What to do, and what is wrong, where a field is set and the name that it belongs to is not."""
    known = SERVER_OPTIMIZERS if section == "server_optimizer" else ALGORITHMS
    names = listed([*known, "your own package.module:function"], "or")
    return f"Set {section}.name to {names}, or remove {field}", f"is set, but {section}.name is not"


def _check_kwargs(
    section: str, name: str | None, function: Callable[..., Any], given: int, kwargs: dict[str, Any]
) -> None:
    parameters = list(signature_of(f"{section}.name", function).parameters.values())[given:]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    known = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
    unknown = [name for name in kwargs if name not in known]
    if unknown and not takes_any:
        raise unknown_kwargs(f"{section}.kwargs", str(name), unknown, known)
    missing = [
        p.name for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]
    if left := [name for name in missing if name not in kwargs]:
        wrong = f"{called(function)} needs {listed(left)}"
        example = ", ".join(f"{each}: VALUE" for each in left)
        raise SettingsError(f"{section}.kwargs", kwargs, f"Add --{section}.kwargs '{{{example}}}'", wrong)
