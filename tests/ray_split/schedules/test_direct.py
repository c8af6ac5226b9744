"""Exchanges that clients lead: what the driver submits, and what keeps them in order where several call the server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest

from ray_split.messages.turn import Turn
from ray_split.schedules.direct import AT_ONCE, Led, lead_abreast


@dataclass
class Call:
    """What was submitted; it stands for its result, too."""

    actor: str
    method: str
    arguments: tuple[Any, ...]

    @property
    def turns(self) -> list[Turn]:
        """Those that it is about."""
        first = self.arguments[0]
        return [first] if isinstance(first, Turn) else list(first) if isinstance(first, list) else []

    @property
    def waits_for(self) -> list[Call]:
        """The calls whose results it is given."""
        return [argument for argument in self.arguments if isinstance(argument, Call)]


class Actor:
    def __init__(self, name: str, calls: list[Call]) -> None:
        self._name, self._calls = name, calls

    def __getattr__(self, method: str) -> Any:
        return Method(self._name, self._calls, method)


@dataclass
class Method:
    actor: str
    calls: list[Call]
    name: str
    num_returns: int = 1

    def options(self, num_returns: int) -> Method:
        return Method(self.actor, self.calls, self.name, num_returns)

    def remote(self, *arguments: Any) -> Any:
        call = Call(self.actor, self.name, arguments)
        self.calls.append(call)
        assert self.name != "exchange" or len(call.turns) == self.num_returns
        return call if self.num_returns == 1 else [call] * self.num_returns


def submitted(order: Sequence[tuple[str, int, int]]) -> list[Call]:
    """The calls for exchanges of phones that take turns: (client, phone, step) each."""
    calls: list[Call] = []
    actors = {name: Actor(name, calls) for name in ("x", "y", "server")}
    led = Led(actors["server"])
    refs = list(led.turns([(actors[client], Turn(0, 0, (phone,), step)) for client, phone, step in order]))
    refs += led.end()
    awaited = {id(call) for each in calls for call in each.waits_for}
    assert {id(ref) for ref in refs} | awaited == {id(call) for call in calls}  # no error is lost
    return calls


ORDERS = [
    [("x", 0, 0)],
    [("x", 0, 0), ("x", 1, 0), ("x", 1, 1), ("x", 0, 1)],
    [("x", 0, 0), ("y", 1, 0), ("x", 0, 1), ("y", 1, 1)],
    [("x", 0, 0), ("x", 2, 0), ("y", 1, 0), ("y", 3, 0), ("x", 2, 1), ("y", 1, 1), ("x", 0, 1)],
    [("x", phone, 0) for phone in range(2 * AT_ONCE + 1)] + [("y", 99, 0)],
]


@pytest.mark.parametrize("order", ORDERS, ids=range(len(ORDERS)))
def test_every_exchange_is_led_once_in_the_order_of_the_turns(order: list[tuple[str, int, int]]) -> None:
    led = [c for c in submitted(order) if c.method in ("exchange", "through")]
    found = [(call.actor, turn.phones[0], turn.step) for call in led for turn in call.turns]
    assert found == order


@pytest.mark.parametrize("order", ORDERS, ids=range(len(ORDERS)))
def test_exchanges_at_another_client_wait_for_those_before(order: list[tuple[str, int, int]]) -> None:
    *led, end = [call for call in submitted(order) if call.method in ("exchange", "through", "after")]
    for before, call in pairwise(led):
        assert call.waits_for == ([] if call.actor == before.actor else [before])
    assert (end.actor, end.method, end.waits_for) == ("server", "after", [led[-1]])


def test_another_clients_next_phone_computes_ahead_and_b_does_not_wait_for_the_last_phones_a() -> None:
    calls = submitted([("x", 0, 0), ("x", 2, 0), ("y", 1, 0)])
    first, second, third = Turn(0, 0, (0,), 0), Turn(0, 0, (2,), 0), Turn(0, 0, (1,), 0)
    assert [(call.actor, call.method) for call in calls] == [
        ("x", "exchange"), ("x", "through"), ("y", "forward_ahead"), ("x", "finish"), ("y", "exchange"),
        ("server", "after"),
    ]  # fmt: skip
    assert calls[0].arguments == ([first], second)
    assert calls[1].arguments == (second,)
    assert calls[2].arguments == (third,)
    assert calls[4].arguments == ([third], None, calls[1])


def test_a_call_takes_a_bounded_number_of_exchanges_and_is_told_what_follows() -> None:
    calls = submitted([("x", 0, step) for step in range(AT_ONCE + 3)])
    assert [len(call.turns) for call in calls] == [AT_ONCE, 3, 0]
    assert calls[0].arguments[1] == calls[1].turns[0]
    assert calls[1].arguments[1] is None


def test_a_round_without_an_exchange_leaves_the_server_as_it_is() -> None:
    assert submitted([]) == []


def abreast(steps: dict[str, int]) -> list[Call]:
    """What is submitted for cohorts that go abreast, named by their client and a number, of so many steps each."""
    calls: list[Call] = []
    server, clients = Actor("server", calls), {name[0]: Actor(name[0], calls) for name in steps}
    cohorts = [
        (
            clients[name[0]],
            [Turn(0, 0, (int(name[1:]),), step) for step in range(count)],
            Call("server", "open", (name,)),
        )
        for name, count in steps.items()
    ]
    assert len(list(lead_abreast(server, cohorts))) == sum(steps.values()) + any(steps.values())
    return calls


def test_a_clients_cohorts_go_abreast_in_one_call_once_the_server_has_their_copies_of_b() -> None:
    one, other, end = abreast({"x0": 2, "y1": 1, "x2": 1})
    (first, then), (second, none) = one.arguments[0]
    assert ([turn.phones[0] for turn in (*first, *second)], then, none) == ([0, 0, 2], None, None)
    assert [call.arguments for call in one.waits_for] == [("x0",), ("x2",)]
    assert (other.actor, [call.arguments for call in other.waits_for]) == ("y", [("y1",)])
    assert (end.method, end.waits_for) == ("after", [one, other])


def test_a_call_for_cohorts_takes_a_bounded_number_of_exchanges_too() -> None:
    half = AT_ONCE // 2
    first, second, end = abreast({"x0": half + 2, "x1": half})
    assert [(len(turns), then and then.step) for turns, then in first.arguments[0]] == [(half, half), (half, None)]
    assert [(len(turns), then) for turns, then in second.arguments[0]] == [(2, None)]
    assert (second.waits_for, end.waits_for) == ([], [second])


def test_of_cohorts_that_take_no_step_nothing_is_submitted() -> None:
    assert abreast({"x0": 0, "y1": 0}) == []
    assert [call.actor for call in abreast({"x0": 0, "y1": 1})] == ["y", "server"]
