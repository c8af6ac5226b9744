"""The settings of the optimizers: one for all segments, and what a segment has of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError, ValidationInfo, field_validator

from ray_split.config.fields import MOST, Mapping, NotNegative, Positive, Section
from ray_split.config.user_code.by_value import OR_GIVEN
from ray_split.config.user_code.plugins import suggest
from ray_split.config.validation import one_line
from ray_split.errors import SettingsError, listed, shown

NAMES = (
    *("sgd", "adam", "adamw", "nadam", "radam", "rmsprop"),
    *("adagrad", "adadelta", "adamax", "rprop"),
)
MOMENTUM = ("sgd", "rmsprop")
SCHEDULES = (
    *("StepLR", "MultiStepLR", "ConstantLR", "LinearLR", "ExponentialLR", "PolynomialLR"),
    *("CosineAnnealingLR", "CosineAnnealingWarmRestarts", "CyclicLR", "OneCycleLR"),
)
CONSTANT = "constant"
OWN = "You can also name your own as package.module:Class"
REFUSED = {
    **dict.fromkeys(("LambdaLR", "MultiplicativeLR"), ("settings can't hold the function that it needs", OWN)),
    **dict.fromkeys(
        ("SequentialLR", "ChainedScheduler"), ("there can be only one scheduler", f"Set warmup instead. {OWN}")
    ),
    "ReduceLROnPlateau": ("it needs validation results, which phones don't have", f"Choose another schedule. {OWN}"),
}
FIELDS = ("lr", "momentum", "weight_decay")
"""Of torch's arguments, those that are fields of their own."""

COMPUTED = ("foreach", "fused", "capturable", "differentiable")
"""Of torch's arguments, those that say how a step is computed, and not what it is."""


def _name(name: str) -> str:
    if name not in NAMES and ":" not in name:
        raise _unknown("optimizer", name, NAMES)
    return name


def _kwargs(kwargs: dict[str, Any]) -> dict[str, Any]:
    for name in kwargs:
        if name in COMPUTED:
            wrong = f"can't have {name}, because how a step is computed is ray-split's to choose"
            raise SettingsError("", kwargs, f"Remove {name}", wrong)
    return kwargs


def _schedule(name: str) -> str:
    known = (CONSTANT, *SCHEDULES)
    if name in REFUSED:
        why, do = REFUSED[name]
        raise SettingsError("", name, do, f"{name} can't be used, because {why}")
    if name not in known and ":" not in name:
        raise _unknown("schedule of the learning rate", name, known)
    return name


def _unknown(what: str, name: str, known: Sequence[str]) -> SettingsError:
    there = f"Choose {listed(known, 'or')}, or name your own as package.module:Class"
    return SettingsError("", name, suggest(name, known, there), f"there is no {what} {shown(name)}")


Name = Annotated[str, AfterValidator(_name), OR_GIVEN]
Kwargs = Annotated[Mapping, AfterValidator(_kwargs)]
Momentum = Annotated[float, Field(ge=0, lt=1)]


class LrSchedule(Section):
    """How the learning rate changes: what torch's scheduler sets after so many steps, or rounds."""

    name: Annotated[str, AfterValidator(_schedule), OR_GIVEN] | None = Field(
        None,
        description=f"{CONSTANT}, {', '.join(SCHEDULES)} of torch, or package.module:Class; "
        f"none: {CONSTANT}; for a segment: as for all",
    )
    kwargs: Mapping = Field({}, description="arguments of torch's scheduler, as YAML: '{step_size: 30, gamma: 0.1}'")
    per: Literal["step", "round"] = Field("step", description="what the schedule counts: local steps, or rounds")
    warmup: Annotated[int, Field(ge=0, le=MOST)] = Field(
        0, description="steps (or rounds) in which the lr rises evenly to its value; then the schedule begins"
    )

    @property
    def changes(self) -> bool:
        """Whether the lr isn't always the same."""
        return self.name not in (None, CONSTANT) or self.warmup > 0

    @property
    def counts_steps(self) -> bool:
        """Whether the lr follows from how many steps there were."""
        return self.changes and self.per == "step"


