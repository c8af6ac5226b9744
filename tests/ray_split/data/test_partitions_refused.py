"""Partitions of a user's own, and what no partition can deal."""

import sys

import numpy as np
import pytest

from ray_split import config
from ray_split.data import partitions
from ray_split.errors import SettingsError

MODULE = """
import numpy as np

def halves(labels, settings, count, draw):
    return [0 if place < len(labels) // 2 else 1 for place in range(len(labels))]

def by_class(labels, settings, count, draw):
    return labels % count

def drawn(labels, settings, count, draw):
    return draw.permutation(len(labels)) % count

def pairs(labels, settings, count, draw, groups):
    return 2 * groups[settings.by] + np.arange(len(labels)) // 2 % 2

def short(labels, settings, count, draw):
    return np.zeros(len(labels) - 1, int)

def fractions(labels, settings, count, draw):
    return np.zeros(len(labels))

def nobody(labels, settings, count, draw):
    return np.full(len(labels), -1)

def too_many(labels, settings, count, draw):
    return np.full(len(labels), count)

def of_numpys(labels, settings, count, draw):
    return np.random.randint(0, count, len(labels))

def lists(labels, settings, count, draw):
    return [np.arange(phone, len(labels), count) for phone in range(count)]

number = 3
"""
CLASSES = np.random.default_rng(0).integers(0, 10, 6000)


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "their_partition.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield "their_partition"
    sys.modules.pop("their_partition", None)


def deal(labels, count, seed=0, held_out=0.0, groups=None, **partition):
    settings = config.Config(
        phones={"count": count, "held_out": held_out}, data={"partition": partition}, run={"seed": seed}
    )
    return partitions.deal(settings, labels, groups)


def refusal(*arguments, **keywords):
    with pytest.raises(SettingsError) as caught:
        deal(*arguments, **keywords)
    assert len(str(caught.value).splitlines()) == 1
    return caught.value


def test_more_phones_than_samples_are_refused():
    error = refusal(np.zeros(5), 6)
    assert (error.field, error.value) == ("phones.count", 6)
    assert "is 6, but there are only 5 training samples" in str(error)
    assert len(deal(np.zeros(5), 5)) == 5
    assert "every phone needs at least 2 (data.partition.min_samples). Use 2 or fewer" in str(
        refusal(np.zeros(5), 3, min_samples=2)
    )
    assert len(deal(np.zeros(5), 2, min_samples=2)) == 2


def test_too_few_samples_for_some_phones_are_refused_with_what_to_change():
    error = refusal(CLASSES[:60], 12, name="dirichlet", alpha=0.01)
    assert (error.field, error.value) == ("data.partition", "dirichlet")
    assert "of 12 phones would have fewer than 1 sample." in str(error)
    assert "Lower phones.count, raise data.partition.alpha, or use more samples." in str(error)


def test_more_shards_than_samples_are_refused():
    error = refusal(np.zeros(11, int), 4, name="shards", shards_per_phone=3)
    assert (error.field, error.value) == ("data.partition.shards_per_phone", 3)
    assert "need 12 samples, but there are only 11" in str(error)
    assert set(np.diff(deal(np.zeros(12, int), 4, name="shards", shards_per_phone=3).offsets)) == {3}


@pytest.mark.parametrize("labels", [np.zeros(50), np.zeros((50, 2), int)], ids=["numbers", "rows"])
@pytest.mark.parametrize("name", ["dirichlet", "shards"])
def test_labels_that_are_no_classes_are_dealt_by_iid_alone(name, labels):
    error = refusal(labels, 3, name=name)
    assert (error.field, error.value) == ("data.partition.name", name)
    length = ", or data.partition.by to length" if labels.ndim == 2 else ""
    assert str(error).endswith(f"because the labels aren't classes. Set iid{length}.")
    assert len(deal(labels, 3)) == 3


def test_an_unknown_partition_is_refused():
    error = refusal(np.zeros(50), 3, name="idd")
    assert error.field == "data.partition.name"
    assert "Did you mean iid?" in str(error)


