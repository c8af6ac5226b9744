"""Single split, A | B: every schedule against the plain reference, and what the server is sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import ray_split as rs
from tests import reference
from tests.reference import assert_close_weights, assert_same_training, assert_same_weights
from tests.runs.equality.test_schedules import (
    ADAM,
    ALL,
    COHORTS,
    MOMENTUM,
    OPTIMIZERS,
    SGD,
    assert_close_personal_weights,
    fit,
    model_bytes,
    personal_weights,
)
from tests.tiers import mostly_thorough, slow, thorough

ONE_CUT = {"name": "digits_cnn", "cuts": "block1"}
BATCHNORM = {"name": "tests.nets:with_batchnorm", "cuts": "2"}
DROPOUT = {"name": "tests.nets:with_dropout", "cuts": "2"}


@pytest.mark.few(thorough=3)
@pytest.mark.parametrize("optimizer", mostly_thorough([SGD, MOMENTUM, ADAM], ADAM), ids=OPTIMIZERS)
@pytest.mark.parametrize("schedule", mostly_thorough(ALL, "sequential", "splitfed_v2", "splitfed_v3"))
def test_one_phone_is_unsplit_bit_for_bit(tmp_path: Path, schedule: str, optimizer: dict[str, Any]) -> None:
    phones = {"count": 1, "held_out": 0.2, "local_steps": 9}
    settings, result = fit(tmp_path, schedule, optimizer, phones=phones, run={"rounds": 1}, model=ONE_CUT)
    assert_same_weights(reference.unsplit(settings), result.path)


@pytest.mark.parametrize("schedule", mostly_thorough(ALL, "sequential", "splitfed_v1", "parallel"))
def test_one_phone_with_batchnorm_is_unsplit_bit_for_bit(tmp_path: Path, schedule: str) -> None:
    settings, result = fit(tmp_path, schedule, phones={"count": 1, "held_out": 0.2, "local_steps": 5}, model=BATCHNORM)
    assert_same_weights(reference.unsplit(settings), result.path)


@pytest.mark.parametrize("schedule", mostly_thorough(ALL, "sequential", "fedavg"))
def test_one_phone_with_dropout_is_unsplit_bit_for_bit(tmp_path: Path, schedule: str) -> None:
    settings, result = fit(tmp_path, schedule, phones={"count": 1, "held_out": 0.2, "local_steps": 5}, model=DROPOUT)
    assert_same_weights(reference.unsplit(settings), result.path)


@pytest.mark.parametrize("schedule", ["sequential", *thorough("unsplit")])
def test_many_phones_in_sequence_are_unsplit_bit_for_bit(tmp_path: Path, schedule: str) -> None:
    settings, result = fit(tmp_path, schedule, ADAM, model=ONE_CUT)
    assert_same_weights(reference.unsplit(settings), result.path)


@pytest.mark.parametrize("cohort", mostly_thorough([1, 3, 7], 3))
@pytest.mark.parametrize("schedule", ["splitfed_v1", *thorough("fedavg")])
def test_v1_is_federated_averaging(tmp_path: Path, schedule: str, cohort: int) -> None:
    settings, result = fit(tmp_path, schedule, MOMENTUM, phones={"cohort": cohort}, model=ONE_CUT)
    assert_close_weights(lambda: reference.fedavg(settings), result.path)


def test_v2_takes_the_phones_in_the_drawn_order(tmp_path: Path) -> None:
    settings, result = fit(tmp_path, "splitfed_v2", MOMENTUM, phones={"count": 3}, model=ONE_CUT)
    assert_close_weights(lambda: reference.splitfed_v2(settings), result.path)


@pytest.mark.parametrize("cohort", [*thorough(1), 7])
def test_v3_keeps_a_with_its_phone(tmp_path: Path, cohort: int) -> None:
    phones = {"cohort": cohort, "held_out": 0.2}
    settings, result = fit(tmp_path, "splitfed_v3", MOMENTUM, phones=phones, model=ONE_CUT)
    assert_close_weights(lambda: reference.trained(settings), result.path)
    assert_close_personal_weights(settings, result)
    assert personal_weights(result, 0).keys() == {"block1.0.weight", "block1.0.bias"}


@pytest.mark.parametrize("batch", ["accumulated", *thorough("joint")])
@pytest.mark.parametrize("cohort", mostly_thorough([1, 3, 7], 3))
def test_parallel_is_a_joint_step_weighted_by_batch_size(tmp_path: Path, cohort: int, batch: str) -> None:
    schedule = {"kwargs": {"batch": batch}}
    settings, result = fit(tmp_path, "parallel", MOMENTUM, phones={"cohort": cohort}, model=ONE_CUT, schedule=schedule)
    assert_close_weights(lambda: reference.parallel(settings), result.path)


@pytest.mark.parametrize("schedule", mostly_thorough(COHORTS, "splitfed_v1"))
def test_stacked_is_looped_and_counts_the_same(tmp_path: Path, schedule: str) -> None:
    looped = fit(tmp_path, schedule, phones={"cohort": 1}, model=ONE_CUT)[1]
    stacked = fit(tmp_path, schedule, phones={"cohort": 7, "stacked": ["a", "b"]}, model=ONE_CUT)[1]
    assert_same_training(looped, stacked)
    for name in ("bytes_up", "bytes_down", "samples"):
        assert stacked.metrics[name] == looped.metrics[name]
    for name in ("train_loss", "test_loss"):
        assert stacked.metrics[name] == pytest.approx(looped.metrics[name], rel=1e-5)


@pytest.mark.parametrize("schedule", ["parallel", *slow("sequential", "splitfed_v1", "splitfed_v2", "splitfed_v3")])
@pytest.mark.thorough
def test_both_backends_and_any_number_of_clients_give_the_same_bytes(
    tmp_path: Path, ray_session: object, schedule: str
) -> None:
    phones = {"cohort": 3} if schedule in COHORTS else {}
    runs = [fit(tmp_path, schedule, MOMENTUM, phones=phones, model=ONE_CUT)[1]]
    runs += [
        fit(
            tmp_path, schedule, MOMENTUM, phones=phones, model=ONE_CUT,
            cluster={"backend": "ray", "client_actors": 1}, server={"num_gpus": 0},
        )[1]
    ]  # fmt: skip
    assert len({model_bytes(result) for result in runs}) == 1
    for name in ("train_loss", "test_accuracy", "bytes_up", "bytes_down", "bytes_weights"):
        assert len({result.metrics[name] for result in runs}) == 1


def test_what_crosses_is_the_activation_with_labels_and_its_gradient(tmp_path: Path) -> None:
    _, result = fit(tmp_path, "sequential", model=ONE_CUT)
    activation = 16 * 8 * 8 * 4
    assert result.metrics["bytes_up"] == result.metrics["samples"] * (activation + 8)
    assert result.metrics["bytes_down"] == result.metrics["samples"] * activation


@pytest.mark.thorough
def test_the_loss_on_the_server_is_the_loss_that_double_split_has(tmp_path: Path) -> None:
    single, double = (
        fit(tmp_path, "sequential", model={"name": "digits_cnn", "cuts": cuts})[1].metrics
        for cuts in ("block1", "block1,hidden")
    )
    for name in ("train_loss", "val_loss", "val_accuracy", "test_loss", "test_accuracy"):
        assert single[name] == double[name]


def test_there_is_no_c_to_freeze(tmp_path: Path) -> None:
    with pytest.raises(
        rs.SettingsError, match=(r"model\.freeze: can't contain c, " r"because with one cut .* Freeze a or b")
    ):
        fit(tmp_path, "sequential", model={**ONE_CUT, "freeze": "c"})
