"""Batches of samples that are about as long."""

from __future__ import annotations

import numpy as np
import pytest

from ray_split import config
from ray_split.data import partitions
from ray_split.data.stream import Stream

SAMPLES = 700
LENGTHS = np.random.default_rng(0).geometric(0.03, SAMPLES)


def stream_of(grouped: bool = True, seed: int = 0, drop_last: bool = False, count: int = 3) -> Stream:
    data = {"batch_size": 8, "drop_last": drop_last}
    settings = config.Config(phones={"count": count, "local_epochs": 2}, data=data, run={"seed": seed})
    return Stream(settings, partitions.deal(settings, np.zeros(SAMPLES)), lengths=LENGTHS if grouped else None)


def padded(stream: Stream) -> int:
    """The places of a round's batches that are padding, each padded to its own longest."""
    batches = [LENGTHS[indices] for phone in range(3) for indices in stream.batches(0, phone)]
    return sum(int(len(each) * each.max() - each.sum()) for each in batches)


@pytest.mark.parametrize("drop_last", [False, True])
def test_each_pass_has_the_samples_that_it_has_otherwise(drop_last: bool) -> None:
    stream, plain = stream_of(drop_last=drop_last), stream_of(grouped=False, drop_last=drop_last)
    for phone in range(3):
        batches, others = stream.batches(4, phone), plain.batches(4, phone)
        half = len(batches) // 2
        assert [len(batch) for batch in batches] == [len(batch) for batch in others]
        for part in (slice(half), slice(half, None)):
            assert sorted(np.concatenate(batches[part])) == sorted(np.concatenate(others[part]))


def test_padding_is_a_third_of_what_it_is_otherwise_or_less() -> None:
    assert padded(stream_of()) < padded(stream_of(grouped=False)) / 3


def test_long_batches_come_at_any_time() -> None:
    longest = [LENGTHS[batch].max() for batch in stream_of().batches(0, 0)]
    assert longest != sorted(longest) and longest != sorted(longest, reverse=True)
    assert 0.3 < np.mean(np.diff(longest) > 0) < 0.7


def test_they_follow_from_seed_round_and_phone_alone() -> None:
    def batches(stream: Stream, round: int = 0, phone: int = 1) -> list[list[int]]:
        return [batch.tolist() for batch in stream.batches(round, phone)]

    first = batches(stream_of())
    assert batches(stream_of()) == first
    assert first not in (batches(stream_of(seed=1)), batches(stream_of(), round=1), batches(stream_of(), phone=2))
    together = stream_of().cohort_batches(0, (0, 1, 2))
    assert [group[1].tolist() for (group, *_) in together[:20]] == first[:20]


def test_a_phone_with_one_batch_keeps_its_order() -> None:
    stream, plain = stream_of(count=80), stream_of(grouped=False, count=80)
    assert all(map(np.array_equal, stream.batches(0, 3), plain.batches(0, 3)))
