"""A learning rate with a schedule: split training is torch's own, with torch's scheduler beside the untouched model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn, optim
from torch.optim import lr_scheduler

import ray_split as rs
from ray_split import config
from ray_split.messages.turn import Turn
from ray_split.segments.optimization.learning_rates import LearningRates
from tests import reference
from tests.reference import assert_close_weights, assert_same_weights
from tests.runs.equality.test_schedules import fit, model_bytes
from tests.runs.optimizing.test_optimizers import MODELS, segment_of
from tests.tiers import mostly_thorough, thorough

MOMENTUM = {"lr": 0.05, "momentum": 0.9}


class Plain(NamedTuple):
    """What torch is told, and what we are."""

    torch: Callable[[optim.Optimizer], Any]
    ours: dict[str, Any]


def plain(name: str, **kwargs: Any) -> Plain:
    return Plain(lambda o: getattr(lr_scheduler, name)(o, **kwargs), {"name": name, "kwargs": kwargs})


PLAIN = {
    "StepLR": plain("StepLR", step_size=3, gamma=0.5),
    "MultiStepLR": plain("MultiStepLR", milestones=[2, 5, 7], gamma=0.3),
    "ConstantLR": plain("ConstantLR", factor=0.3, total_iters=4),
    "LinearLR": plain("LinearLR", start_factor=0.2, total_iters=6),
    "ExponentialLR": plain("ExponentialLR", gamma=0.9),
    "PolynomialLR": plain("PolynomialLR", total_iters=8, power=2.0),
    "CosineAnnealingLR": plain("CosineAnnealingLR", T_max=9, eta_min=1e-3),
    "CosineAnnealingWarmRestarts": plain("CosineAnnealingWarmRestarts", T_0=3, T_mult=2),
    "CyclicLR": plain("CyclicLR", base_lr=0.01, max_lr=0.1, step_size_up=3),
    "OneCycleLR": plain("OneCycleLR", max_lr=0.1, total_steps=20),
}
ROUNDS, STEPS = 2, 5


def sgd(parameters: list[nn.Parameter]) -> optim.Optimizer:
    return optim.SGD(parameters, lr=0.05, momentum=0.9)


def trained(settings: rs.Config, schedule: Plain, per: str = "step", warmup: int = 0, fresh: bool = False) -> nn.Module:
    """The untouched model, trained by torch with its scheduler; `fresh`: what is remembered begins anew each round."""
    run = reference.Training(settings, b=MODELS[settings.model.name][1])
    optimizer = sgd(list(run.model.parameters()))
    scheduler = None
    lr, round, count = 0.05, 0, 0
    for draw in rs.stream(settings):
        if draw.round > round and fresh:
            optimizer.state.clear()
        if scheduler is not None and (per == "step" or draw.round > round):
            scheduler.step()
        done = count if per == "step" else draw.round
        if done < warmup:
            optimizer.param_groups[0]["lr"] = lr * (done + 1) / warmup
        elif scheduler is None:
            optimizer.param_groups[0]["lr"] = lr
            scheduler = schedule.torch(optimizer)
        optimizer.zero_grad()
        run.loss(run.model, draw).backward()
        optimizer.step()
        round, count = draw.round, count + 1
    return run.model


def alone(path: Path, name: str, model: str, optimizer: dict[str, Any], **sections: Any) -> Any:
    """One phone, two rounds of five steps."""
    cuts = "2,8" if "batchnorm" in model else None
    return fit(
        path, name, {**MOMENTUM, **optimizer}, phones={"count": 1, "held_out": 0.2, "local_steps": STEPS},
        model={"name": model, "cuts": cuts}, **sections,
    )  # fmt: skip


@pytest.mark.parametrize("name", mostly_thorough(PLAIN, "CosineAnnealingLR", "OneCycleLR", "MultiStepLR"))
@pytest.mark.parametrize("schedule", ["sequential", "splitfed_v1", *thorough("splitfed_v2", "parallel", "fedavg")])
@pytest.mark.parametrize("model", mostly_thorough(MODELS, "mlp"))
@pytest.mark.few(6, thorough=6)
def test_one_phone_is_torch_with_its_scheduler_bit_for_bit(
    tmp_path: Path, model: str, schedule: str, name: str
) -> None:
    rounds = {"rounds": 1 if schedule in ("splitfed_v2", "parallel") else ROUNDS}
    settings, result = alone(tmp_path, schedule, model, {"schedule": PLAIN[name].ours}, run=rounds)
    fresh = schedule in ("splitfed_v1", "fedavg")
    assert_same_weights(trained(settings, PLAIN[name], fresh=fresh), result.path)


@pytest.mark.parametrize(("per", "warmup"), [("step", 4), ("round", 0), ("round", 2)])
@pytest.mark.parametrize("model", mostly_thorough(MODELS, "tests.nets:with_batchnorm"))
def test_a_warm_up_comes_before_the_schedule_and_both_may_count_rounds(
    tmp_path: Path, model: str, per: str, warmup: int
) -> None:
    said = {**PLAIN["StepLR"].ours, "kwargs": {"step_size": 1, "gamma": 0.5}, "per": per, "warmup": warmup}
    settings, result = alone(tmp_path, "sequential", model, {"schedule": said}, run={"rounds": 4})
    like = plain("StepLR", step_size=1, gamma=0.5)
    assert_same_weights(trained(settings, like, per, warmup), result.path)


@pytest.mark.slow
def test_of_several_phones_one_after_the_other_each_step_of_the_run_counts(tmp_path: Path) -> None:
    said = {**MOMENTUM, "schedule": PLAIN["ExponentialLR"].ours}
    for schedule in ("sequential", "unsplit"):
        settings, result = fit(tmp_path, schedule, said, phones={"count": 3})
        assert_same_weights(trained(settings, PLAIN["ExponentialLR"]), result.path)


@pytest.mark.parametrize("schedule", ["splitfed_v1", "splitfed_v2", "parallel", *thorough("splitfed_v3", "fedavg")])
@pytest.mark.few(1, thorough=1)
def test_of_phones_at_once_a_round_counts_as_the_steps_of_the_one_that_takes_most(
    tmp_path: Path, schedule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {**MOMENTUM, "schedule": PLAIN["ExponentialLR"].ours}
    cohort = {} if schedule == "splitfed_v2" else {"cohort": 3, "stacked": "a,b,c"}
    held_out = {"held_out": 0.2} if schedule == "splitfed_v3" else {}
    settings, result = fit(tmp_path, schedule, said, phones={"count": 5, **cohort, **held_out})
    monkeypatch.setattr(reference.Training, "loss", _with_rate_of_draw)
    assert_close_weights(lambda: reference.trained(settings), result.path)


def _with_rate_of_draw(run: reference.Training, model: nn.Module, draw: rs.Draw) -> torch.Tensor:
    """The loss, after the lr of the draw's step was set in all optimizers that the reference has made."""
    before = sum(1 + max(draw.step for draw in run.rounds[round]) for round in range(draw.round))
    for made in run.made:
        for group in made.param_groups:
            group["lr"] = 0.05 * 0.9 ** (before + draw.step)
    return LOSS(run, model, draw)


