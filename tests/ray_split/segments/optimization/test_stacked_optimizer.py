"""Phones step at once as one after the other: to the last bit, from the same gradients."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ray_split import config
from ray_split.messages.turn import Turn
from ray_split.segments.looped_copies import LoopedCopies
from ray_split.segments.segment import Segment
from ray_split.segments.stacked_copies import StackedCopies

PHONES = 5
CASES: dict[str, dict[str, Any]] = {
    "sgd": {"name": "sgd", "weight_decay": 0.01},
    "nesterov": {"name": "sgd", "momentum": 0.9, "kwargs": {"nesterov": True}},
    "adam": {"name": "adam", "lr": 0.01, "kwargs": {"amsgrad": True, "betas": [0.8, 0.9]}},
    "adamw": {"name": "adamw", "lr": 0.01, "weight_decay": 0.1, "kwargs": {"maximize": True}},
    "nadam": {"name": "nadam", "lr": 0.01, "kwargs": {"momentum_decay": 0.01}},
    "radam": {"name": "radam", "lr": 0.01},
    "rmsprop": {"name": "rmsprop", "lr": 0.01, "momentum": 0.5, "kwargs": {"centered": True}},
    "adagrad": {"name": "adagrad", "kwargs": {"initial_accumulator_value": 0.1, "lr_decay": 0.1}},
    "adadelta": {"name": "adadelta", "lr": 1.0},
    "adamax": {"name": "adamax", "lr": 0.01},
    "rprop": {"name": "rprop", "lr": 0.01},
}


def both(optimizer: config.Optimizer) -> tuple[LoopedCopies, StackedCopies]:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))

    def make() -> Segment:
        return Segment(copy.deepcopy(module), optimizer)

    looped, stacked = LoopedCopies(make), StackedCopies(module, optimizer)
    state = make().state()
    for copies in (looped, stacked):
        copies.load(state, PHONES)
    return looped, stacked


def step(looped: LoopedCopies, stacked: StackedCopies, number: int, phones: int) -> None:
    """One step of the first phones, of both on the loop's gradients: these differ by rounding."""
    draw = np.random.default_rng(number)
    arrived = draw.normal(size=(phones, 6, 4)).astype(np.float32)
    gradient = draw.normal(size=(phones, 6, 3)).astype(np.float32)
    for copies in (looped, stacked):
        copies.forward([arrived], range(phones))
        copies.backward([gradient])
    own = [dict(segment.module.named_parameters()) for segment in looped._segments[:phones]]
    for name, weight in stacked._passes[0].weights.items():
        weight.grad = torch.stack([each[name].grad for each in own])  # type: ignore[misc]
    for copies in (looped, stacked):
        copies.step(Turn(0, 0, (), number))


@pytest.mark.parametrize("schedule", [None, {"name": "ExponentialLR", "kwargs": {"gamma": 0.8}, "warmup": 2}])
@pytest.mark.parametrize("case", CASES)
def test_phones_step_at_once_to_the_bits_of_a_loop(case: str, schedule: dict[str, Any] | None) -> None:
    """Also where some have taken more steps, and after a hand-over in the middle."""
    looped, stacked = both(config.Optimizer(**CASES[case], schedule=schedule or {}))
    for number in range(8):
        step(looped, stacked, number, phones=PHONES if number not in (2, 4) else 3)
        if number == 5:
            for copies in (looped, stacked):
                own = copies.states()
                copies.load({key: array[0] for key, array in own.items()}, PHONES, own, fresh=False)
    one, other = looped.states(), stacked.states()
    assert one.keys() == other.keys()
    assert [key for key in one if one[key].tobytes() != other[key].tobytes()] == []
    assert [key for key in one if one[key].dtype != other[key].dtype] == []


@pytest.mark.parametrize("case", ["nadam", "adagrad", "rprop", "adam"])
def test_of_a_phone_that_never_stepped_zeros_are_a_new_optimizer(case: str) -> None:
    looped, stacked = both(config.Optimizer(**CASES[case]))
    step(looped, stacked, 0, phones=2)
    for copies in (looped, stacked):
        own = copies.states()
        copies.load({key: array[0] for key, array in own.items()}, PHONES, own, fresh=False)
    step(looped, stacked, 1, phones=PHONES)
    alone, _ = both(config.Optimizer(**CASES[case]))
    step(alone, both(config.Optimizer(**CASES[case]))[1], 1, phones=PHONES)
    expected = {key: array[2:] for key, array in alone.states().items() if key.startswith("weights/")}
    for copies in (looped, stacked):
        for key, array in expected.items():
            assert np.array_equal(copies.states()[key][2:], array), key


def test_a_step_that_does_not_say_where_it_is_has_no_rate() -> None:
    scheduled = config.Optimizer(schedule={"warmup": 3})
    for copies in both(scheduled):
        copies.forward([np.ones((PHONES, 2, 4), np.float32)], range(PHONES))
        copies.backward([np.ones((PHONES, 2, 3), np.float32)])
        with pytest.raises(ValueError, match="doesn't say where it is"):
            copies.step()
