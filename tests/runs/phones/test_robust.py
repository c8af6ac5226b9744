"""Runs with hostile phones, and with aggregators other than the mean, against plain references."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import ray_split as rs
from ray_split.data import byzantine
from tests import reference
from tests.reference import Training, assert_close_weights, assert_same_training, within
from tests.runs.equality.test_schedules import COHORTS, SGD, fit, model_bytes, personal_weights
from tests.tiers import mostly_thorough, thorough

ROBUST = ("median", "trimmed_mean", "norm_clipping")
AVERAGING = ("splitfed_v1", "splitfed_v2", "splitfed_v3", "parallel", "fedavg")
TWO = {"hostile": 2, "hostile_scale": -0.5}
UNEVEN = {
    "name": "synthetic", "kwargs": {"samples": 80, "shape": [4], "num_classes": 3}, "batch_size": 4,
    "partition": {"name": "dirichlet", "alpha": 1.0},
}  # fmt: skip
slow = pytest.mark.slow
ONE_OF_THE_ROBUST = ["trimmed_mean", *(pytest.param(name, marks=slow) for name in ("median", "norm_clipping"))]


def small(path: Path, schedule: str, cuts: str = "three", **sections: Any) -> rs.Result:
    """Two rounds on seven uneven phones, of a model that is quick to train."""
    settings = rs.Config(
        model={"name": f"tests.nets:{cuts}_linear", **sections.pop("model", {})},
        data=sections.pop("data", UNEVEN),
        schedule={"name": schedule}, optimizer=SGD, phones={"count": 7, **sections.pop("phones", {})},
        cluster={"backend": "inprocess", **sections.pop("cluster", {})},
        run={"storage_path": str(path), "name": str(len(list(path.iterdir()))), "rounds": 2}, **sections,
    )  # fmt: skip
    return rs.fit(settings, callbacks=[])


def attacked(monkeypatch: pytest.MonkeyPatch, settings: rs.Config) -> None:
    """Let the references' hostile phones have the gradient of a scaled loss; cut once, only in A, which is theirs."""
    scales = byzantine.scales(settings)
    assert scales is not None and set(scales) == {1.0, -0.5}
    plain = Training.loss

    def scaled(self: Training, model: nn.Module, draw: rs.Draw) -> torch.Tensor:
        scale = float(scales[draw.phone])
        if self.b is reference.MIDDLE:
            return plain(self, model, draw) * scale
        handle = model.block1.register_forward_hook(
            lambda *hooked: hooked[2].register_hook(lambda gradient: gradient * scale) and None
        )
        loss = plain(self, model, draw)
        handle.remove()
        return loss

    monkeypatch.setattr(Training, "loss", scaled)


def middle_of(cut: int) -> Callable[..., None]:
    """Stands for the reference's mean: of each coordinate without so many values at each end."""

    def load(
        model: nn.Module, copies: list[nn.Module], samples: list[int],
        skip: tuple[str, ...] = (), only: tuple[str, ...] | None = None,
    ) -> None:  # fmt: skip
        for key, tensor in model.state_dict().items():
            if (only is None or within(key, only)) and not within(key, skip):
                values = torch.stack([made.state_dict()[key] for made in copies])
                tensor.copy_(values.sort(0).values[cut : len(values) - cut].mean(0))

    return load


@pytest.mark.parametrize("cuts", [*thorough("block1"), "block1,hidden"])
@pytest.mark.parametrize(
    "schedule", ["splitfed_v1", pytest.param("splitfed_v2", marks=slow), pytest.param("parallel", marks=slow)]
)
def test_hostile_phones_scale_their_gradients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, schedule: str, cuts: str
) -> None:
    model = {"name": "digits_cnn", "cuts": cuts}
    settings, result = fit(tmp_path, schedule, phones=TWO, model=model)
    attacked(monkeypatch, settings)
    same = {"splitfed_v1": reference.fedavg, "splitfed_v2": reference.splitfed_v2, "parallel": reference.parallel}
    assert_close_weights(lambda: same[schedule](settings), result.path)


@pytest.mark.parametrize("cuts", [pytest.param("block1", marks=slow), *thorough("block1,hidden")])
def test_in_fedavg_all_of_a_hostile_phones_gradients_are_scaled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cuts: str
) -> None:
    settings, result = fit(tmp_path, "fedavg", phones=TWO, model={"name": "digits_cnn", "cuts": cuts})
    attacked(monkeypatch, settings.with_values(model={"cuts": None}))
    monkeypatch.setattr(reference, "REST", reference.MIDDLE)  # the phone has the loss
    assert_close_weights(lambda: reference.fedavg(settings), result.path)


