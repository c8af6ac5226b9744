"""torch's optimizers by name, and others: split training is plain torch's training of the untouched model.

The reference here is written out in torch's own words: no settings of ours are read for what an optimizer is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn, optim

import ray_split as rs
from tests import reference
from tests.reference import assert_close_weights, assert_same_weights, within
from tests.runs.equality.test_schedules import assert_close_personal_weights, fit, model_bytes
from tests.tiers import mostly_thorough, slow, thorough

Make = Callable[[list[nn.Parameter]], optim.Optimizer]


class Plain(NamedTuple):
    """What torch is told, and what we are."""

    torch: Make
    ours: dict[str, Any]


PLAIN = {
    "nesterov": Plain(
        lambda p: optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-3),
        {"name": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3, "kwargs": {"nesterov": True}},
    ),
    "dampening": Plain(
        lambda p: optim.SGD(p, lr=0.05, momentum=0.9, dampening=0.3),
        {"name": "sgd", "lr": 0.05, "momentum": 0.9, "kwargs": {"dampening": 0.3}},
    ),
    "amsgrad": Plain(
        lambda p: optim.Adam(p, lr=0.002, betas=(0.8, 0.95), amsgrad=True),
        {"name": "adam", "lr": 0.002, "kwargs": {"betas": [0.8, 0.95], "amsgrad": True}},
    ),
    "adamw": Plain(
        lambda p: optim.AdamW(p, lr=0.002, weight_decay=0.1), {"name": "adamw", "lr": 0.002, "weight_decay": 0.1}
    ),
    "nadam": Plain(lambda p: optim.NAdam(p, lr=0.002), {"name": "nadam", "lr": 0.002}),
    "radam": Plain(lambda p: optim.RAdam(p, lr=0.01), {"name": "radam", "lr": 0.01}),
    "rmsprop": Plain(
        lambda p: optim.RMSprop(p, lr=0.002, momentum=0.5, centered=True, weight_decay=1e-3),
        {"name": "rmsprop", "lr": 0.002, "momentum": 0.5, "weight_decay": 1e-3, "kwargs": {"centered": True}},
    ),
    "adagrad": Plain(
        lambda p: optim.Adagrad(p, lr=0.02, initial_accumulator_value=0.1, lr_decay=0.01),
        {"name": "adagrad", "lr": 0.02, "kwargs": {"initial_accumulator_value": 0.1, "lr_decay": 0.01}},
    ),
    "adadelta": Plain(lambda p: optim.Adadelta(p, lr=1.0), {"name": "adadelta", "lr": 1.0}),
    "adamax": Plain(lambda p: optim.Adamax(p, lr=0.002), {"name": "adamax", "lr": 0.002}),
    "rprop": Plain(lambda p: optim.Rprop(p, lr=0.001), {"name": "rprop", "lr": 0.001}),
    "own": Plain(
        lambda p: CountsInPython(p, lr=0.01),
        {"name": "tests.runs.optimizing.test_optimizers:CountsInPython", "lr": 0.01},
    ),
}
MODELS = {
    "mlp": (("layers.0",), ("layers.1",)),
    "digits_cnn": (("block1",), ("block2", "hidden")),
    "tests.nets:with_batchnorm": (("0", "1", "2"), ("3", "4", "5", "6", "7", "8")),
}
"""The layers of A and of B; the others are C's."""


