"""Rule 7: the server is never sent an input, a label, or A's and C's weights, in training or in evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import actors.inprocess
import ray_split as rs
from actors.fed_server import FedServer
from actors.server import Server
from ray_split.message import leaves

CONFIG = {
    "phones": {"count": 3, "local_steps": 3},
    "cluster": {"backend": "inprocess"},
    "data": {"batch_size": 32},
}


def recording(role: type) -> tuple[type, list[tuple[str, np.ndarray]]]:
    """A role that keeps every array that ever reaches it, by the name of the call."""
    seen: list[tuple[str, np.ndarray]] = []

    class Recording(role):  # type: ignore[misc]
        def __getattribute__(self, name: str) -> Any:
            found = super().__getattribute__(name)
            if name.startswith("_") or not callable(found):
                return found

            def call(*arguments: Any) -> Any:
                arrays = [leaf for leaf in leaves(tuple(arguments)) if isinstance(leaf, np.ndarray)]
                seen.extend((name, array.copy()) for array in arrays)
                return found(*arguments)

            return call

    return Recording, seen


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[tuple[str, np.ndarray]]]:
    server, at_server = recording(Server)
    fed_server, at_fed_server = recording(FedServer)
    monkeypatch.setattr(actors.inprocess, "Server", server)
    monkeypatch.setattr(actors.inprocess, "FedServer", fed_server)
    rs.fit(rs.Config(**CONFIG, run={"storage_path": str(tmp_path), "name": "run", "rounds": 2}), callbacks=[])
    return {"server": at_server, "fed server": at_fed_server}


def test_the_server_gets_activations_and_gradients_and_its_own_state(run: dict[str, list]) -> None:
    assert {name for name, _ in run["server"]} == {"forward", "backward", "load", "evaluate"}
    training = [a.shape[1:] for name, a in run["server"] if name in ("forward", "evaluate")]
    assert set(training) == {(16, 8, 8)}
    assert {a.shape[1:] for name, a in run["server"] if name == "backward"} == {(64,)}


def test_no_input_reaches_the_server(run: dict[str, list]) -> None:
    data = rs.load_data(rs.Config().data)
    images = {image.tobytes() for part in (data.train, data.val, data.test) for image in part.inputs}
    for _, array in run["server"]:
        size = 64 * array.itemsize
        content = array.tobytes()
        assert not images & {content[i : i + size] for i in range(0, len(content) - size + 1, size)}


def test_no_label_reaches_the_server(run: dict[str, list]) -> None:
    assert all(array.dtype == np.float32 for _, array in run["server"])
    labels = rs.load_data(rs.Config().data).train.labels
    present = set(range(10))
    for name, array in run["server"]:
        if array.ndim == 1 and name != "load":
            assert not set(array.tolist()) <= present
    assert set(labels.tolist()) == present


def test_no_weights_of_a_or_c_reach_the_server(run: dict[str, list]) -> None:
    loaded = [array.shape for name, array in run["server"] if name == "load"]
    ends = {(16, 1, 3, 3), (10, 64), (16,), (10,)}
    assert loaded and not ends & set(loaded)
    received = {array.tobytes() for _, array in run["server"]}
    kept = [a for name, a in run["fed server"] if name == "commit" and a.shape in ends]
    assert len(kept) == 4 * 3
    assert not received & {array.tobytes() for array in kept}


def test_no_activation_gradient_or_data_reaches_the_fed_server(run: dict[str, list]) -> None:
    assert {name for name, _ in run["fed server"]} == {"commit"}
    crossed = {array.tobytes() for name, array in run["server"] if name != "load"}
    assert not crossed & {array.tobytes() for _, array in run["fed server"]}
