import pickle

import numpy as np
import pytest

from ray_split import config, data, draws
from ray_split.draws import Stream, Turn


def stream_of(samples=23, count=3, seed=0, batch_size=4, **phones):
    settings = config.Config(phones={"count": count, **phones}, data={"batch_size": batch_size}, run={"seed": seed})
    return Stream(settings, partitions.deal(settings, np.zeros(samples)))


def plain(drawn):
    return [(d.round, d.order, d.phone, d.step, d.indices.tolist()) for d in drawn]


def test_a_run_has_one_stream():
    settings = config.Config(run={"rounds": 2}, phones={"count": 4})
    first = plain(draws.stream(settings))
    np.random.seed(1)
    assert plain(draws.stream(settings)) == first
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
    assert [d.phone for d in drawn if d.step == 0] == stream.phones(3)
    assert [stream.phones(3)[d.order] for d in drawn] == [d.phone for d in drawn]
    for phone in range(3):
        assert [d.step for d in drawn if d.phone == phone] == list(range(stream.steps(phone)))
        assert len(stream.batches(3, phone)) == stream.steps(phone)
    assert sorted(np.concatenate([d.indices for d in drawn])) == list(range(23))


def test_the_short_last_batch_is_kept():
    stream = stream_of(samples=10, count=1)
    assert [len(batch) for batch in stream.batches(0, 0)] == [4, 4, 2]
    assert stream.steps(0) == 3
    assert stream.samples(0) == 10
    assert [len(b) for b in stream_of(samples=8, count=1).batches(0, 0)] == [4, 4]
    assert [len(b) for b in stream_of(samples=3, count=1).batches(0, 0)] == [3]


@pytest.mark.parametrize(("steps", "sizes"), [(1, [4]), (2, [4, 4]), (5, [4, 4, 2, 4, 4])])
def test_local_steps_end_a_pass_early_or_begin_another(steps, sizes):
    stream = stream_of(samples=10, count=1, local_steps=steps)
    assert [len(batch) for batch in stream.batches(0, 0)] == sizes
    assert stream.steps(0) == steps


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
    assert len({tuple(stream_of(samples=60, count=9).phones(round)) for round in range(20)}) > 15


def test_draws_do_not_depend_on_what_was_drawn_before():
    stream = stream_of()
    forwards = plain(d for round in range(8) for d in stream.draws(round))
    backwards = [plain(stream.draws(round)) for round in reversed(range(8))]
    assert forwards == [d for round in reversed(backwards) for d in round]


def test_forward_seeds_differ_by_all_but_the_attempt():
    stream = stream_of()
    turns = [Turn(r, 0, p, s) for r in range(3) for p in range(3) for s in range(3)]
    seeds = {stream.forward_seed(turn, segment) for turn in turns for segment in "abc"}
    assert len(seeds) == 81
    assert stream.forward_seed(Turn(1, 7, 2, 0), "b") == stream.forward_seed(Turn(1, 0, 2, 0), "b")
    assert stream.forward_seed(Turn(0, 0, 0, 0), "a") != stream_of(seed=1).forward_seed(Turn(0, 0, 0, 0), "a")


def test_the_stream_is_the_one_that_published_runs_had():
    stream = stream_of(seed=42)
    assert stream.partition.of(1).tolist() == [12, 14, 21, 0, 9, 6, 22, 16]
    assert stream.phones(2) == [2, 0, 1]
    assert [batch.tolist() for batch in stream.batches(2, 1)] == [[21, 9, 14, 22], [16, 0, 6, 12]]
    assert stream.forward_seed(Turn(2, 0, 1, 1), "b") == 504965795445815406


def test_a_pickled_stream_draws_the_same():
    stream = stream_of(local_epochs=2)
    before = plain(stream.draws(0))
    copy = pickle.loads(pickle.dumps(stream))
    assert plain(copy.draws(0)) == before
    assert plain(copy.draws(1)) == plain(stream.draws(1))