LOSS = reference.Training.loss


def test_each_segment_may_have_a_schedule_of_its_own(tmp_path: Path) -> None:
    of = {"a": "StepLR", "b": "CosineAnnealingLR"}
    own = {name: {"schedule": PLAIN[schedule].ours} for name, schedule in of.items()}
    settings, result = alone(tmp_path, "sequential", "digits_cnn", {"schedule": {"warmup": 3}, **own})
    run = reference.Training(settings)
    parameters: dict[str, list[nn.Parameter]] = {"a": [], "b": [], "c": []}
    for key, parameter in run.model.named_parameters():
        parameters[segment_of("digits_cnn", key)].append(parameter)
    optimizers = {name: sgd(each) for name, each in parameters.items()}
    schedulers = [PLAIN[schedule].torch(optimizers[name]) for name, schedule in of.items()]
    for count, draw in enumerate(rs.stream(settings)):
        optimizers["c"].param_groups[0]["lr"] = 0.05 * min(1, (count + 1) / 3)
        run.model.zero_grad()
        run.loss(run.model, draw).backward()
        for each in (*optimizers.values(), *schedulers):
            each.step()
    assert_same_weights(run.model, result.path)


MIXED = {
    **MOMENTUM,
    "schedule": {**PLAIN["CosineAnnealingLR"].ours, "warmup": 3},
    "a": {"name": "nadam", "lr": 0.002},
    "c": {"lr": 0.01, "schedule": {**PLAIN["StepLR"].ours, "per": "round"}},
}


