import pickle

import numpy as np
import pytest

from ray_split import api, config
from ray_split.data import partitions
from ray_split.data.stream import Stream
from ray_split.errors import SettingsError
from ray_split.messages.turn import Turn


def stream_of(samples=23, count=3, seed=0, batch_size=4, drop_last=False, **phones):
    data = {"batch_size": batch_size, "drop_last": drop_last}
    settings = config.Config(phones={"count": count, **phones}, data=data, run={"seed": seed})
    return Stream(settings, partitions.deal(settings, np.zeros(samples)))


def plain(drawn):
    return [(d.round, d.order, d.phone, d.step, d.indices.tolist()) for d in drawn]


def test_a_run_has_one_stream():
    settings = config.Config(run={"rounds": 2}, phones={"count": 4})
    first = plain(api.stream(settings))
    np.random.seed(1)
    assert plain(api.stream(settings)) == first
    assert [d[0] for d in first] == sorted(d[0] for d in first)
    assert {d[0] for d in first} == {0, 1}


def test_every_phone_trains_on_each_of_its_samples_once_an_epoch():
    stream = stream_of(local_epochs=2)
    for phone in range(3):
        batches = stream.batches(round=5, phone=phone)
        own, half = sorted(stream.partition.of(phone)), len(batches) // 2
        assert sorted(np.concatenate(batches[:half])) == own
        assert sorted(np.concatenate(batches[half:])) == own
        assert np.concatenate(batches[:half]).tolist() != np.concatenate(batches[half:]).tolist()


def test_a_round_has_every_phone_once_and_each_step_in_order():
    stream = stream_of()
    drawn = list(stream.draws(3))
    assert sorted({d.phone for d in drawn}) == [0, 1, 2]
    assert tuple(d.phone for d in drawn if d.step == 0) == stream.phones(3)
    assert [stream.phones(3)[d.order] for d in drawn] == [d.phone for d in drawn]
    for phone in range(3):
        assert [d.step for d in drawn if d.phone == phone] == list(range(stream.steps([phone])[0]))
        assert len(stream.batches(3, phone)) == stream.steps([phone])[0]
    assert sorted(np.concatenate([d.indices for d in drawn])) == list(range(23))


