"""The data on real Ray: in the object store once for a node, and what is read from files not in it at all."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from PIL import Image

import ray_split as rs
from actors.client import Client
from ray_split.messages.turn import Turn
from ray_split.preparation.prepare import Prepared, prepare


@pytest.fixture
def clients(ray_session: object) -> Iterator[Any]:
    started = []

    def start(settings: rs.Config, count: int) -> tuple[Prepared, list[Any]]:
        prepared = prepare(settings)
        parts = ray.put(prepared.parts)
        client = ray.remote(Client).options(num_cpus=1)
        started.extend(
            client.remote(prepared.settings, parts, prepared.stream, prepared.contract) for _ in range(count)
        )
        return prepared, started

    yield start
    for actor in started:
        ray.kill(actor)


@pytest.mark.thorough
def test_clients_read_the_arrays_where_the_object_store_has_them(clients: Any) -> None:
    data = {"name": "synthetic", "kwargs": {"samples": 200_000, "shape": [1, 8, 8]}, "val_fraction": 0.2}
    prepared, actors = clients(rs.Config(data=data, run={"name": "x"}), 2)

    def of_its_own(client: Any) -> list[str]:
        """The arrays that it could write to, or has memory of its own for."""
        found = []
        for name in ("train", "val", "test"):
            for kind, array in getattr(client._parts, name)._asdict().items():
                base = array
                while isinstance(base.base, np.ndarray):
                    base = base.base
                if array.flags.writeable or base.flags.owndata:
                    found.append(f"{name} {kind}")
        return found

    def read_all(client: Any) -> tuple[float, float]:
        """The sum of all inputs, and how many MB of memory that no other process shares reading them took."""

        def private() -> float:
            lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
            return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024

        before = private()
        return float(client._parts.train.inputs.sum()), private() - before

    inputs = prepared.parts.train.inputs
    assert ray.get([actor.__ray_call__.remote(of_its_own) for actor in actors]) == [[], []]
    for total, megabytes in ray.get([actor.__ray_call__.remote(read_all) for actor in actors]):
        assert total == float(inputs.sum())
        assert megabytes < inputs.nbytes / 2**20 / 4


@pytest.mark.thorough
def test_a_batch_of_a_client_is_its_own(clients: Any) -> None:
    _, (actor,) = clients(rs.Config(run={"name": "x"}), 1)

    def writes(client: Any) -> bool:
        inputs, labels = client._parts.batch("train", slice(0, 5))
        return (
            inputs.flags.writeable
            and labels.flags.writeable
            and not np.shares_memory(inputs, client._parts.train.inputs)
        )

    assert ray.get(actor.__ray_call__.remote(writes))


@pytest.mark.thorough
def test_images_in_folders_are_read_by_the_client_and_only_their_paths_are_shared(clients: Any, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    for i in range(40):
        folder = tmp_path / "train" / "ab"[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (40, 60, 3), np.uint8)).save(folder / f"{i}.png")
    settings = rs.Config(
        data={"name": "image_folder", "path": tmp_path, "kwargs": {"size": 32}, "augment": "flip", "batch_size": 4},
        model={"name": "tests.nets:coloured", "cuts": "1,4"},
        phones={"count": 2},
        run={"name": "x"},
    )
    prepared, (actor,) = clients(settings, 1)
    assert len(pickle.dumps(prepared.parts)) < 10_000 < prepared.parts.batch("train", slice(0, 4))[0].nbytes
    turn = Turn(0, 0, (1,), 0)
    here = Client(*prepared[:4])
    for load in (lambda *given: ray.get(actor.load.remote(*given)), here.load):
        load(turn, here.initial_state())
    sent, expected = ray.get(actor.forward.remote(turn)), here.forward(turn)
    assert all(np.array_equal(*pair) for pair in zip(sent.groups[0], expected.groups[0], strict=True))
