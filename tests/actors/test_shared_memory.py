"""Rules 2 and 3 on real Ray: what was sent and the round's start state stay as they were, read from another process."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import ray

import ray_split as rs
from actors.fed_server import FedServer
from actors.server import Server
from ray_split.messages.message import Message
from ray_split.messages.state import Closed, State
from ray_split.messages.turn import JointStep, Turn
from ray_split.messages.weight_checks import Expected
from ray_split.preparation.prepare import prepare
from tests.tiers import thorough

TURN = Turn(0, 0, (0,), 0)
PHONES = (0, 1, 2)
SETTINGS = rs.Config(
    model={"name": "tests.nets:inplace_first", "cuts": "0,3"},
    optimizer={"lr": 0.5},
    server={"num_gpus": 0},
    schedule={"name": "splitfed_v1"},
    phones={"cohort": 3, "stacked": ["b"]},
)
EXPECTED = Expected({"a": frozenset({"weights/x"})}, frozenset(), 1e9)


@ray.remote
def reread(value: Any) -> Any:
    """Read an object in another process."""
    return ray.cloudpickle.loads(ray.cloudpickle.dumps(value))


@pytest.fixture
def server(ray_session: object) -> Any:
    actor = (
        ray.remote(Server)
        .options(num_cpus=1)
        .remote(SETTINGS, replace(prepare(SETTINGS).contract, smallest=1, largest=500))
    )
    yield actor
    ray.kill(actor)


@pytest.fixture
def fed_server(ray_session: object, tmp_path: Any) -> Any:
    actor = ray.remote(FedServer).options(num_cpus=0).remote(tmp_path, None, 5, EXPECTED)
    yield actor
    ray.kill(actor)


def values(samples: int, phones: int = 1) -> np.ndarray:
    """Half of them negative: an in-place ReLU would show. Large enough to lie in shared memory."""
    return np.random.default_rng(0).normal(size=(phones, samples, 4, 8, 8)).astype(np.float32)


def activation(samples: int, phones: int = 1) -> Message:
    return Message([(values(samples, phones),)], 0.0, (samples,) * phones)


def ones_like(hidden: Message) -> Message:
    gradient = np.ones_like(hidden.groups[0][0])
    return Message([(gradient,)], 0.0, sizes=(gradient.shape[1],) * len(gradient))


def equal(a: State, b: State) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)


@pytest.mark.thorough
@pytest.mark.parametrize("samples", [*thorough(2), 500], ids=["inlined", "shared memory"])
def test_an_inplace_relu_first_in_b_leaves_the_sent_object_as_it_was(server: Any, samples: int) -> None:
    sent = ray.put(activation(samples))
    ray.get(server.load.remote(TURN, server.initial_state.remote()))
    hidden = ray.get(server.forward.remote(TURN, sent))
    ray.get(server.backward.remote(TURN, ones_like(hidden)))
    ray.get(server.evaluate.remote(TURN, sent))
    assert np.array_equal(ray.get(reread.remote(sent)).groups[0][0], values(samples))
    assert (values(samples) < 0).any()


@pytest.mark.thorough
@pytest.mark.parametrize("phones", [PHONES, *thorough((PHONES[:1],))], ids=["stacked", "looped"])
def test_an_inplace_relu_first_in_copies_of_b_leaves_the_sent_object_as_it_was(
    server: Any, phones: tuple[int, ...]
) -> None:
    turn, sent = TURN._replace(phones=phones), ray.put(activation(200, len(phones)))
    ray.get(server.load.remote(turn, server.initial_state.remote(), "own_copies"))
    ray.get(server.open.remote(turn))
    gradient = ray.put(ones_like(ray.get(server.forward.remote(turn, sent))))
    ray.get(server.backward.remote(turn, gradient))
    assert np.array_equal(ray.get(reread.remote(sent)).groups[0][0], values(200, len(phones)))
    assert (ray.get(reread.remote(gradient)).groups[0][0] == 1).all()


@pytest.mark.parametrize("way", ["shared_step", "joint_batch"])
@pytest.mark.few(1)
def test_an_inplace_relu_first_in_a_shared_b_leaves_the_sent_object_as_it_was(server: Any, way: str) -> None:
    turn, sent = TURN._replace(phones=PHONES, joint=JointStep(400, 800)), ray.put(activation(200, 3))
    ray.get(server.load.remote(turn, server.initial_state.remote(), way))
    gradient = ray.put(ones_like(ray.get(server.forward.remote(turn, sent))))
    ray.get(server.backward.remote(turn, gradient))
    ray.get(server.step.remote(turn))
    assert np.array_equal(ray.get(reread.remote(sent)).groups[0][0], values(200, 3))
    assert (ray.get(reread.remote(gradient)).groups[0][0] == 1).all()


@pytest.mark.thorough
def test_training_on_the_rounds_start_state_leaves_it_as_it_was(server: Any, fed_server: Any) -> None:
    middle = server.initial_state.remote()
    before = ray.get(middle)
    ray.get(fed_server.commit.remote(0, {"a": {}, "c": {}}, middle))
    start = fed_server.server_state.remote(TURN)
    ray.get(server.load.remote(TURN, start))
    for step in range(3):
        turn = TURN._replace(step=step)
        hidden = ray.get(server.forward.remote(turn, activation(8)))
        ray.get(server.backward.remote(turn, ones_like(hidden)))
    assert not equal(ray.get(server.state.remote(TURN)), before)
    assert equal(ray.get(reread.remote(start)), before)
    assert equal(ray.get(fed_server.server_state.remote(TURN)), before)
    assert equal(ray.get(reread.remote(middle)), before)


@pytest.mark.thorough
def test_training_copies_of_the_rounds_start_state_leaves_it_as_it_was(server: Any, fed_server: Any) -> None:
    middle, turn = server.initial_state.remote(), TURN._replace(phones=PHONES)
    before = ray.get(middle)
    ray.get(fed_server.commit.remote(0, {"a": {}, "c": {}}, middle))
    start = fed_server.server_state.remote(turn)
    ray.get([server.load.remote(turn, start, "own_copies"), server.open.remote(turn)])
    hidden = ray.get(server.forward.remote(turn, activation(8, 3)))
    ray.get(server.backward.remote(turn, ones_like(hidden)))
    ray.get(server.close.remote(turn, np.full(3, 1 / 3)))
    assert not equal(ray.get(server.state.remote(turn)), before)
    assert equal(ray.get(reread.remote(start)), before)
    assert equal(ray.get(fed_server.server_state.remote(turn)), before)


def test_what_cohorts_left_stays_as_it_was_when_it_is_averaged(fed_server: Any) -> None:
    weight = np.arange(50_000, dtype=np.float32)
    sums, own = {"a": {"weights/x": weight}}, {"a": {"weights/x": np.stack([weight, 3 * weight])}}
    closed = [ray.put(Closed((0, 1), sums, {}, 8)), ray.put(Closed((2, 3), sums, own, 8))]
    ray.get(fed_server.commit.remote(0, {"a": {"weights/x": weight}, "c": {}}, {}))
    ray.get(fed_server.collect.remote(TURN, [(0, 1), (2, 3)], *closed))
    ray.get(fed_server.commit.remote(1, None, None))
    second = TURN._replace(round=1, phones=(3, 4))
    assert np.array_equal(ray.get(fed_server.client_state.remote(second))["a"]["weights/x"], 2 * weight)
    rows = ray.get(fed_server.own_state.remote(second))["a"]["weights/x"]
    assert np.array_equal(rows, [3 * weight, 2 * weight])  # the fifth phone never trained
    for ref in closed:
        assert np.array_equal(ray.get(reread.remote(ref)).sums["a"]["weights/x"], weight)


def test_the_fed_servers_process_has_no_torch(fed_server: Any) -> None:
    loaded = fed_server.__ray_call__.remote(
        lambda _: [m for m in ("torch", "sklearn") if m in __import__("sys").modules]
    )
    assert ray.get(loaded) == []


@pytest.mark.thorough
def test_tensors_at_odd_offsets_give_the_bits_of_aligned_ones(server: Any) -> None:
    aligned = values(3)
    ray.get(server.load.remote(TURN, server.initial_state.remote()))
    expected = ray.get(server.evaluate.remote(TURN, Message([(aligned,)], 0.0))).groups[0][0]
    for offset in (1, 4, 8, 36, 60):
        buffer = np.zeros(aligned.nbytes + 64, np.uint8)
        shifted = buffer[offset : offset + aligned.nbytes].view(np.float32).reshape(aligned.shape)
        shifted[:] = aligned
        found = ray.get(server.evaluate.remote(TURN, Message([(shifted,)], 0.0))).groups[0][0]
        assert np.array_equal(found, expected)