@pytest.mark.parametrize("phones", [{}, {"local_epochs": 3}, {"local_steps": 7}])
def test_the_short_last_batch_is_left_out_if_it_is_to_be(phones):
    kept, stream = stream_of(23, 2, **phones), stream_of(23, 2, drop_last=True, **phones)
    for phone in range(2):
        samples = len(stream.partition.of(phone))
        batches, whole = stream.batches(0, phone), kept.batches(0, phone)
        wanted = phones.get("local_steps", phones.get("local_epochs", 1) * (samples // 4))
        assert [len(batch) for batch in batches] == [4] * wanted == [4] * stream.steps([phone])[0]
        assert [stream.batch_sizes(np.array([phone]), step)[0] for step in range(wanted + 1)] == [4] * wanted + [0]
        # The order of a pass is the same with its last batch and without.
        first = samples // 4
        assert [each.tolist() for each in batches[:first]] == [each.tolist() for each in whole[:first]]
        for start in range(0, wanted, first):
            drawn = np.concatenate(batches[start : start + first])
            assert len(set(drawn.tolist())) == len(drawn) and set(drawn) <= set(stream.partition.of(phone))
    assert stream.trained(0) == sum(len(draw.indices) for draw in stream.draws(0))
    assert (
        stream.shares(0, (0, 1)).tolist() == [8 / 16, 8 / 16] if len(stream.partition.of(0)) < 12 else [12 / 20, 8 / 20]
    )


def test_the_short_last_batch_is_kept():
    stream = stream_of(samples=10, count=1)
    assert [len(batch) for batch in stream.batches(0, 0)] == [4, 4, 2]
    assert stream.steps([0]).tolist() == [3]
    assert stream.samples([0]).tolist() == [10]
    assert [len(b) for b in stream_of(samples=8, count=1).batches(0, 0)] == [4, 4]
    assert [len(b) for b in stream_of(samples=3, count=1).batches(0, 0)] == [3]


@pytest.mark.parametrize(("steps", "sizes"), [(1, [4]), (2, [4, 4]), (5, [4, 4, 2, 4, 4])])
def test_local_steps_end_a_pass_early_or_begin_another(steps, sizes):
    stream = stream_of(samples=10, count=1, local_steps=steps)
    assert [len(batch) for batch in stream.batches(0, 0)] == sizes
    assert stream.steps([0]).tolist() == [steps]


def test_samples_and_steps_are_each_phones_in_the_order_asked_for():
    stream = stream_of(samples=23, count=5, local_epochs=3)
    assert stream.samples([4, 0, 4]).tolist() == [len(stream.partition.of(phone)) for phone in (4, 0, 4)]
    assert sum(stream.samples(range(5))) == 23
    assert stream.steps(range(5)).tolist() == [len(stream.batches(0, phone)) for phone in range(5)]


def test_seeds_rounds_and_phones_all_have_draws_of_their_own():
    stream, other = stream_of(samples=60), stream_of(samples=60, seed=1)
    assert stream.partition.indices.tolist() != other.partition.indices.tolist()
    other.partition = stream.partition

    def order(one, round, phone):
        return np.concatenate(one.batches(round, phone)).tolist()

    assert order(stream, 0, 1) == order(stream_of(samples=60), 0, 1)
    assert order(stream, 0, 1) != order(stream, 1, 1)
    assert order(stream, 0, 1) != order(other, 0, 1)
    positions = [np.argsort(order(stream, 0, phone)).tolist() for phone in range(3)]
    assert positions[0] != positions[1] != positions[2]
    assert len({stream_of(samples=60, count=9).phones(round) for round in range(20)}) > 15


def test_draws_do_not_depend_on_what_was_drawn_before():
    stream = stream_of()
    forwards = plain(d for round in range(8) for d in stream.draws(round))
    backwards = [plain(stream.draws(round)) for round in reversed(range(8))]
    assert forwards == [d for round in reversed(backwards) for d in round]


def test_a_phones_batches_do_not_depend_on_who_trains_with_it():
    few, many = stream_of(count=5, per_round=2), stream_of(count=5, cohort=5)
    for round in range(3):
        for phone in few.phones(round):
            assert plain_batches(few, round, phone) == plain_batches(many, round, phone)


def plain_batches(stream, round, phone):
    return [batch.tolist() for batch in stream.batches(round, phone)]


def test_every_order_of_a_phones_samples_is_about_as_likely():
    stream = stream_of(samples=3, count=1, batch_size=3)
    orders = [tuple(stream.batches(round, 0)[0].tolist()) for round in range(600)]
    found = [orders.count(order) for order in set(orders)]
    assert len(found) == 6
    assert min(found) > 65 and max(found) < 140


def test_forward_seeds_differ_by_all_but_the_attempt():
    stream = stream_of()
    turns = [Turn(r, 0, (p,), s) for r in range(3) for p in range(3) for s in range(3)]
    seeds = {stream.forward_seeds(turn, segment, 1)[0] for turn in turns for segment in "abc"}
    assert len(seeds) == 81
    assert stream.forward_seeds(Turn(1, 7, (2,), 0), "b", 1) == stream.forward_seeds(Turn(1, 0, (2,), 0), "b", 1)
    first = Turn(0, 0, (0,), 0)
    assert stream.forward_seeds(first, "a", 1) != stream_of(seed=1).forward_seeds(first, "a", 1)


def test_forward_seeds_of_a_cohorts_first_phones_are_those_of_each_alone():
    stream = stream_of(seed=2**40 + 3, count=9)
    for step, segment in ((0, "a"), (63, "b"), (64, "b"), (500, "c")):
        alone = [stream.forward_seeds(Turn(3, 0, (p,), step), segment, 1)[0] for p in (7, 2, 5)]
        assert stream.forward_seeds(Turn(3, 0, (7, 2, 5, 1), step), segment, 3) == alone
        assert stream.forward_seeds(Turn(3, 0, (7, 2, 5, 1), step), segment, 1) == alone[:1]


def test_the_stream_is_the_one_that_published_runs_had():
    stream = stream_of(seed=42)
    assert stream.partition.of(1).tolist() == [12, 6, 22, 0, 16, 21, 14, 9]
    assert stream.phones(2) == (0, 2, 1)
    assert plain_batches(stream, 2, 1) == [[22, 0, 12, 6], [9, 21, 14, 16]]
    assert stream.forward_seeds(Turn(2, 0, (1,), 1), "b", 1) == [504965795445815406]
    assert stream.order(2, 1) == [0, 1, 2]


def test_a_phones_order_sorts_the_words_of_its_seed_sequence():
    stream = stream_of(seed=2**35, local_epochs=2)
    for phone in range(3):
        own = stream.partition.of(phone)
        words = np.random.SeedSequence([2**35, 4, 7, phone]).generate_state(2 * len(own), np.uint64)
        expected = [own[np.argsort(keys, kind="stable")].tolist() for keys in words.reshape(2, -1)]
        batches, half = stream.batches(7, phone), stream.steps([phone])[0] // 2
        assert [np.concatenate(batches[:half]).tolist(), np.concatenate(batches[half:]).tolist()] == expected


@pytest.mark.parametrize("phones", [{"local_epochs": 2}, {"per_round": 2, "cohort": 2}], ids=str)
def test_a_pickled_stream_draws_the_same(phones):
    stream = stream_of(**phones)
    before = plain(stream.draws(0))
    copy = pickle.loads(pickle.dumps(stream))
    assert plain(copy.draws(0)) == before
    assert plain(copy.draws(1)) == plain(stream.draws(1))
    assert copy.cohorts(1) == stream.cohorts(1)


@pytest.mark.parametrize(
    ("per_round", "chosen"),
    [(None, 50), (1, 1), (7, 7), (50, 50), (0.1, 5), (0.5, 25), (0.99, 50), (0.001, 1), (1.0, 50), (7.0, 7)],
)
def test_a_round_has_as_many_phones_as_the_number_or_the_fraction_says(per_round, chosen):
    stream = stream_of(samples=100, count=50, per_round=per_round)
    assert {len(stream.phones(round)) for round in range(5)} == {chosen}


def test_no_phone_comes_twice_in_a_round_and_rounds_have_phones_of_their_own():
    stream = stream_of(samples=100, count=50, per_round=10)
    rounds = [stream.phones(round) for round in range(60)]
    assert all(len(set(phones)) == 10 for phones in rounds)
    assert len({tuple(sorted(phones)) for phones in rounds}) == 60
    came = np.bincount(np.concatenate(rounds), minlength=50)
    assert came.min() > 0 and came.max() < 30  # 12 on average


def test_every_round_has_the_phones_that_per_round_draws_and_no_others():
    stream = stream_of(samples=100, count=50, per_round=10)
    assert {d.phone for d in stream.draws(4)} == set(stream.phones(4))


def test_the_stream_of_a_run_refuses_what_the_partition_refuses():
    with pytest.raises(SettingsError, match=r"phones\.count: is 1295"):
        next(api.stream(config.Config(phones={"count": 1295})))
