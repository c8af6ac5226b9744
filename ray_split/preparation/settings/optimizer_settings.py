"""Whether the optimizers that the settings name can be made, and go on after a hand-over as if there was none."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer

from ray_split import config
from ray_split.config.optimizer import COMPUTED
from ray_split.config.user_code.by_value import spoken
from ray_split.config.user_code.plugins import called, signature_of, unknown_kwargs
from ray_split.cutting.cut import Segments
from ray_split.data.stream import Stream
from ray_split.errors import BROKEN, SettingsError, listed, shown, told
from ray_split.messages.state import State
from ray_split.messages.turn import Turn
from ray_split.schedules import schedule_of
from ray_split.segments.copy_factory import CopyFactory
from ray_split.segments.optimization import optimizers
from ray_split.segments.optimization.learning_rates import SCHEDULERS, LearningRates
from ray_split.segments.segment import Segment

SEED, STEPS = 1, 2


def check_optimizers(settings: config.Config) -> None:
    """See that each segment's optimizer can be made with what is said of it. Raises SettingsError."""
    _check_clip(settings)
    _check_accumulate(settings)
    _check_ema(settings)
    for segment in "abc":
        own = settings.optimizer.of(segment)
        kind = optimizers.class_of(own)
        _check_fields(settings, segment, own, signature_of("optimizer.name", kind))
        field = _field(settings, segment, "kwargs" if own.kwargs else "name")
        if own.kwargs.get("dampening") and schedule_of(settings.schedule).personal:
            name = spoken(settings.schedule.name)
            wrong = f"can't have dampening with schedule.name {name}, where phones keep their own weights"
            raise SettingsError(field, own.kwargs, "Remove dampening", wrong)
        try:
            _try(own)
        except BROKEN as error:
            value = own.kwargs or own.name
            wrong = f"{spoken(own.name)} failed{f' with {shown(own.kwargs)}' if own.kwargs else ''}: {told(error)}"
            allowed = "Change these arguments" if own.kwargs else "Fix it, or choose another optimizer"
            raise SettingsError(field, value, allowed, wrong) from error
        if own.schedule.changes:
            _check_schedule(settings, segment, own)


def _check_schedule(settings: config.Config, segment: str, own: config.Optimizer) -> None:
    field, said = _schedule_field(settings, segment), own.schedule
    kind, takes = SCHEDULERS.get(str(said.name)), "Change these arguments"
    if kind is not None:
        known = [name for name in inspect.signature(kind).parameters if name not in ("optimizer", "last_epoch")]
        takes = f"{said.name} takes {listed(known)}"
        for name in said.kwargs:
            if name not in known:
                raise unknown_kwargs(f"{field}.kwargs", kind, [name], known)
        _check_given(f"{field}.kwargs", kind, said.kwargs)
    try:
        rates = LearningRates(own)
        moved = rates.after(said.warmup).get("momentum", rates.momentum) != rates.momentum
    except SettingsError:
        raise
    except BROKEN as error:
        wrong = f"{spoken(str(said.name))} of {spoken(own.name)} failed with {shown(said.kwargs)}: {told(error)}"
        raise SettingsError(f"{field}.kwargs", said.kwargs, takes, wrong) from error
    if moved and not rates.momentum:
        wrong = f"is 0, but {spoken(str(said.name))} changes the momentum"
        allowed = "Set a momentum greater than 0, or cycle_momentum: false in schedule.kwargs"
        raise SettingsError(_field(settings, segment, "momentum"), own.momentum, allowed, wrong)


def _check_given(field: str, kind: Callable[..., Any], kwargs: dict[str, Any]) -> None:
    """See that a scheduler of torch's has what it can't do without."""
    parameters = inspect.signature(kind).parameters.values()
    needed = [p.name for p in parameters if p.default is p.empty and p.name not in ("optimizer", *kwargs)]
    if needed:
        example = ", ".join(f"{name}: VALUE" for name in needed)
        raise SettingsError(field, kwargs, f"Add --{field} '{{{example}}}'", f"{called(kind)} needs {listed(needed)}")


def check_end(settings: config.Config, stream: Stream) -> None:
    """See that a schedule that has an end is as long as the run. Raises SettingsError."""
    for segment in "abc":
        own = settings.optimizer.of(segment)
        total = LearningRates(own).total_steps if own.schedule.changes else None
        if total is None:
            continue
        rounds, per = settings.run.rounds, own.schedule.per
        needed = (rounds if per == "round" else stream.steps_before(rounds)) - own.schedule.warmup - 1
        if needed > total:
            field = f"{_schedule_field(settings, segment)}.kwargs"
            wrong = f"total_steps is too small, because the run has {needed} {per}s after the warm-up"
            raise SettingsError(field, own.schedule.kwargs, f"Set total_steps to {needed} or more", wrong)


def _schedule_field(settings: config.Config, segment: str) -> str:
    own = getattr(settings.optimizer, segment).schedule
    return "optimizer.schedule" if own == config.LrSchedule() else f"optimizer.{segment}.schedule"


