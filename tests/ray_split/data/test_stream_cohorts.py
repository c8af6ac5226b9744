"""Cohorts: which phones train together, on which batches, and how much each counts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_split import config
from ray_split.data import partitions
from ray_split.data.stream import Stream
from ray_split.messages.turn import Turn
from ray_split.schedules import schedule_of

UNEVEN = [3, 17, 8, 1, 8, 25, 3, 9, 16, 8]  # samples of ten phones


def stream_of(sizes=UNEVEN, batch_size=4, seed=0, schedule="splitfed_v1", held_out=0.0, **phones):
    settings = config.Config(
        phones={"count": len(sizes), **phones}, data={"batch_size": batch_size}, run={"seed": seed},
        schedule={"name": schedule},
    )  # fmt: skip
    indices = np.random.default_rng(1).permutation(sum(sizes))
    order = schedule_of(settings.schedule).order
    return Stream(settings, partitions.Partition(indices, np.concatenate([[0], np.cumsum(sizes)]), held_out), order)


def by_phone(stream, round, phones):
    """Each phone's batches, picked out of its cohort's groups."""
    batches = {phone: [] for phone in phones}
    for groups in stream.cohort_batches(round, phones):
        rows = [row for group in groups for row in group]
        for phone, row in zip(phones, rows, strict=False):
            batches[phone].append(row.tolist())
        assert len(rows) <= len(phones)
    return batches


@pytest.mark.parametrize("cohort", [1, 2, 3, 4, 6, 100])
@pytest.mark.parametrize("per_round", [1, 5, 10])
def test_cohorts_cover_the_rounds_phones_once(cohort, per_round):
    stream = stream_of(cohort=cohort, per_round=per_round)
    for round in range(4):
        cohorts = stream.cohorts(round)
        assert sorted(phone for phones in cohorts for phone in phones) == sorted(stream.phones(round))
        sizes = [len(phones) for phones in cohorts]
        assert max(sizes) <= cohort
        assert max(sizes) - min(sizes) <= 1
        assert len(sizes) == -(-per_round // cohort)


def test_cohorts_of_one_are_the_rounds_phones_those_with_most_samples_first():
    cohorts = stream_of(cohort=1).cohorts(3)
    assert [UNEVEN[phone] for (phone,) in cohorts] == sorted(UNEVEN, reverse=True)
    assert stream_of(cohort="auto").cohorts(3) == cohorts
    stream = stream_of([8] * 10, cohort=1)
    assert stream.cohorts(3) == [(phone,) for phone in stream.phones(3)]


def test_cohorts_follow_from_the_settings_alone():
    one, other = stream_of([8] * 10, cohort=3), stream_of([8] * 10, cohort=3)
    before = [one.cohorts(round) for round in range(4)]
    np.random.seed(9)
    assert [other.cohorts(round) for round in reversed(range(4))] == before[::-1]
    assert len({tuple(cohorts) for cohorts in before}) == 4
    assert stream_of([8] * 10, cohort=3, seed=1).cohorts(0) != before[0]


@pytest.mark.parametrize("phones", [{}, {"local_epochs": 2}, {"local_steps": 3}], ids=str)
def test_the_phones_with_a_batch_at_a_step_are_their_cohorts_first(phones):
    stream = stream_of(cohort=4, **phones)
    for phones in stream.cohorts(2):
        steps = stream.steps(phones)
        assert (np.diff(stream.samples(phones)) <= 0).all()
        assert (np.diff(steps) <= 0).all()
        assert len(stream.cohort_batches(2, phones)) == steps[0]
        for step, groups in enumerate(stream.cohort_batches(2, phones)):
            assert sum(len(group) for group in groups) == (steps > step).sum()


@pytest.mark.parametrize(
    "phones",
    [{}, {"local_epochs": 2}, {"local_steps": 1}, {"local_steps": 9}, {"local_epochs": 2, "held_out": 0.3}],
    ids=str,
)
@pytest.mark.parametrize("cohort", [2, 4, 10])
def test_a_cohorts_batches_are_those_of_its_phones_one_by_one(phones, cohort):
    held_out = phones.get("held_out", 0.0)
    stream = stream_of(cohort=cohort, **{"held_out": held_out, **phones})
    for round in (0, 5):
        for phones in stream.cohorts(round):
            expected = {phone: [b.tolist() for b in stream.batches(round, phone)] for phone in phones}
            assert by_phone(stream, round, phones) == expected


@given(sizes=st.lists(st.integers(1, 30), min_size=2, max_size=8), batch=st.integers(1, 9), epochs=st.integers(1, 3))
def test_every_sample_comes_once_an_epoch_in_batches_of_the_size_that_is_told(sizes, batch, epochs):
    stream = stream_of(sizes, batch, cohort=len(sizes), local_epochs=epochs)
    (phones,) = stream.cohorts(0)
    batches = by_phone(stream, 0, phones)
    for phone, own in batches.items():
        count = len(own) // epochs
        for i in range(epochs):
            one_pass = sorted(index for rows in own[i * count : (i + 1) * count] for index in rows)
            assert one_pass == sorted(stream.partition.of(phone).tolist())
    for step in range(stream.steps(phones)[0] + 1):
        lengths = [len(batches[phone][step]) if step < len(batches[phone]) else 0 for phone in phones]
        assert stream.batch_sizes(np.array(phones), step).tolist() == lengths


def test_neighbours_with_equally_large_batches_are_one_group():
    stream = stream_of([10, 10, 7, 7, 4], batch_size=4, cohort=5)
    (phones,) = stream.cohorts(0)
    shapes = [[group.shape for group in groups] for groups in stream.cohort_batches(0, phones)]
    assert shapes == [[(5, 4)], [(2, 4), (2, 3)], [(2, 2)]]


@pytest.mark.parametrize("schedule", ["splitfed_v1", "splitfed_v2"])
def test_batch_sizes_are_the_lengths_of_the_batches(schedule):
    stream = stream_of(local_steps=7, schedule=schedule)
    for step in range(9):
        for phone in range(10):
            batches = stream.batches(4, phone)
            expected = len(batches[step]) if step < len(batches) else 0
            assert stream.batch_sizes(np.array([phone]), step).tolist() == [expected]


def test_shares_are_the_phones_parts_of_the_rounds_samples():
    stream = stream_of(cohort=3, per_round=7)
    for round in range(3):
        chosen = stream.phones(round)
        total = sum(UNEVEN[phone] for phone in chosen)
        shares = [stream.shares(round, phones) for phones in stream.cohorts(round)]
        assert np.isclose(np.concatenate(shares).sum(), 1, rtol=0, atol=1e-12)
        for phones, own in zip(stream.cohorts(round), shares, strict=True):
            assert own.tolist() == [UNEVEN[phone] / total for phone in phones]


def test_shares_count_what_is_trained_on_and_not_what_is_held_out():
    stream = stream_of([10, 30], held_out=0.5)
    assert stream.samples([0, 1]).tolist() == [5, 15]
    assert stream.shares(0, (1, 0)).tolist() == [0.75, 0.25]


def test_the_order_of_a_step_is_a_permutation_of_the_phones_that_have_a_batch():
    stream = stream_of(schedule="splitfed_v2", per_round=8)
    steps = stream.steps(range(10))
    for step in range(8):
        active = [phone for phone in stream.phones(1) if steps[phone] > step]
        assert sorted(stream.order(1, step)) == sorted(active)
    assert stream.order(1, 7) == []


def test_the_order_differs_from_step_to_step_and_from_round_to_round():
    stream = stream_of([8] * 10, batch_size=1, schedule="splitfed_v2")
    orders = {tuple(stream.order(round, step)) for round in range(3) for step in range(8)}
    assert len(orders) == 24
    assert stream.order(0, 3) == stream_of([8] * 10, batch_size=1, schedule="splitfed_v2").order(0, 3)


def test_splitfed_v2s_stream_goes_step_by_step_in_the_drawn_order():
    stream = stream_of(schedule="splitfed_v2")
    drawn = list(stream.draws(2))
    assert [(d.step, d.phone) for d in drawn] == [(s, p) for s in range(7) for p in stream.order(2, s)]
    assert [d.order for d in drawn if d.step == 0] == list(range(10))
    for phone in range(10):
        own = [d.indices.tolist() for d in drawn if d.phone == phone]
        assert own == [batch.tolist() for batch in stream.batches(2, phone)]


def test_no_number_of_cohorts_changes_a_forwards_seed():
    stream = stream_of(cohort=5)
    (first, second) = stream.cohorts(0)
    together = dict(zip(first + second, stream.forward_seeds(Turn(0, 0, first + second, 3), "b", 10), strict=True))
    for phones in (first, second):
        own = stream.forward_seeds(Turn(0, 0, phones, 3), "b", 5)
        assert own == [together[phone] for phone in phones]


def test_what_phones_hold_out_comes_in_groups_of_neighbours_with_equally_many():
    stream = stream_of([20, 20, 10, 1], held_out=0.2)
    assert [group.shape for group in stream.held_out((0, 1, 2), "val")] == [(2, 2), (1, 1)]
    groups = stream.held_out((0, 1, 2), "test")
    for phone, row in zip((0, 1, 2), [row for group in groups for row in group], strict=True):
        assert row.tolist() == stream.partition.held_out_of(phone, "test").tolist()