@pytest.mark.parametrize("cuts", [*thorough("two"), "three"])
@pytest.mark.parametrize("schedule", mostly_thorough(COHORTS, "splitfed_v1"))
def test_hostile_phones_stacked_are_looped_within_rounding(tmp_path: Path, schedule: str, cuts: str) -> None:
    looped = small(tmp_path, schedule, cuts, phones={**TWO, "cohort": 1})
    stacked = small(tmp_path, schedule, cuts, phones={**TWO, "cohort": 7, "stacked": "a,b,c"})
    honest = small(tmp_path, schedule, cuts, phones={"cohort": 1})
    assert model_bytes(looped) != model_bytes(honest)
    assert_same_training(looped, stacked)
    assert stacked.metrics["train_loss"] == pytest.approx(looped.metrics["train_loss"], rel=1e-5)


def test_the_loss_that_is_told_is_the_true_one(tmp_path: Path) -> None:
    for schedule in ("splitfed_v1", "sequential"):
        told = [
            fit(tmp_path, schedule, {"lr": 1e-12}, phones={"local_steps": 1, "hostile": count}, run={"rounds": 1})[1]
            for count in (0, 7)
        ]
        assert told[1].metrics["train_loss"] == pytest.approx(told[0].metrics["train_loss"], rel=1e-6)


@pytest.mark.parametrize("cohort", [pytest.param(1, marks=slow), 3])
@pytest.mark.parametrize(("aggregator", "cut"), [pytest.param("median", 3, marks=slow), ("trimmed_mean", 2)])
@pytest.mark.parametrize(
    "schedule",
    [
        "splitfed_v1",
        *thorough("splitfed_v3"),
        *(pytest.param(n, marks=slow) for n in ("splitfed_v2", "parallel", "fedavg")),
    ],
)
def test_what_is_averaged_is_what_the_aggregator_makes_of_the_phones_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, schedule: str, aggregator: str, cut: int, cohort: int
) -> None:
    phones = {"cohort": cohort} if schedule in COHORTS else {}
    settings, result = fit(tmp_path, schedule, phones=phones, aggregator={"name": aggregator})
    if schedule == "splitfed_v3":  # whose reference gives B the mean of one model, too
        settings = settings.with_values(phones={"held_out": 0.2})
    mean = reference._load_mean

    def load(model: nn.Module, copies: list[nn.Module], samples: list[int], *rest: Any, **more: Any) -> None:
        (middle_of(cut) if len(copies) == 7 else mean)(model, copies, samples, *rest, **more)

    monkeypatch.setattr(reference, "_load_mean", load)
    if schedule == "splitfed_v3":
        assert_close_weights(lambda: reference.splitfed_v3(settings)[0], result.path, only=reference.MIDDLE)
    else:
        same = {"splitfed_v2": reference.splitfed_v2, "parallel": reference.parallel}
        assert_close_weights(lambda: same.get(schedule, reference.fedavg)(settings), result.path)


@pytest.mark.parametrize("aggregator", mostly_thorough(ROBUST, "trimmed_mean"))
def test_v1_is_federated_averaging_with_any_aggregator(tmp_path: Path, aggregator: str) -> None:
    one, other = (small(tmp_path, name, aggregator={"name": aggregator}) for name in ("splitfed_v1", "fedavg"))
    assert_same_training(one, other, 1e-6)


@pytest.mark.parametrize("aggregator", ONE_OF_THE_ROBUST)
@pytest.mark.parametrize("schedule", mostly_thorough(AVERAGING, "splitfed_v1"))
def test_any_number_of_client_actors_gives_the_same_bytes(tmp_path: Path, schedule: str, aggregator: str) -> None:
    sections = {"phones": {"cohort": 2} if schedule in COHORTS else {}, "aggregator": {"name": aggregator}}
    runs = [small(tmp_path, schedule, cluster={"client_actors": n}, **sections) for n in (1, 2, 3)]
    assert len({model_bytes(result) for result in runs}) == 1


@pytest.mark.parametrize("aggregator", mostly_thorough(ROBUST, "trimmed_mean"))
@pytest.mark.parametrize("schedule", mostly_thorough(COHORTS, "splitfed_v1"))
def test_stacked_is_looped_within_rounding_and_weights_cross_as_with_the_mean(
    tmp_path: Path, schedule: str, aggregator: str
) -> None:
    named = {"name": aggregator}
    looped = small(tmp_path, schedule, phones={"cohort": 1}, aggregator=named)
    stacked = small(tmp_path, schedule, phones={"cohort": 7, "stacked": "a,b,c"}, aggregator=named)
    assert_same_training(looped, stacked)
    mean = small(tmp_path, schedule, phones={"cohort": 7})
    for name in ("bytes_weights", "bytes_up", "bytes_down"):
        assert looped.metrics[name] == stacked.metrics[name] == mean.metrics[name]


def first_of(rows: dict, shares: np.ndarray, start: dict, at: int = 0) -> dict:
    return {key: array[at] for key, array in rows.items()}