def _try(own: config.Optimizer) -> None:
    """Make it, and see what it remembers of a weight."""
    made = optimizers.new([torch.nn.Parameter(torch.ones(optimizers.SHAPE))], own)
    if not isinstance(made, Optimizer):
        raise TypeError(f"it makes a {type(made).__name__}, and no torch.optim.Optimizer")
    optimizers.probed(own)


def _check_clip(settings: config.Config) -> None:
    said, name = settings.optimizer, settings.schedule.name
    own = [segment for segment in "abc" if getattr(said, segment).clip_norm is not None]
    if own and said.clip == "model":
        wrong = f"can't be model where optimizer.{own[0]}.clip_norm is set, which is of one segment"
        raise SettingsError(
            "optimizer.clip",
            said.clip,
            f"Set optimizer.clip to segment, or set optimizer.clip_norm instead of optimizer.{own[0]}.clip_norm",
            wrong,
        )
    if said.clips_model and not schedule_of(settings.schedule).clips:
        wrong = f"can't be model with schedule.name {spoken(name)}, where the whole gradient's norm isn't known"
        raise SettingsError("optimizer.clip", said.clip, "Set optimizer.clip to segment", wrong)


def _check_accumulate(settings: config.Config) -> None:
    batches, named = settings.data.accumulate, settings.schedule.name
    schedule = schedule_of(settings.schedule)
    if batches > 1 and not schedule.accumulates:
        joint = schedule.joint_batch
        why = (
            "where a step is of all phones' batches"
            if joint
            else "which doesn't say accumulates=True in its rs.Schedule"
        )
        do = (
            "Set data.batch_size instead"
            if joint
            else "Remove data.accumulate, or say so if its turns tell what is accumulated"
        )
        wrong = f"can't be used with schedule.name {spoken(named)}, {why}"
        raise SettingsError("data.accumulate", batches, do, wrong)


def _check_ema(settings: config.Config) -> None:
    decay = settings.optimizer.ema_decay
    if decay is not None and schedule_of(settings.schedule).personal:
        name = spoken(settings.schedule.name)
        wrong = f"can't be used with schedule.name {name}, where every phone keeps its own weights"
        raise SettingsError("optimizer.ema_decay", decay, "Remove optimizer.ema_decay", wrong)


def _check_fields(settings: config.Config, segment: str, own: config.Optimizer, takes: inspect.Signature) -> None:
    names = takes.parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in names.values()):
        known = [name for name in names if name not in ("params", *COMPUTED)]
        for name in own.kwargs:
            if name not in names:
                field = _field(settings, segment, "kwargs")
                raise unknown_kwargs(field, optimizers.class_of(own), [name], known)
    for name in ("momentum", "weight_decay"):
        if getattr(own, name) and name not in names:
            wrong = f"can't be used with {spoken(own.name)}, which has no {name}"
            allowed = f"Remove {name}, or choose another optimizer"
            raise SettingsError(_field(settings, segment, name), getattr(own, name), allowed, wrong)


def _field(settings: config.Config, segment: str, name: str) -> str:
    """Where it was said: of this segment, or of all."""
    own = getattr(getattr(settings.optimizer, segment), name)
    return f"optimizer.{name}" if own is None else f"optimizer.{segment}.{name}"


def try_hand_over(settings: config.Config, segments: Segments) -> None:
    """See that a class of the user's goes on as if there was no hand-over, checkpoint or resume. Raises SettingsError.

    What torch's own remember is known: of each weight tensors like it, and numbers.
    """
    for name, module in segments.modules().items():
        make = CopyFactory(name, module, settings)
        own = settings.optimizer.of(name)
        if own.name in optimizers.TORCHS or not make.trains:
            continue
        try:
            problem = _problem(make)
        except BROKEN as error:
            problem = f"a step raised {told(error)}"
        if problem:
            wrong = f"{spoken(own.name)} can't be used in segment {name}, because {problem}"
            raise SettingsError(_field(settings, name, "name"), own.name, "Fix it, or choose another optimizer", wrong)


def _problem(make: CopyFactory) -> str | None:
    one, other = make.segment(), make.segment()
    for step in range(STEPS):
        _step(one, step)
    other.load(one.state())
    for segment in (one, other):
        _step(segment, STEPS)
    if _bits(one.state()) == _bits(other.state()):
        return None
    return "after its state is handed to another phone it steps differently"


def _step(segment: Segment, step: int) -> None:
    draw = torch.Generator().manual_seed(SEED + step)
    for parameter in segment.module.parameters():
        if parameter.requires_grad:
            drawn = torch.randn(parameter.shape, generator=draw, dtype=torch.double)
            parameter.grad = drawn.to(parameter.dtype).to(parameter.device)
    segment.step(Turn(0, 0, (0,), step), norm=1.0)


def _bits(state: State) -> dict[str, Any]:
    return {key: (array.dtype.str, array.shape, array.tobytes()) for key, array in state.items()}
