"""The server's four ways: what one exchange does to B, beside the untouched segment; and calls that a way refuses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

import ray_split as rs
from actors.server import Server
from ray_split.messages.message import Message
from ray_split.messages.turn import JointStep, Turn
from ray_split.preparation.prepare import Prepared, prepare
from ray_split.schedules import schedule_of
from ray_split.schedules.schedule import WayOfB
from tests.nets import three_linear

LR = 0.1
AT = Turn(0, 1, (), 0)
RNG = np.random.default_rng(5)
ONES, TWOS = ({n: RNG.normal(size=(n, 3)).astype(np.float32) for n in (2, 4)} for _ in range(2))
"""What arrives at B from a phone with 2 samples and from one with 4; and the gradient of what left it."""


def prepared(**sections: Any) -> Prepared:
    return prepare(
        rs.Config(
            model={"name": "tests.nets:three_linear"},
            phones={"count": 2, "cohort": 2},
            schedule={"name": "splitfed_v1"},
            optimizer={"lr": LR},
            cluster={"backend": "inprocess"},
            run={"storage_path": "unused", "name": "x"},
            data={"name": "synthetic", "kwargs": {"samples": 40, "shape": [4], "num_classes": 3}, "batch_size": 4},
        ).with_values(**sections)
    )


def server_in(way: WayOfB) -> Server:
    """A server whose round has begun."""
    what = prepared()
    server = Server(what.settings, what.contract)
    server.load(AT, server.initial_state(), way)
    return server


def sent(each: dict[int, np.ndarray]) -> Message:
    """A message of phones that have so many samples."""
    return Message([values[None] for values in each.values()], 0.0, tuple(each))


def apart(each: dict[int, np.ndarray]) -> list[Message]:
    return [sent({n: values}) for n, values in each.items()]


def array_of(message: Message, place: int = 0) -> np.ndarray:
    return message.groups[place][0]


class Reference:
    """B in float64, trained by plain torch."""

    def __init__(self, server: Server) -> None:
        self.module = three_linear().b.double()
        self.module.load_state_dict({key[10:]: torch.from_numpy(v) for key, v in server.initial_state().items()})

    def train(self, weights: dict[int, float]) -> list[np.ndarray]:
        """A step on the weighted sum of these phones' gradients; returns that of what arrived, of each, unweighted."""
        optimizer = torch.optim.SGD(self.module.parameters(), LR)
        inputs = {n: torch.from_numpy(ONES[n]).double().requires_grad_() for n in weights}
        optimizer.zero_grad()
        for n, weight in weights.items():
            (self.module(inputs[n]) * torch.from_numpy(TWOS[n]).double() * weight).sum().backward()
        optimizer.step()
        return [(inputs[n].grad / weight).numpy() for n, weight in weights.items()]

    def state(self) -> dict[str, np.ndarray]:
        return {f"weights/b.{key}": value.numpy() for key, value in self.module.state_dict().items()}


def assert_b(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert expected.keys() == {key for key in found if key.startswith("weights/")}
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, rtol=1e-5, atol=1e-6)


