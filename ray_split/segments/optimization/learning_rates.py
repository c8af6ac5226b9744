"""The learning rate of each step, where it has a schedule: torch's own schedulers, run on an optimizer of nothing.

What a scheduler sets follows from how often it has stepped alone, and so from where a step is in the run: whoever is
asked, for whichever segment, after a resume or not, finds the same.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer, lr_scheduler

from ray_split import config
from ray_split.arrays import Array
from ray_split.config.optimizer import CONSTANT, SCHEDULES
from ray_split.config.user_code.plugins import find
from ray_split.messages.turn import Turn
from ray_split.segments.optimization import optimizers

SCHEDULERS: dict[str, Callable[..., Any]] = {name: getattr(lr_scheduler, name) for name in SCHEDULES}


class LearningRates:
    """What a schedule sets of an optimizer at each count of steps, or of rounds: the lr, and of some the momentum."""

    def __init__(self, settings: config.Optimizer) -> None:
        self._settings, self._schedule = settings, settings.schedule
        self._optimizer = optimizers.new([nn.Parameter(torch.zeros(1))], settings)
        self._optimizer._opt_called = True  # type: ignore[attr-defined]  # else a warning: it never steps
        self._first = self._now()
        self._scheduler = scheduler(self._optimizer, self._schedule)
        self._rates, self._momenta = array("d"), array("d")
        self._record()

    @property
    def momentum(self) -> float:
        """The optimizer's before any schedule: of a class of the user's it may be a default of its own."""
        return self._first[1]

    @property
    def total_steps(self) -> int | None:
        """After how many steps (rounds) beyond the warm-up a scheduler ends, if it does."""
        return getattr(self._scheduler, "total_steps", None)

    def at(self, turn: Turn) -> Mapping[str, Any]:
        """What to set for the step of this turn. Raises ValueError beyond the last step that a schedule has."""
        return self.after(turn.round if self._schedule.per == "round" else turn.before + turn.update)

    def after(self, count: int) -> Mapping[str, Any]:
        """What to set for the step after so many of them, or in the round after so many."""
        warmup = self._schedule.warmup
        lr, momentum = self._first
        if count < warmup:
            return self._values(lr * (count + 1) / warmup, momentum)
        place = count - warmup
        while len(self._rates) <= place:
            self._scheduler.step()
            self._record()
        return self._values(self._rates[place], self._momenta[place])

    def _record(self) -> None:
        lr, momentum = self._now()
        self._rates.append(lr)
        self._momenta.append(momentum)

    def _now(self) -> tuple[float, float]:
        (group,) = self._optimizer.param_groups
        return float(group["lr"]), float(group["betas"][0] if "betas" in group else group.get("momentum", 0.0))

    def _values(self, lr: float, momentum: float) -> Mapping[str, Any]:
        (group,) = self._optimizer.param_groups
        if "betas" in group:
            return {"lr": lr, "betas": (momentum, *group["betas"][1:])}
        return {"lr": lr, "momentum": momentum} if "momentum" in group else {"lr": lr}


class _Constant:
    """A schedule that changes nothing, where there is a warm-up alone."""

    def step(self) -> None:
        """Nothing."""


def scheduler(optimizer: Optimizer, schedule: config.LrSchedule) -> Any:
    """torch's scheduler of an optimizer, or the user's. Raises what it raises, and SettingsError if there is none."""
    if schedule.name is None or schedule.name == CONSTANT:
        return _Constant()
    return find("optimizer.schedule.name", schedule.name, SCHEDULERS)(optimizer, **schedule.kwargs)


_MADE: dict[str, LearningRates] = {}


def rates_of(settings: config.Optimizer) -> LearningRates | None:
    """The one of this process, for all segments that have these settings; None if the lr is always the same."""
    if not settings.schedule.changes:
        return None
    key = settings.model_dump_json(include=set(config.Optimizer.model_fields))
    if key not in _MADE:
        _MADE[key] = LearningRates(settings)
    return _MADE[key]


def set_at(rates: LearningRates | None, turn: Turn | None) -> Mapping[str, Any] | None:
    """What a schedule sets for the step of a turn; None without one. Raises ValueError for a step without a turn."""
    if rates is None:
        return None
    if turn is None:
        raise ValueError("the learning rate has a schedule, and this step doesn't say where it is in the run")
    return rates.at(turn)


def length_of(settings: config.Optimizer, turn: Turn, steps: Array) -> Array:
    """How far plain SGD goes along a gradient that stays 1, in the `steps` (K,) that phones take in a turn's round."""
    rates = rates_of(settings)
    if rates is None:
        return np.asarray(steps * settings.lr)
    turn = turn._replace(accumulation=None)  # these are the optimizer's steps
    each = [float(rates.at(turn._replace(step=step))["lr"]) for step in range(int(np.max(steps, initial=0)))]
    return np.cumsum([0.0, *each])[steps]