@pytest.mark.parametrize("schedule", ["sequential", "splitfed_v1", *thorough("splitfed_v2", "splitfed_v3", "parallel")])
@pytest.mark.thorough
@pytest.mark.few(thorough=1)
def test_resumed_in_the_middle_it_is_the_same_bytes(tmp_path: Path, schedule: str) -> None:
    phones = {"count": 5, "held_out": 0.2, "per_round": 3, "dropout": 0.2}
    _, whole = fit(tmp_path, schedule, MIXED, phones=phones, run={"rounds": 3, "name": "whole"})
    fit(tmp_path, schedule, MIXED, phones=phones, run={"rounds": 1, "name": "part"})
    _, part = fit(tmp_path, schedule, MIXED, phones=phones, run={"rounds": 3, "name": "part", "resume": "auto"})
    assert model_bytes(part) == model_bytes(whole)
    other = {"client_actors": 1}
    _, alike = fit(tmp_path, schedule, MIXED, phones=phones, cluster=other, run={"rounds": 3, "name": "alike"})
    assert model_bytes(alike) == model_bytes(whole)


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (
            {"name": "LambdaLR"},
            ("optimizer.schedule.name: LambdaLR can't be used, because settings can't hold the function"),
        ),
        (
            {"name": "ReduceLROnPlateau"},
            ("optimizer.schedule.name: ReduceLROnPlateau can't be used, .* validation results"),
        ),
        ({"name": "StepLr"}, "optimizer.schedule.name: .* Did you mean StepLR"),
        ({"name": "StepLR"}, "optimizer.schedule.kwargs: StepLR needs step_size. Add "),
        (
            {"name": "StepLR", "kwargs": {"step_sise": 1}},
            "optimizer.schedule.kwargs: StepLR takes no argument 'step_sise'. Did you mean step_size",
        ),
        (
            PLAIN["OneCycleLR"].ours,
            "optimizer.momentum: is 0, but OneCycleLR changes the momentum. .* cycle_momentum",
        ),
        (
            {"name": "OneCycleLR", "kwargs": {"max_lr": 0.1, "total_steps": 3, "cycle_momentum": False}},
            (
                "optimizer.schedule.kwargs: total_steps is too small, .* "
                "the run has 53 steps .* Set total_steps to 53 or more"
            ),
        ),
    ],
)
def test_what_is_no_schedule_of_the_run_is_refused(tmp_path: Path, said: dict[str, Any], line: str) -> None:
    with pytest.raises(rs.SettingsError, match=line):
        fit(tmp_path, "sequential", {"schedule": said}, phones={"count": 1}, run={"rounds": 1})


@pytest.mark.parametrize("name", PLAIN)
def test_the_rate_of_a_step_does_not_depend_on_which_was_asked_for_before(name: str) -> None:
    settings = config.Optimizer(**MOMENTUM, schedule=PLAIN[name].ours)
    optimizer = sgd([nn.Parameter(torch.zeros(1))])
    scheduler = PLAIN[name].torch(optimizer)
    expected = []
    for _ in range(12):
        expected.append({key: optimizer.param_groups[0][key] for key in ("lr", "momentum")})
        optimizer.step()
        scheduler.step()
    rates = LearningRates(settings)
    assert [rates.at(Turn(3, 0, (), step, before=4)) for step in (5, 2, 7)] == [expected[i] for i in (9, 6, 11)]
    assert [LearningRates(settings).after(count) for count in range(12)] == expected