class Optimizer(Section):
    """The optimizer of one segment."""

    name: Name = Field("sgd", description=f"{', '.join(NAMES)} of torch, or package.module:Class")
    lr: Positive = Field(0.1, description="learning rate")
    momentum: Momentum = Field(0.0, description="sgd and rmsprop only")
    weight_decay: NotNegative = Field(0.0, description="as torch has it")
    kwargs: Kwargs = Field({}, description="other arguments of torch's optimizer, as YAML: '{nesterov: true}'")
    clip_norm: Positive | None = Field(
        None, description="the L2 norm that a step's gradients have at most; they are scaled down to it; none: no limit"
    )
    clip: Literal["model", "segment"] = Field(
        "model", description="whose norm clip_norm bounds: model, of all segments together; segment, of each by itself"
    )
    schedule: LrSchedule = LrSchedule()

    @field_validator("momentum")
    @classmethod
    def _momentum_is_theirs(cls, momentum: float, info: ValidationInfo) -> float:
        name = info.data.get("name", "sgd")
        if momentum and name in NAMES and name not in MOMENTUM:
            do = f"Remove momentum, or choose {listed(MOMENTUM, 'or')}"
            raise SettingsError("", momentum, do, f"can't be used with {name}, which has no momentum")
        return momentum

    @field_validator("kwargs")
    @classmethod
    def _no_fields(cls, kwargs: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        name = info.data.get("name", "sgd")
        for field in FIELDS:
            if field in kwargs and name in NAMES:
                do = f"Move {field} out of kwargs: set optimizer.{field}"
                raise SettingsError("", kwargs, do, f"can't have {field}, which is a setting of its own")
        return kwargs


class SegmentOptimizer(Section):
    """What the optimizer of this segment has of its own; of what is none, what all have."""

    name: Name | None = Field(None, description="the segment's own optimizer; then momentum and kwargs are too")
    lr: Positive | None = Field(None, description="learning rate")
    momentum: Momentum | None = Field(None, description="sgd and rmsprop only")
    weight_decay: NotNegative | None = Field(None, description="as torch has it")
    kwargs: Kwargs | None = Field(None, description="other arguments of torch's optimizer, instead of those of all")
    clip_norm: Positive | None = Field(
        None, description="the L2 norm that its gradients have at most, with clip: segment"
    )
    schedule: LrSchedule = LrSchedule()

    def over(self, common: Optimizer) -> Optimizer:
        """The common settings with these instead."""
        values = {name: getattr(common, name) for name in Optimizer.model_fields}
        if self.name is not None and self.name != common.name:
            values |= {"momentum": 0.0, "kwargs": {}}
        own = {name: getattr(self, name) for name in type(self).model_fields if name != "schedule"}
        if self.schedule != LrSchedule():
            own["schedule"] = self.schedule
        return Optimizer(**values | {name: value for name, value in own.items() if value is not None})


class Optimizers(Optimizer):
    """One optimizer for each segment, by these settings or (a, b, c) by its own."""

    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None,
        description="evaluates and writes an exponential moving average of the weights, which keeps this share of "
        "itself after each round; none: the weights themselves",
    )
    a: SegmentOptimizer = SegmentOptimizer()
    b: SegmentOptimizer = SegmentOptimizer()
    c: SegmentOptimizer = SegmentOptimizer()

    @field_validator("a", "b", "c")
    @classmethod
    def _possible(cls, own: SegmentOptimizer, info: ValidationInfo) -> SegmentOptimizer:
        """What it has of its own must be possible with what all have."""
        if info.data.keys() >= Optimizer.model_fields.keys():
            try:
                own.over(Optimizer(**{name: info.data[name] for name in Optimizer.model_fields}))
            except ValidationError as error:
                said = one_line(error, Optimizer)
                wrong = f"with the settings of all segments, {said.field} {said.fault}"
                raise SettingsError("", said.value, said.allowed if said.wrong else "", wrong) from None
        return own

    @property
    def clips_model(self) -> bool:
        """Whether gradients are clipped by the norm of all three segments': a step waits until that is known."""
        return self.clip_norm is not None and self.clip == "model"

    def of(self, segment: str) -> Optimizer:
        """The optimizer of segment a, b or c."""
        own: SegmentOptimizer = getattr(self, segment)
        return own.over(self)
