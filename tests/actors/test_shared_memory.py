"""Rules 2 and 3 on real Ray: what was sent and the round's start state stay as they were, read from another process."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import ray

import ray_split as rs
from actors.fed_server import FedServer
from actors.server import Server
from ray_split.draws import Turn
from ray_split.state import State

TURN = Turn(0, 0, 0, 0)
SETTINGS = rs.Config(
    model={"name": "tests.nets:inplace_first", "cuts": "0,3"},
    optimizer={"lr": 0.5},
    server={"num_gpus": 0},
)


@ray.remote
def reread(value: Any) -> Any:
    """Read an object in another process."""
    return ray.cloudpickle.loads(ray.cloudpickle.dumps(value))


@pytest.fixture
def server(ray_session: object) -> Any:
    actor = ray.remote(Server).options(num_cpus=1).remote(SETTINGS)
    yield actor
    ray.kill(actor)


@pytest.fixture
def fed_server(ray_session: object, tmp_path: Any) -> Any:
    actor = ray.remote(FedServer).options(num_cpus=0).remote(tmp_path, None)
    yield actor
    ray.kill(actor)


def activation(samples: int) -> tuple[np.ndarray, ...]:
    """Half of it negative: an in-place ReLU would show. Large enough to lie in shared memory."""
    return (np.random.default_rng(0).normal(size=(samples, 4, 8, 8)).astype(np.float32),)


def equal(a: State, b: State) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("samples", [2, 500], ids=["inlined", "shared memory"])
def test_an_inplace_relu_first_in_b_leaves_the_sent_object_as_it_was(server: Any, samples: int) -> None:
    sent = ray.put(activation(samples))
    ray.get(server.load.remote(TURN, server.initial_state.remote()))
    hidden = ray.get(server.forward.remote(TURN, sent))
    gradient = (np.ones_like(hidden[0]),)
    ray.get(server.backward.remote(TURN, gradient))
    ray.get(server.evaluate.remote(TURN, sent))
    assert np.array_equal(ray.get(reread.remote(sent))[0], activation(samples)[0])
    assert (activation(samples)[0] < 0).any()


def test_training_on_the_rounds_start_state_leaves_it_as_it_was(server: Any, fed_server: Any) -> None:
    middle = server.initial_state.remote()
    before = ray.get(middle)
    ray.get(fed_server.commit.remote(0, {"a": {}, "c": {}}, middle))
    start = fed_server.server_state.remote(TURN)
    ray.get(server.load.remote(TURN, start))
    for step in range(3):
        turn = TURN._replace(step=step)
        hidden = ray.get(server.forward.remote(turn, activation(8)))
        ray.get(server.backward.remote(turn, (np.ones_like(hidden[0]),)))
    assert not equal(ray.get(server.state.remote(TURN)), before)
    assert equal(ray.get(reread.remote(start)), before)
    assert equal(ray.get(fed_server.server_state.remote(TURN)), before)
    assert equal(ray.get(reread.remote(middle)), before)


def test_the_fed_servers_process_has_no_torch(fed_server: Any) -> None:
    loaded = fed_server.__ray_call__.remote(
        lambda _: [m for m in ("torch", "sklearn") if m in __import__("sys").modules]
    )
    assert ray.get(loaded) == []


def test_tensors_at_odd_offsets_give_the_bits_of_aligned_ones(server: Any) -> None:
    aligned = activation(3)[0]
    ray.get(server.load.remote(TURN, server.initial_state.remote()))
    expected = ray.get(server.evaluate.remote(TURN, (aligned,)))[0]
    for offset in (1, 4, 8, 36, 60):
        buffer = np.zeros(aligned.nbytes + 64, np.uint8)
        shifted = buffer[offset : offset + aligned.nbytes].view(np.float32).reshape(aligned.shape)
        shifted[:] = aligned
        assert np.array_equal(ray.get(server.evaluate.remote(TURN, (shifted,)))[0], expected)
