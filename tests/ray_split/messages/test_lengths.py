"""What phones may send of sequences: as long as any is, alike in all parts, and each phone's a group of its own."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from ray_split.config.phones import MaxNorm
from ray_split.errors import BadPhoneError
from ray_split.messages.contract import Between, Contract, Labels, promise, widened
from ray_split.messages.message import Message
from ray_split.messages.message_checks import Checks


def crossing(n: int, length: int) -> Any:
    """An activation, pooled, its mask, and the length as a number."""
    return (np.ones((n, 4, -(-length // 2)), np.float32), np.ones((n, length), bool), length)


SHORT, LONG = (promise(crossing(2, n), 2, crossing(5, n), 5) for n in (3, 9))
PROMISE = widened(SHORT, LONG)


def sent(*batches: tuple[int, int]) -> Message:
    groups = [(x[None], mask[None], n) for x, mask, n in (crossing(*batch) for batch in batches)]
    return Message(groups, time.time(), tuple(n for n, _ in batches))


def check(message: Message) -> None:
    contract = Contract(PROMISE, Labels(np.dtype(np.int64), (), 3), 2, 5, apart=True)
    Checks(contract, MaxNorm(), labels=False).activation((7, 8, 9), message)


def test_sizes_lie_between_those_of_the_shortest_and_the_longest() -> None:
    assert PROMISE[0].at(4) == (4, 4, Between(2, 5)) and PROMISE[1].at(4) == (4, Between(3, 9))
    assert PROMISE[2].at(4) == Between(3, 9)


def test_each_phones_batch_is_a_group_as_long_as_it_is() -> None:
    check(sent((5, 3), (5, 9), (2, 4)))


@pytest.mark.parametrize("batch", [(5, 2), (5, 10), (6, 4), (1, 4)])
def test_what_is_longer_or_larger_than_any_is_refused(batch: tuple[int, int]) -> None:
    with pytest.raises(BadPhoneError, match="phones 7, 8, 9"):
        check(sent((5, 3), batch))


def test_parts_of_two_lengths_are_refused() -> None:
    message = sent((5, 8))
    message.groups[0] = (message.groups[0][0], message.groups[0][1], 7)
    with pytest.raises(BadPhoneError, match="has parts of 7 and of 8 steps"):
        check(message)


def test_phones_in_one_group_are_refused() -> None:
    message = sent((5, 8))
    both = tuple(np.concatenate([part, part]) for part in message.groups[0][:2])
    with pytest.raises(BadPhoneError, match="has 1 groups, for batch sizes"):
        check(message._replace(groups=[(*both, 8)], sizes=(5, 5)))


def test_what_grows_with_batch_and_length_at_once_is_no_promise() -> None:
    flat = [promise(np.ones((2 * n,)), 2, np.ones((5 * n,)), 5) for n in (3, 9)]
    with pytest.raises(ValueError, match="with the batch and with the length"):
        widened(*flat)
