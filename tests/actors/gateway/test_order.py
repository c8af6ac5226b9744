"""A phone's calls are made in its order, whichever order they arrive in."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from actors.gateway.order import SCORING, STAGES, Order
from ray_split.errors import StateNotLoadedError
from ray_split.messages.turn import Turn

STEPS = 3


def turn(step: int = -1, attempt: int = 0, round: int = 0) -> Turn:
    return Turn(round, attempt, (0,), step)


@pytest.mark.parametrize("seed", range(20))
def test_calls_that_arrive_in_any_order_are_made_in_theirs(seed: int) -> None:
    made: list[Any] = []

    async def call(around: Any, name: Any) -> None:
        async with around:
            await asyncio.sleep(0)
            made.append(name)

    async def run() -> None:
        order = Order()
        calls = [(order.stage(turn(step), stage), (step, stage)) for step in range(STEPS) for stage in STAGES]
        calls += [(order.load(turn(), STEPS), "load"), (order.end(turn()), "end")]
        random.Random(seed).shuffle(calls)
        await asyncio.gather(*[call(*each) for each in calls])

    asyncio.run(asyncio.wait_for(run(), 60))
    assert made == ["load", *[(step, stage) for step in range(STEPS) for stage in STAGES], "end"]


def test_the_calls_of_an_evaluation_too_and_a_round_with_its_numbers_waits_for_a_load_of_its_own() -> None:
    made: list[Any] = []

    async def call(around: Any, name: Any) -> None:
        async with around:
            made.append(name)

    async def run() -> None:
        order = Order()
        calls = [(order.scoring(turn(step), name), (step, name)) for step in range(2) for name in SCORING]
        calls = [(order.end(turn(2)), "release"), *reversed(calls), (order.load(turn(), STEPS), "load")]
        await asyncio.gather(*[call(*each) for each in calls])
        waiting = [asyncio.ensure_future(call(order.stage(turn(step), "forward"), step)) for step in range(STEPS)]
        await asyncio.sleep(0.01)
        assert not any(each.done() for each in waiting)
        await call(order.load(turn(), STEPS), "load")
        await waiting[0]
        for each in waiting[1:]:
            each.cancel()

    asyncio.run(asyncio.wait_for(run(), 60))
    assert made == ["load", *[(step, name) for step in range(2) for name in SCORING], "release", "load", 0]


def test_after_one_that_fails_all_others_of_the_attempt_raise_what_it_raised_and_the_next_attempt_goes_on() -> None:
    async def run() -> None:
        order = Order()
        waiting = asyncio.ensure_future(enter(order.stage(turn(1), "forward")))
        later = asyncio.ensure_future(enter(order.stage(turn(0, attempt=1), "forward")))
        with pytest.raises(ZeroDivisionError):
            async with order.load(turn(), STEPS):
                raise ZeroDivisionError
        with pytest.raises(ZeroDivisionError):
            await waiting
        assert not later.done()
        async with order.load(turn(attempt=1), STEPS):
            pass
        await later
        with pytest.raises(StateNotLoadedError, match="round 0, attempt 0 is not under way"):
            await enter(order.stage(turn(0), "forward"))

    async def enter(around: Any) -> None:
        async with around:
            pass

    asyncio.run(asyncio.wait_for(run(), 60))


def test_a_load_that_comes_after_a_later_attempts_changes_nothing() -> None:
    async def run() -> None:
        order = Order()
        async with order.load(turn(attempt=2), STEPS):
            pass
        with pytest.raises(StateNotLoadedError, match="round 1, attempt 1 is over"):
            async with order.load(turn(attempt=1, round=1), STEPS):
                raise AssertionError
        async with order.stage(turn(0, attempt=2), "forward"):
            pass

    asyncio.run(asyncio.wait_for(run(), 60))


def test_where_calls_come_one_by_one_one_that_is_not_due_is_refused_at_once() -> None:
    async def run() -> None:
        async with Order(one_by_one=True).stage(turn(0), "forward"):
            raise AssertionError

    with pytest.raises(StateNotLoadedError):
        asyncio.run(run())