def assert_gradients(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> None:
    for own, like in zip(found, expected, strict=True):
        np.testing.assert_allclose(own, like, rtol=1e-5, atol=1e-6)


def test_in_turn_b_steps_after_each_phone() -> None:
    server = server_in("in_turn")
    expected = Reference(server)
    for phone, (size, activation, gradient) in enumerate(zip(ONES, apart(ONES), apart(TWOS), strict=True)):
        at = AT._replace(phones=(phone,))
        server.forward(at, activation)
        assert_gradients([array_of(server.backward(at, gradient))], expected.train({size: 1.0}))
    assert_b(server.state(AT), expected.state())


def test_own_copies_each_step_from_the_rounds_start_and_are_averaged() -> None:
    server, at = server_in("own_copies"), AT._replace(phones=(1, 0))
    each = {size: Reference(server) for size in ONES}
    server.open(at)
    server.forward(at, sent(ONES))
    back = server.backward(at, sent(TWOS))
    gradients = [copy.train({size: 1.0})[0] for size, copy in each.items()]
    assert_gradients([array_of(back, 0), array_of(back, 1)], gradients)
    server.close(at, np.array([1 / 3, 2 / 3]))
    two, four = (copy.state() for copy in each.values())
    assert_b(server.state(AT), {key: two[key] / 3 + four[key] * 2 / 3 for key in two})


@pytest.mark.parametrize("way", ["shared_step", "joint_batch"])
def test_a_shared_step_is_on_both_phones_batches_weighted_by_their_sizes(way: WayOfB) -> None:
    server = server_in(way)
    expected, joint = Reference(server), JointStep(largest=4, samples=6)
    if way == "joint_batch":
        at = AT._replace(phones=(1, 0), joint=joint._replace(sizes=(1, 1)))
        assert [array_of(hidden).shape for hidden in server.forward(at, *apart(ONES))] == [(2, 3), (4, 3)]
        back = server.backward(at, *apart(TWOS))
    else:
        turns = [AT._replace(phones=(phone,), joint=joint) for phone in (1, 0)]
        for at, activation in zip(turns, apart(ONES), strict=True):
            server.forward(at, activation)
        back = [server.backward(at, gradient) for at, gradient in zip(turns, apart(TWOS), strict=True)]
    assert_b(server.b.state(), expected.state())  # nobody has stepped yet
    assert_gradients([array_of(own) for own in back], expected.train({2: 2 / 6, 4: 4 / 6}))
    server.step(AT._replace(joint=joint))
    assert_b(server.state(AT), expected.state())


def forget_step(server: Server) -> None:
    at = AT._replace(phones=(1,), joint=JointStep(largest=2, samples=2))
    server.forward(at, *apart(ONES)[:1])
    server.backward(at, *apart(TWOS)[:1])
    server.state(AT)


@pytest.mark.parametrize(
    ("way", "call", "line"),
    [
        ("in_turn", lambda s: s.open(AT), r"way='in_turn', which has no open; .* says own_copies"),
        ("shared_step", lambda s: s.close(AT, np.ones(1)), r"way='shared_step', which has no close; .* own_copies"),
        ("own_copies", lambda s: s.step(AT), r"way='own_copies', which has no step; .* shared_step or joint_batch"),
        ("own_copies", lambda s: s.forward(AT._replace(phones=(1,)), *apart(ONES)[:1]), r"\(1,\) came before open"),
        ("in_turn", lambda s: s.backward(AT._replace(phones=(1,)), *apart(TWOS)[:1]), "is not the exchange under way"),
        ("in_turn", lambda s: [s.forward(AT._replace(phones=(i,)), sent({2: ONES[2]})) for i in (1, 0)],
         "a forward of phone 0 came while step 0 of phone 1 waits for its backward"),
        ("in_turn", lambda s: [s.forward(AT._replace(phones=(1,)), *apart(ONES)[:1]), s.state(AT)],
         "the round ended while step 0 of phone 1 waits for its backward"),
        ("own_copies", lambda s: [s.open(AT._replace(phones=(1, 0))), s.state(AT)],
         r"copies of B were not closed: those of phones \(1, 0\)"),
        ("shared_step", forget_step, "B did not step on the gradients that it has: server.step is missing"),
        ("shared_step", lambda s: s.step(AT), r"doesn't say how they weigh in it \(Turn.joint\)"),
        ("shared_step", lambda s: s.forward(AT._replace(phones=(1, 0), joint=JointStep(4, 6, (1, 1))), *apart(ONES)),
         "2 messages in one call: only a joint batch takes more than one"),
    ],
)  # fmt: skip
@pytest.mark.few(6)
def test_a_call_that_does_not_fit_the_way_is_refused_in_a_line(way: WayOfB, call: Any, line: str) -> None:
    server = server_in(way)
    with pytest.raises(RuntimeError, match=line) as raised:
        call(server)
    assert "\n" not in str(raised.value)


def test_each_schedule_has_its_way() -> None:
    def way(name: str, **sections: Any) -> str:
        settings = prepared(schedule={"name": name}, phones={"cohort": "auto"}, **sections).settings
        return schedule_of(settings.schedule).way_with(settings.schedule.kwargs)

    assert [way(name) for name in ("sequential", "splitfed_v2")] == ["in_turn"] * 2
    assert [way(name) for name in ("splitfed_v1", "splitfed_v3")] == ["own_copies"] * 2
    assert way("parallel") == "shared_step"
    assert way("parallel", model={"name": "tests.nets:three_with_batchnorm"}) == "joint_batch"