@pytest.mark.parametrize("schedule", ["splitfed_v1", *thorough("splitfed_v2", "parallel", "fedavg")])
def test_an_aggregator_of_ones_own_makes_a_c_and_copies_of_b(tmp_path: Path, schedule: str) -> None:
    phones = {"cohort": 2} if schedule in COHORTS else {}
    own = {"name": "tests.runs.phones.test_robust:first_of"}
    one, other = (
        small(tmp_path, schedule, phones={**phones, "local_steps": 1}, aggregator={**own, "kwargs": {"at": at}})
        for at in (0, 1)
    )
    first, second = (rs.load_model(result.path, trust=True).state_dict() for result in (one, other))
    different = {key for key in first if not torch.equal(first[key], second[key])}
    assert different == first.keys()  # B of splitfed_v2 and parallel too, in the second round


def alike(copies: int) -> rs.DataSet:
    """The same samples several times over: a phone each, by `in_turn`."""
    draw = np.random.default_rng(0)
    part = rs.Part(draw.standard_normal((30, 4)).astype(np.float32), draw.integers(0, 3, 30))
    train = rs.Part(np.tile(part.inputs, (copies, 1)), np.tile(part.labels, copies))
    return rs.DataSet(train, part, 3)


def in_turn(labels: np.ndarray, settings: Any, count: int, draw: np.random.Generator) -> np.ndarray:
    return np.repeat(np.arange(count), len(labels) // count)


@pytest.mark.parametrize("aggregator", mostly_thorough(ROBUST, "median"))
@pytest.mark.parametrize("schedule", ["splitfed_v1", *thorough("fedavg")])
def test_three_phones_that_are_the_same_give_what_one_does(tmp_path: Path, schedule: str, aggregator: str) -> None:
    one, three = (
        small(
            tmp_path, schedule, phones={"count": count, "local_epochs": 3}, aggregator={"name": aggregator},
            data={
                "name": "tests.runs.phones.test_robust:alike", "kwargs": {"copies": count}, "val_fraction": 0,
                "batch_size": 30, "partition": {"name": "tests.runs.phones.test_robust:in_turn"},
            },
        )
        for count in (1, 3)
    )  # fmt: skip
    assert_same_training(one, three, 1e-6)


@pytest.mark.parametrize("aggregator", ONE_OF_THE_ROBUST)
def test_statistics_stay_local_and_personal_states_with_their_phone(tmp_path: Path, aggregator: str) -> None:
    model = {"name": "tests.nets:with_batchnorm", "cuts": "2,8"}
    phones, named = {"count": 3, "cohort": 3, "local_steps": 2}, {"name": aggregator}
    local = {"schedule": {"kwargs": {"statistics": "local"}}, "phones": phones, "model": model}
    _, result = fit(tmp_path, "splitfed_v1", aggregator=named, **local)
    own = [personal_weights(result, phone) for phone in range(3)]
    assert [int(keys["1.num_batches_tracked"]) for keys in own] == [4, 4, 4]
    assert not np.allclose(own[0]["1.running_mean"], own[1]["1.running_mean"])
    assert int(rs.load_model(result.path, trust=True).state_dict()["1.num_batches_tracked"]) == 4
    _, result = fit(tmp_path, "splitfed_v3", aggregator=named, phones={**phones, "held_out": 0.2}, model=model)
    own = [personal_weights(result, phone) for phone in range(3)]
    assert not np.allclose(own[0]["0.weight"], own[1]["0.weight"])


@pytest.mark.parametrize("freeze", ["a", *thorough("b")])
def test_what_is_frozen_stays_and_is_not_sent(tmp_path: Path, freeze: str) -> None:
    mean, median = (
        small(tmp_path, "splitfed_v1", aggregator={"name": name}, model={"freeze": freeze})
        for name in ("mean", "median")
    )
    first, trained = (rs.load_model(result.path, trust=True).state_dict() for result in (mean, median))
    same = {key.partition(".")[0] for key in first if torch.equal(first[key], trained[key])}
    assert same == {freeze}
    assert median.metrics["bytes_weights"] == mean.metrics["bytes_weights"]


@pytest.mark.parametrize("schedule", ["sequential", "unsplit"])
def test_where_nothing_is_averaged_an_aggregator_is_refused(tmp_path: Path, schedule: str) -> None:
    with pytest.raises(rs.SettingsError, match=r"aggregator\.name: .* nothing is averaged"):
        fit(tmp_path, schedule, aggregator={"name": "median"})
    assert not list(tmp_path.iterdir())


@slow
@pytest.mark.parametrize("schedule", AVERAGING)
def test_both_backends_give_the_same_bytes(tmp_path: Path, ray_session: object, schedule: str) -> None:
    phones = {**TWO, "cohort": 3} if schedule in COHORTS else TWO
    local, remote = (
        small(tmp_path, schedule, phones=phones, aggregator={"name": "norm_clipping"}, cluster={"backend": backend})
        for backend in ("inprocess", "ray")
    )
    assert model_bytes(local) == model_bytes(remote)
    for name in ("train_loss", "test_accuracy", "bytes_up", "bytes_down", "bytes_weights"):
        assert local.metrics[name] == remote.metrics[name]