class CountsInPython(optim.Optimizer):
    """Sign momentum with a warm-up of its own: it remembers a number of Python's, a flag and a tensor."""

    def __init__(self, params: Iterable[nn.Parameter], lr: float, decay: float = 0.9) -> None:
        super().__init__(params, {"lr": lr, "decay": decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            for parameter in (p for p in group["params"] if p.grad is not None):
                state = self.state[parameter]
                if not state:
                    state.update(count=0, average=torch.zeros_like(parameter), began=True, share=0.0)
                state["count"] += 1
                state["share"] = 1 - group["decay"] ** state["count"]
                state["average"].lerp_(parameter.grad, 1 - group["decay"])
                parameter.sub_((state["average"] / state["share"]).tanh(), alpha=group["lr"])


class ForgetsItself(CountsInPython):
    """What it goes by is not all in what it remembers of each weight."""

    steps = 0

    def step(self, closure: None = None) -> None:
        self.steps += 1
        self.param_groups[0]["decay"] = self.steps / (1 + self.steps)
        super().step()


def segment_of(model: str, parameter: str) -> str:
    a, b = MODELS[model]
    return "a" if within(parameter, a) else "b" if within(parameter, b) else "c"


def trained(settings: rs.Config, make: Callable[[str], Make]) -> nn.Module:
    """The untouched model, trained by torch: on the stream, with `make(segment)`'s optimizer for each segment."""
    name = settings.model.name
    run = reference.Training(settings, b=MODELS[name][1])
    of: dict[str, list[nn.Parameter]] = {"a": [], "b": [], "c": []}
    for key, parameter in run.model.named_parameters():
        of[segment_of(name, key)].append(parameter)
    optimizers = [make(segment)(own) for segment, own in of.items()]
    for draw in rs.stream(settings):
        run.model.zero_grad()
        run.loss(run.model, draw).backward()
        for optimizer in optimizers:
            optimizer.step()
    return run.model


def alone(path: Path, schedule: str, model: str, optimizer: dict[str, Any], **sections: Any) -> Any:
    """One phone: two rounds where its optimizers are handed on, one where they begin anew."""
    rounds = {"rounds": 2 if schedule in ("sequential", "unsplit") else 1}
    cuts = "2,8" if "batchnorm" in model else None
    return fit(
        path, schedule, optimizer, phones={"count": 1, "held_out": 0.2, "local_steps": 5}, run=rounds,
        model={"name": model, "cuts": cuts}, **sections,
    )  # fmt: skip


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("schedule", ["sequential", *thorough("splitfed_v1", "splitfed_v3", "parallel")])
@pytest.mark.parametrize("model", mostly_thorough(MODELS, "mlp"))
@pytest.mark.few(6, thorough=6)
def test_one_phone_is_the_untouched_model_bit_for_bit(tmp_path: Path, model: str, schedule: str, name: str) -> None:
    if name == "dampening" and schedule == "splitfed_v3":
        pytest.skip("refused")
    settings, result = alone(tmp_path, schedule, model, PLAIN[name].ours)
    assert_same_weights(trained(settings, lambda _: PLAIN[name].torch), result.path)


def smooth(name: str) -> dict[str, Any]:
    """Of those that divide by a gradient's size: by more, for that of one near zero is nothing but rounding."""
    ours = PLAIN[name].ours
    return ours if name == "nesterov" else {**ours, "kwargs": {**ours.get("kwargs", {}), "eps": 0.01}}


MIXED = {
    **PLAIN["nesterov"].ours,
    "a": {"name": "nadam", "lr": 0.002},
    "b": {"lr": 0.02, "weight_decay": 0.0},
    "c": {"name": "tests.runs.optimizing.test_optimizers:CountsInPython", "lr": 0.01, "weight_decay": 0.0},
}


def mixed(segment: str) -> Make:
    return {
        "a": lambda p: optim.NAdam(p, lr=0.002, weight_decay=1e-3),
        "b": lambda p: optim.SGD(p, lr=0.02, momentum=0.9, nesterov=True),
        "c": lambda p: CountsInPython(p, lr=0.01),
    }[segment]


@pytest.mark.parametrize("schedule", ["sequential", "splitfed_v1", *thorough("unsplit", "parallel", "splitfed_v2")])
@pytest.mark.parametrize("model", mostly_thorough(MODELS, "tests.nets:with_batchnorm"))
def test_each_segment_may_have_an_optimizer_of_its_own(tmp_path: Path, model: str, schedule: str) -> None:
    settings, result = alone(tmp_path, schedule, model, MIXED)
    assert_same_weights(trained(settings, mixed), result.path)


@pytest.mark.parametrize(
    ("schedule", "name"),
    [
        ("splitfed_v1", "nadam"),
        ("splitfed_v3", "adagrad"),
        ("parallel", "rmsprop"),
        *thorough(
            *[(schedule, name) for schedule in ("splitfed_v1", "splitfed_v2", "splitfed_v3", "parallel", "fedavg")
              for name in PLAIN if name not in ("own", "dampening", "rprop")]
        ),
    ],
)  # fmt: skip
@pytest.mark.thorough
@pytest.mark.few(thorough=3)
def test_many_phones_at_once_are_the_reference_of_their_schedule(tmp_path: Path, schedule: str, name: str) -> None:
    cohort = {} if schedule == "splitfed_v2" else {"cohort": 3, "stacked": "a,b,c"}
    phones = {**cohort, **({"held_out": 0.2} if schedule == "splitfed_v3" else {})}
    settings, result = fit(tmp_path, schedule, smooth(name), phones=phones)
    assert_close_weights(lambda: reference.trained(settings), result.path)
    if schedule == "splitfed_v3":
        assert_close_personal_weights(settings, result)


@pytest.mark.parametrize("optimizer", [MIXED, *thorough(PLAIN["adagrad"].ours)], ids=["mixed", "adagrad"])
@pytest.mark.parametrize("schedule", ["sequential", "splitfed_v3", *thorough("splitfed_v1", "splitfed_v2", "parallel")])
@pytest.mark.few(1)
def test_resumed_in_the_middle_it_is_the_same_bytes(tmp_path: Path, schedule: str, optimizer: dict[str, Any]) -> None:
    phones = {
        "count": 5,
        "held_out": 0.2,
        "per_round": 3,
        **({} if schedule in ("sequential", "splitfed_v2") else {"cohort": 2}),
    }
    _, whole = fit(tmp_path, schedule, optimizer, phones=phones, run={"rounds": 3, "name": "whole"})
    fit(tmp_path, schedule, optimizer, phones=phones, run={"rounds": 1, "name": "part"})
    _, part = fit(tmp_path, schedule, optimizer, phones=phones, run={"rounds": 3, "name": "part", "resume": "auto"})
    assert model_bytes(part) == model_bytes(whole)


@pytest.mark.parametrize(
    ("optimizer", "line"),
    [
        (
            {"name": "rprop", "weight_decay": 0.1},
            ("optimizer.weight_decay: can't be used with rprop, which has no weight_decay"),
        ),
        (
            {"name": "adam", "kwargs": {"beta": 0.9}},
            ("optimizer.kwargs: Adam takes no argument 'beta'. Did you mean betas"),
        ),
        ({"kwargs": {"nesterov": True}}, "optimizer.kwargs: .* Nesterov momentum requires a momentum"),
        ({"c": {"name": "rmsprop", "kwargs": {"alpha": -1}}}, "optimizer.c.kwargs: .* Invalid alpha value"),
        ({"momentum": 0.9, "kwargs": {"dampening": 0.1}}, "optimizer.kwargs: can't have dampening .* Remove dampening"),
        ({"name": "torch.optim:LBFGS"}, "optimizer.name: torch.optim:LBFGS failed: .* 'closure'"),
        ({"name": "torch.optim:Adafactor"}, "optimizer.name: .* row_var, a tensor .2, 1.: no number"),
        ({"name": "tests.runs.optimizing.test_optimizers:Nobody"}, "optimizer.name: .* has no function 'Nobody'"),
        (
            {"b": {"name": "tests.runs.optimizing.test_optimizers:ForgetsItself"}},
            "optimizer.b.name: .* it steps differently",
        ),
    ],
)
def test_what_can_not_be_done_as_torch_does_it_is_refused(tmp_path: Path, optimizer: Any, line: str) -> None:
    with pytest.raises(rs.SettingsError, match=line):
        fit(tmp_path, "splitfed_v3", optimizer)


@pytest.mark.thorough
def test_an_optimizer_of_ones_own_is_looped_and_not_stacked(tmp_path: Path) -> None:
    own = {"name": "tests.runs.optimizing.test_optimizers:CountsInPython", "lr": 0.01}
    with pytest.raises(
        rs.SettingsError, match=r"phones\.stacked: can't contain a, because .* step one by one\. Remove a from"
    ):
        fit(tmp_path, "splitfed_v1", own, phones={"cohort": 3, "stacked": "a"})
    _, looped = fit(tmp_path, "splitfed_v1", own, phones={"cohort": 3})
    assert rs.Config.from_yaml(Path(looped.path) / "config.yaml").phones.stacked == []
    _, one_by_one = fit(tmp_path, "splitfed_v1", own, phones={"cohort": 1})
    for key, array in rs.load_model(looped.path, trust=True).state_dict().items():
        np.testing.assert_allclose(
            array, rs.load_model(one_by_one.path, trust=True).state_dict()[key], rtol=1e-5, atol=1e-6
        )


CLIPPED = {**PLAIN["nesterov"].ours, "clip_norm": 0.1, "clip": "segment", "c": {"clip_norm": 0.02}}


class Clips:
    """torch's optimizer, after torch's clipping of its own weights' gradients; tells how often that changed them."""

    def __init__(self, parameters: list[nn.Parameter], norm: float) -> None:
        self._parameters, self._norm, self._optimizer = parameters, norm, PLAIN["nesterov"].torch(parameters)
        self.clipped = 0

    def step(self) -> None:
        self.clipped += int(nn.utils.clip_grad_norm_(self._parameters, self._norm) > self._norm)
        self._optimizer.step()


@pytest.mark.parametrize("schedule", ["sequential", "splitfed_v1", *thorough("splitfed_v2", "parallel", "unsplit")])
@pytest.mark.parametrize("model", mostly_thorough(MODELS, "digits_cnn"))
def test_each_segments_gradients_are_clipped_by_their_own_norm(tmp_path: Path, model: str, schedule: str) -> None:
    settings, result = alone(tmp_path, schedule, model, CLIPPED)
    made: list[Clips] = []

    def clips(segment: str) -> Any:
        def make(parameters: list[nn.Parameter]) -> Clips:
            made.append(Clips(parameters, 0.02 if segment == "c" else 0.1))
            return made[-1]

        return make

    assert_same_weights(trained(settings, clips), result.path)
    assert sum(each.clipped for each in made) > 5


def test_stacked_phones_are_each_clipped_by_their_own_norm(tmp_path: Path) -> None:
    looped, stacked = (
        fit(tmp_path, "splitfed_v1", CLIPPED, phones={"cohort": 4, "stacked": names}, model={"name": "mlp"})[1]
        for names in ([], "a,b,c")
    )
    for key, array in rs.load_model(looped.path, trust=True).state_dict().items():
        other = rs.load_model(stacked.path, trust=True).state_dict()[key]
        np.testing.assert_allclose(array, other, rtol=1e-5, atol=1e-6)


WHOLE = {**PLAIN["nesterov"].ours, "clip_norm": 0.1}


def clipped_whole(settings: rs.Config, fresh: bool = False) -> nn.Module:
    """The untouched model, trained by torch with clip_grad_norm_ of all its gradients."""
    run = reference.Training(settings, b=MODELS[settings.model.name][1])
    optimizer, clipped, round = PLAIN["nesterov"].torch(list(run.model.parameters())), 0, 0
    for draw in rs.stream(settings):
        if fresh and draw.round > round:
            optimizer.state.clear()
        round = draw.round
        optimizer.zero_grad()
        run.loss(run.model, draw).backward()
        clipped += int(nn.utils.clip_grad_norm_(run.model.parameters(), 0.1) > 0.1)
        optimizer.step()
    assert clipped > 2
    return run.model


@pytest.mark.parametrize("schedule", ["sequential", "splitfed_v1", "splitfed_v2", *thorough("fedavg", "unsplit")])
@pytest.mark.parametrize("model", mostly_thorough(MODELS, "tests.nets:with_batchnorm"))
def test_gradients_are_clipped_by_the_norm_of_the_whole_bit_for_bit(tmp_path: Path, model: str, schedule: str) -> None:
    settings, result = alone(tmp_path, schedule, model, WHOLE)
    assert_same_weights(clipped_whole(settings), result.path)


@pytest.mark.thorough
def test_clipped_by_the_whole_norm_several_phones_one_after_the_other_are_unsplit(tmp_path: Path) -> None:
    for split in ("block1,hidden", "block1"):
        settings, result = fit(tmp_path, "sequential", WHOLE, phones={"count": 3}, model={"cuts": split})
        assert_same_weights(clipped_whole(settings), result.path)


def test_phones_at_once_are_each_clipped_by_the_norm_of_their_whole_gradient(tmp_path: Path) -> None:
    """In V1 as each alone; and stacked as looped. What crosses for it is counted."""
    results = [
        fit(tmp_path, schedule, WHOLE, phones={"cohort": 4, "stacked": names}, model={"name": "mlp"})[1]
        for schedule, names in (("splitfed_v1", []), ("splitfed_v1", "a,b,c"), ("fedavg", []))
    ]
    states = [rs.load_model(result.path, trust=True).state_dict() for result in results]
    for key, array in states[0].items():
        for other in states[1:]:
            np.testing.assert_allclose(array, other[key], rtol=1e-5, atol=1e-6)
    _, without = fit(tmp_path, "splitfed_v1", PLAIN["nesterov"].ours, phones={"cohort": 4}, model={"name": "mlp"})
    exchanges = len(list(rs.stream(rs.Config.from_yaml(Path(without.path) / "config.yaml"))))
    for result in results[:2]:
        assert result.metrics_dataframe["bytes_up"].sum() - without.metrics_dataframe["bytes_up"].sum() == 4 * exchanges
        more = result.metrics_dataframe["bytes_down"].sum() - without.metrics_dataframe["bytes_down"].sum()
        assert more == 4 * 2 * exchanges  # of B's weight and bias


def test_the_norm_of_the_whole_gradient_is_refused_where_no_step_is_one_phones(tmp_path: Path) -> None:
    with pytest.raises(
        rs.SettingsError,
        match=(r"optimizer\.clip: can't be model with schedule\.name " r"parallel, .* Set optimizer\.clip to segment"),
    ):
        fit(tmp_path, "parallel", WHOLE)
    with pytest.raises(
        rs.SettingsError,
        match=r"optimizer\.clip: can't be model where optimizer\.b\.clip_norm is set.* Set optimizer\.clip to segment",
    ):
        fit(tmp_path, "sequential", {**WHOLE, "b": {"clip_norm": 1.0}})


@pytest.mark.thorough
@pytest.mark.parametrize("schedule", ["sequential", "splitfed_v1", *slow("splitfed_v2", "splitfed_v3")])
def test_on_ray_they_are_the_same_bytes(tmp_path: Path, ray_session: object, schedule: str) -> None:
    rates = {"name": "CosineAnnealingLR", "kwargs": {"T_max": 9}, "warmup": 3}
    said = {**WHOLE, "schedule": rates, "a": {"name": "nadam", "lr": 0.002}}
    phones = {"count": 5, "held_out": 0.2, **({} if schedule in ("sequential", "splitfed_v2") else {"cohort": 2})}
    here, there = (
        fit(tmp_path, schedule, said, phones=phones, cluster={"backend": backend})[1]
        for backend in ("inprocess", "ray")
    )
    assert model_bytes(there) == model_bytes(here)
    columns = ["bytes_up", "bytes_down", "train_loss"]
    assert there.metrics_dataframe[columns].equals(here.metrics_dataframe[columns])