def test_a_function_of_the_users_deals(module):
    dealt = deal(np.arange(10), 2, name=f"{module}:halves")
    assert [sorted(dealt.of(phone)) for phone in (0, 1)] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    dealt = deal(CLASSES, 10, name=f"{module}:by_class")
    assert all(set(CLASSES[dealt.of(phone)]) == {phone} for phone in range(10))


def test_a_users_function_draws_by_the_runs_seed(module):
    one, same, other = (deal(np.zeros(30), 3, seed, name=f"{module}:drawn") for seed in (4, 4, 5))
    assert one.indices.tolist() == same.indices.tolist() != other.indices.tolist()


@pytest.mark.parametrize("name", ["short", "fractions", "nobody", "too_many"])
def test_a_users_function_that_does_not_name_every_samples_phone_is_refused(module, name):
    error = refusal(np.zeros(20), 4, name=f"{module}:{name}")
    assert (error.field, error.value) == ("data.partition.name", f"{module}:{name}")
    assert "must return the phone (0 to 3) of each of the 20 samples" in str(error)


@pytest.mark.parametrize(
    ("name", "samples", "line"),
    [
        ("of_numpys", 200, "deals in another way each time it is called. Draw from its argument draw alone"),
        ("lists", 20, "returned a list of lists. Return the phone of each sample: owner = np.empty"),
        ("lists", 21, "returned a list of lists. Return the phone of each sample: owner = np.empty"),
    ],
)
def test_a_users_function_that_deals_otherwise_is_told_how_to(module, name, samples, line):
    assert f"{module}:{name} {line}" in str(refusal(np.zeros(samples), 4, name=f"{module}:{name}"))


@pytest.mark.parametrize(
    ("name", "allowed"),
    [("nope", "the module 'their_partition' has no function 'nope'"), ("number", "is a int. Name a function")],
)
def test_a_users_function_that_is_none_is_refused(module, name, allowed):
    assert allowed in str(refusal(np.zeros(20), 4, name=f"{module}:{name}"))


def test_a_users_function_that_leaves_a_phone_out_is_refused(module):
    error = refusal(np.zeros(20), 3, name=f"{module}:halves")
    assert (error.field, error.value) == ("data.partition", f"{module}:halves")
    assert "1 of 3 phones would have fewer than 1 sample. Lower phones.count." in str(error)


def test_a_users_function_is_given_the_ids_if_it_has_a_place_for_them(module):
    groups = {"writer": np.array([0, 1] * 4)}
    dealt = deal(np.zeros(8), 4, groups=groups, name=f"{module}:pairs", by="writer")
    assert [sorted(dealt.of(phone)) for phone in range(4)] == [[0, 4], [2, 6], [1, 5], [3, 7]]


IDS = {"writer": np.arange(6000) % 30, "user": np.arange(6000) % 9}


@pytest.mark.parametrize(
    ("groups", "by", "count", "field", "allowed"),
    [
        (None, None, 3, "data.partition.name", "Set iid, dirichlet or shards"),
        ({}, "writer", 3, "data.partition.name", "the data set has no ids"),
        (IDS, None, 3, "data.partition.by", "is not set, but the data set has several kinds of ids"),
        (
            IDS,
            "writers",
            3,
            "data.partition.by",
            "data.partition.by: there are no ids 'writers'. Did you mean writer? Set user or writer.",
        ),
        (IDS, "user", 10, "phones.count", "is 10, but the training samples are from only 9 user ids"),
        (IDS, "writer", 31, "phones.count", "is 31, but the training samples are from only 30 writer ids"),
    ],
)
def test_ids_that_are_not_there_are_refused_with_those_that_are(groups, by, count, field, allowed):
    error = refusal(CLASSES, count, groups=groups, name="natural", by=by)
    assert error.field == field
    assert allowed in str(error)


@pytest.mark.parametrize("name", ["iid", "dirichlet", "shards"])
def test_by_is_naturals_alone(name):
    error = refusal(CLASSES, 3, groups=IDS, name=name, by="writer")
    assert (error.field, error.value) == ("data.partition.by", "writer")
    assert error.wrong == f"can't be used with data.partition.name {name}"
