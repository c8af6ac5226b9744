"""What phones train on: the same whoever computes it, and what a reference can replay."""

import numpy as np
import pytest
import torch

import ray_split as rs
from ray_split.data.types import Parts
from ray_split.messages.turn import Turn
from ray_split.preparation.prepare import prepare
from tests import reference
from tests.reference import assert_close_weights, assert_same_weights


def settings(augment="flip", schedule="splitfed_v1", cohort=1, **sections):
    return rs.Config(
        data={"augment": augment, "batch_size": 24, "partition": {"name": "dirichlet", "alpha": 1.0}},
        schedule={"name": schedule},
        phones={"count": 5, "cohort": cohort},
        optimizer={"lr": 0.05},
        **sections,
    )


def fit(path, clients=1, **kwargs):
    run = {"storage_path": str(path), "name": f"run_{len(list(path.iterdir()))}", "rounds": 2}
    config = settings(cluster={"backend": "inprocess", "client_actors": clients}, run=run, **kwargs)
    return config, rs.fit(config, callbacks=[])


@pytest.mark.parametrize("augment", [None, "crop_flip"])
def test_a_cohorts_batches_are_those_of_its_phones_one_by_one(augment):
    config = settings(augment, cohort=5, run={"name": "x"})
    batches, stream = rs.Batches(config, rs.load_data(config.data)), prepare(config).stream
    phones = stream.cohorts(1)[0]
    own = {(draw.phone, draw.step): batches.of(draw) for draw in stream.draws(1)}
    for step, groups in enumerate(stream.cohort_batches(1, phones)):
        found = batches.of_groups(Turn(1, 0, phones, step), groups)
        rows = [(inputs, labels) for group in found for inputs, labels in zip(*group, strict=True)]
        for phone, (inputs, labels) in zip(phones, rows, strict=False):
            expected = own.pop((phone, step))
            assert (inputs == expected[0]).all() and (labels == expected[1]).all()
    assert not own


def test_without_augmentation_a_batch_is_that_of_the_data():
    config = settings(None)
    data = rs.load_data(config.data)
    draw = next(rs.stream(config))
    for found, expected in zip(rs.Batches(config, data).of(draw), data.batch("train", draw.indices), strict=True):
        assert (found == expected).all()


def test_augmentation_changes_with_the_run_round_phone_and_step():
    config = settings("crop_flip")
    data = rs.load_data(config.data)
    draw = next(rs.stream(config))
    changed = [draw._replace(**{name: 3}) for name in ("round", "phone", "step")]
    first = rs.Batches(config, data).of(draw)[0]
    for inputs in [rs.Batches(config, data).of(other)[0] for other in changed]:
        assert (inputs != first).any()
    other = config.with_values(run={"seed": 1})
    assert (rs.Batches(other, data).of(draw)[0] != first).any()
    assert (rs.Batches(config, data).of(draw._replace(order=9))[0] == first).all()
    assert (first != data.batch("train", draw.indices)[0]).any()


def test_bytes_are_augmented_before_they_are_normalised():
    images = np.full((10, 3, 8, 8), 255, np.uint8)
    part = rs.Part(images, np.arange(10))
    parts = Parts(part, part, part, 10, 1 / 255, -0.5)
    found, _ = rs.Batches(settings("crop_flip"), parts).of(rs.Draw(0, 0, 0, 0, np.arange(10)))
    assert set(np.unique(found)) == {-0.5, 0.5}  # what is shifted in is black, not grey


@pytest.mark.few(1)
@pytest.mark.parametrize("schedule", ["sequential", "splitfed_v2"])
def test_augmented_training_is_the_references_bit_for_bit(tmp_path, schedule):
    config, result = fit(tmp_path, schedule=schedule)
    if schedule == "sequential":
        assert_same_weights(reference.unsplit(config), result.path)
    else:
        trained = rs.load_model(result.path, trust=True).state_dict()
        expected = reference.splitfed_v2(config).state_dict()
        assert all(torch.equal(trained[k], v) for k, v in expected.items() if reference.within(k, reference.MIDDLE))


@pytest.mark.thorough
@pytest.mark.few(1)
def test_augmented_training_is_federated_averaging_stacked_or_looped_on_any_number_of_clients(tmp_path):
    config, looped = fit(tmp_path)
    assert_close_weights(lambda: reference.fedavg(config), looped.path)
    for kwargs in ({"cohort": 5}, {"cohort": 3, "clients": 2}):
        assert_close_weights(lambda: reference.fedavg(config), fit(tmp_path, **kwargs)[1].path)
    assert_same_weights(rs.load_model(looped.path, trust=True), fit(tmp_path, clients=2)[1].path)


def test_evaluation_is_not_augmented(tmp_path):
    config, result = fit(tmp_path, augment="crop_flip", schedule="sequential")
    model, data = rs.load_model(result.path, trust=True), rs.load_data(config.data)
    inputs, labels = data.batch("test", slice(None))
    right = (model(torch.from_numpy(inputs)).argmax(1).numpy() == labels).mean()
    assert result.metrics["test_accuracy"] == pytest.approx(right)


@pytest.mark.parametrize(
    ("data", "field", "allowed"),
    [
        ({"augment": "tests.nets:smaller_images"}, "data.augment", "Return a transform that keeps shape and type"),
        (
            {"augment": "mirror"},
            "data.augment",
            "The augmentations are crop_flip, flip, random_resized_crop and trivial_augment",
        ),
        ({"name": "synthetic", "kwargs": {"shape": [64], "samples": 99}, "augment": "flip"}, "data.augment", "(64,)"),
        (
            {"name": "tests.nets:unreadable"},
            "data.name",
            "a sample of tests.nets:unreadable can't be read: OSError: no such sample",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_read_or_augmented_is_refused_before_the_start(data, field, allowed):
    with pytest.raises(rs.SettingsError) as caught:
        prepare(rs.Config(data=data, phones={"count": 3}, run={"name": "x"}))
    assert caught.value.field == field
    assert allowed in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
