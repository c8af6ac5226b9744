from __future__ import annotations

import numpy as np
import pytest

import ray_split as rs
from ray_split.preparation.prepare import prepare


def test_a_loss_that_would_broadcast_is_refused_for_a_batch_of_one_too() -> None:
    settings = rs.Config(
        task={"loss": "mse"},
        data={"name": "tests.nets:rows", "batch_size": 1},
        model={"num_classes": 10},
        run={"name": "x"},
    )
    with pytest.raises(rs.SettingsError, match=r"task\.loss: mse can't take outputs .*same shape"):
        prepare(settings)


def prepared(**sections: dict) -> rs.Config:
    return prepare(rs.Config(run={"name": "x"}, **sections)).settings


def refusal(**sections: dict) -> rs.SettingsError:
    with pytest.raises(rs.SettingsError) as caught:
        prepared(**sections)
    return caught.value


@pytest.mark.parametrize(
    ("schedule", "held_out"),
    [("sequential", 0.0), ("splitfed_v1", 0.0), ("splitfed_v2", 0.0), ("splitfed_v3", 0.2), ("parallel", 0.0)],
)
@pytest.mark.few(3)
def test_phones_hold_samples_out_where_models_are_their_own_or_if_asked_to(schedule: str, held_out: float) -> None:
    settings, _, stream, *_ = prepare(rs.Config(schedule={"name": schedule}, run={"name": "x"}))
    assert settings.phones.held_out == held_out == stream.partition.held_out
    asked = prepared(schedule={"name": schedule}, phones={"held_out": 0.3})
    assert asked.phones.held_out == 0.3


def test_personal_models_without_a_sample_to_evaluate_them_on_are_refused() -> None:
    v3 = {"name": "splitfed_v3"}
    for phones in ({"held_out": 0}, {"count": 400}, {"count": 20, "held_out": 0.001}):
        error = refusal(schedule=v3, phones=phones)
        assert error.field == "phones.held_out"
        assert "leaves no phone a sample to hold out" in str(error)
    assert prepared(schedule=v3, phones={"count": 400, "held_out": 0.4}).phones.held_out == 0.4
    assert prepared(phones={"held_out": 0}).phones.held_out == 0


def test_the_stream_that_is_prepared_has_the_cohorts_that_were_settled() -> None:
    settings, _, stream, *_ = prepare(
        rs.Config(schedule={"name": "splitfed_v1"}, phones={"cohort": 6}, run={"name": "x"})
    )
    assert settings.phones.cohort == stream.cohort == 6
    assert [len(phones) for phones in stream.cohorts(0)] == [5, 5, 5, 5]


def flat(batch: int, phones: dict) -> dict:
    """17 samples to train on, and a BatchNorm over the batch alone."""
    return {
        "model": {"name": "tests.nets:flat_batchnorm", "cuts": "1,3"},
        "data": {"name": "tests.nets:blobs", "kwargs": {"samples": 21}, "val_fraction": 0, "batch_size": batch},
        "phones": {"count": 1, **phones},
    }


@pytest.mark.parametrize(
    ("phones", "batch"),
    [
        ({}, 16), ({"local_steps": 2}, 16), ({"local_epochs": 2}, 16), ({"local_steps": 4, "held_out": 0.25}, 4),
        ({"held_out": 0.1}, 15), ({"count": 17}, 16),
    ],
    ids=str,
)  # fmt: skip
def test_a_batch_of_one_is_refused_for_batchnorm_wherever_it_comes_in_the_stream(phones: dict, batch: int) -> None:
    error = refusal(**flat(batch, phones))
    assert (error.field, error.value) == ("data.batch_size", batch)
    assert "a batch of one sample, but BatchNorm needs two" in str(error)


@pytest.mark.parametrize(
    ("phones", "batch"),
    [({"local_steps": 1}, 16), ({}, 15), ({}, 17), ({}, 100), ({"held_out": 0.1}, 16), ({"count": 8}, 16)],
    ids=str,
)
def test_batchnorm_is_taken_where_no_batch_of_one_comes(phones: dict, batch: int) -> None:
    assert prepared(**flat(batch, phones)).data.batch_size == batch


@pytest.mark.parametrize(
    ("phones", "batch"), [({}, 16), ({"local_epochs": 2}, 4), ({"count": 3, "held_out": 0.1}, 4), ({}, 1)], ids=str
)
def test_the_batch_size_that_is_named_instead_of_one_with_a_batch_of_one_helps(phones: dict, batch: int) -> None:
    error = refusal(**flat(batch, phones))
    instead = int(error.allowed.partition("such as ")[2].partition(".")[0])
    assert prepared(**flat(instead, phones)).data.batch_size == instead
    assert f"with batches of {batch}, phone" in str(error)


def test_where_no_batch_size_helps_the_phones_with_one_sample_are_named() -> None:
    """Of 17 samples two phones have 6 and 5, and the others have one each."""
    one = flat(4, {"count": 8})
    one["data"] |= {"partition": {"name": f"{__name__}:first_have_most"}}
    error = refusal(**one)
    assert "phones 0, 1, 2, 3, 4, ... have only one sample, and so a batch of one" in str(error)
    assert "left_out" not in str(error)
    few = flat(4, {"count": 4})
    few["data"] |= one["data"]
    error = refusal(**few)
    assert "phones 0, 1 have only one sample" in str(error)
    assert str(error).endswith("or set phones.left_out to '{0: 0, 1: 0}'.")
    few["phones"]["left_out"] = {0: 0, 1: 0}
    few["data"]["batch_size"] = 8
    assert prepared(**few).phones.left_out == {0: 0, 1: 0}


def first_have_most(labels: np.ndarray, settings: object, count: int, draw: object) -> np.ndarray:
    """The last two phones share what the others don't take, one each."""
    own = np.arange(len(labels)) if count < 17 else None
    assert own is not None
    return np.where(own < count - 2, own, count - 2 + own % 2)


def test_data_that_a_model_does_not_take_is_told_by_its_shape_and_type() -> None:
    words = {"name": f"{__name__}:whole_numbers"}
    line = str(refusal(data=words))
    assert "1, 8, 8) of int64" in line and "return them as float32" in line
    line = str(refusal(data={"name": f"{__name__}:channels_last"}))
    assert "8, 8, 3) of float32" in line and "inputs.transpose(0, 3, 1, 2)" in line


def whole_numbers() -> tuple[np.ndarray, np.ndarray]:
    return np.ones((640, 1, 8, 8), np.int64), np.arange(640) % 2


def channels_last() -> tuple[np.ndarray, np.ndarray]:
    return np.ones((640, 8, 8, 3), np.uint8), np.arange(640) % 2
