"""Rule 7: the server is never sent an input, a label, or A's and C's weights, in training or in evaluation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

import actors.inprocess
import ray_split as rs
from actors.client import Client
from actors.fed_server import FedServer
from actors.server import Server
from ray_split.messages.message import leaves
from tests.tiers import mostly_thorough

Arrays = list[tuple[str, np.ndarray]]

CONFIG = {
    "phones": {"count": 5, "local_steps": 3},
    "cluster": {"backend": "inprocess"},
    "data": {"batch_size": 32},
}
BATCHNORM = {"name": "tests.nets:with_batchnorm", "cuts": "2,7"}
EXCHANGE = {"forward", "backward"}
RUNS = {
    # the run's sections, and what the server is called beside load and evaluate
    "sequential": ({}, EXCHANGE),
    "splitfed_v1": ({"phones": {"cohort": 2}}, EXCHANGE | {"close"}),
    "splitfed_v1 looped": ({"phones": {"cohort": 1}}, EXCHANGE | {"close"}),
    "splitfed_v1 local statistics": (
        {"phones": {"cohort": 2}, "model": BATCHNORM, "schedule": {"kwargs": {"statistics": "local"}}},
        EXCHANGE | {"close"},
    ),
    "splitfed_v1 replicas": ({"phones": {"cohort": 1}, "server": {"replicas": 2}}, EXCHANGE | {"close", "take"}),
    "splitfed_v2": ({}, EXCHANGE),
    "splitfed_v2 replicas": ({"server": {"replicas": 2}}, EXCHANGE | {"average"}),
    "splitfed_v3": ({"phones": {"cohort": 2, "per_round": 4}}, EXCHANGE | {"close"}),
    "parallel": ({"phones": {"cohort": 2}}, EXCHANGE),
    "parallel joint": ({"phones": {"cohort": 2}, "model": BATCHNORM}, EXCHANGE),
}
PASSED = {"take", "average"}  # of B, from replica to replica
MERGED = {"splitfed_v1", "splitfed_v2", "splitfed_v3", "parallel"}


@dataclass
class Seen:
    """Every array that ever reached a role, or came from it, by the name of the call."""

    arrived: Arrays = field(default_factory=list)
    returned: Arrays = field(default_factory=list)

    def to(self, *names: str) -> list[np.ndarray]:
        return [array for name, array in self.arrived if name in names]


def arrays(value: Any) -> list[np.ndarray]:
    found = [leaf.numpy() if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves(value)]
    return [leaf.copy() for leaf in found if isinstance(leaf, np.ndarray)]


def recording(role: type, seen: Seen) -> type:
    """A role that keeps every array that ever reaches it, or that it returns."""

    class Recording(role):  # type: ignore[misc]
        def __getattribute__(self, name: str) -> Any:
            found = super().__getattribute__(name)
            if name.startswith("_") or not callable(found):
                return found

            def call(*arguments: Any) -> Any:
                seen.arrived.extend((name, array) for array in arrays(tuple(arguments)))
                result = found(*arguments)
                seen.returned.extend((name, array) for array in arrays(result))
                return result

            return call

    return Recording


@dataclass
class Run:
    schedule: str
    server: Seen
    client: Seen
    fed_server: Seen
    calls: set[str]

    def ends(self) -> list[np.ndarray]:
        """A's and C's states, as they ever were at a round's border."""
        returned = [array for name, array in self.client.returned if name in ("initial_state", "state", "close")]
        return [*self.client.to("load"), *returned]

    def crossed(self) -> list[np.ndarray]:
        """Activations and gradients, both ways."""
        to_server = self.server.to(*self.calls - {"close", *PASSED}, "evaluate")
        return [*to_server, *self.client.to("loss", "backward", "evaluate_loss", "evaluate_own_loss")]


OFTEN = ("sequential", "splitfed_v1", "parallel")


@pytest.fixture(scope="module", params=mostly_thorough(RUNS, *OFTEN))
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    sections, calls = RUNS[request.param]
    schedule = request.param.partition(" ")[0]
    seen = Run(schedule, Seen(), Seen(), Seen(), calls)
    with pytest.MonkeyPatch.context() as patched:
        for role, each in ((Server, seen.server), (Client, seen.client), (FedServer, seen.fed_server)):
            patched.setattr(actors.inprocess, role.__name__, recording(role, each))
        settings = rs.Config(**CONFIG).with_values(**{"schedule": {}, **sections})
        folder = {"storage_path": str(tmp_path_factory.mktemp("run")), "name": "run", "rounds": 2}
        rs.fit(settings.with_values(schedule={"name": schedule}, run=folder), callbacks=[])
    return seen


def shapes(found: list[np.ndarray]) -> set[tuple[int, ...]]:
    return {array.shape for array in found}


def test_the_server_gets_activations_and_gradients_and_its_own_state(run: Run) -> None:
    assert {name for name, _ in run.server.arrived} == {*run.calls, "load", "evaluate"}
    small = (4, 1, 3, 3) in shapes(run.ends())  # the net with BatchNorm
    activation, hidden = ((4, 8, 8), (16,)) if small else ((16, 8, 8), (64,))
    # (phones, samples, ...)
    assert {shape[2:] for shape in shapes(run.server.to("forward", "evaluate"))} == {activation}
    assert {shape[2:] for shape in shapes(run.server.to("backward"))} == {hidden}
    own = [array for name, array in run.server.returned if name == "initial_state"]
    assert [array.shape for array in run.server.to("load")][: len(own)] == [array.shape for array in own]
    assert shapes(run.server.to("load")) == shapes(own)
    assert shapes(run.server.to(*PASSED)) == (shapes(own) if run.calls & PASSED else set())


def test_of_the_phones_the_server_learns_their_shares_alone(run: Run) -> None:
    for shares in run.server.to("close"):
        assert shares.ndim == 1 and shares.dtype == np.float64
    rounds = {"splitfed_v1": 2, "splitfed_v3": 2}.get(run.schedule, 0)
    assert np.isclose(sum(shares.sum() for shares in run.server.to("close")), rounds)


def images() -> set[bytes]:
    data = rs.load_data(rs.Config().data)
    return {image.tobytes() for part in (data.train, data.val, data.test) for image in part.inputs}


def windows(array: np.ndarray, size: int = 64 * 4) -> set[bytes]:
    """The array's bytes, taken apart from every 64th on."""
    content = array.tobytes()
    return {content[i : i + size] for i in range(0, len(content) - size + 1, 64)}


def test_no_input_reaches_the_server(run: Run) -> None:
    inputs = images()
    assert not any(inputs & windows(array) for _, array in run.server.arrived)


def test_no_label_reaches_the_server(run: Run) -> None:
    present = set(range(10))
    for name, array in run.server.arrived:
        if name in {"load", *PASSED}:  # B's state: see above
            continue
        assert array.dtype == np.float32 or name == "close"
        if array.size < 5000:
            assert not set(array.flatten().tolist()) <= present
    assert set(rs.load_data(rs.Config().data).train.labels.tolist()) == present


def test_no_weights_of_a_or_c_reach_the_server(run: Run) -> None:
    weights = {array.tobytes() for array in run.ends() if array.nbytes >= 40 and array.any()}
    kinds = {array.shape for array in run.ends() if array.size >= 10}
    assert len(weights) >= 4 * 3
    got = [array for name, array in run.server.arrived if name != "close"]
    of_b = {array.shape for name, array in run.server.returned if name == "initial_state"}
    assert not {shape for shape in shapes(got) if shape in kinds or shape[1:] in kinds} - of_b
    assert not weights & {array.tobytes() for array in got}
    contents = [array.tobytes() for array in got]
    assert not any(weight in content for weight in weights for content in contents)


def test_the_fed_server_gets_what_commit_and_collect_carry_and_it_is_weights(run: Run) -> None:
    names = {name for name, _ in run.fed_server.arrived}
    assert names == ({"commit", "collect"} if run.schedule in MERGED else {"commit"})
    returned = ("initial_state", "state", "close")
    states = [array for name, array in (*run.client.returned, *run.server.returned) if name in returned]
    assert {array.tobytes() for _, array in run.fed_server.arrived} <= {array.tobytes() for array in states}
    kinds = shapes([a for name, a in (*run.client.returned, *run.server.returned) if name == "initial_state"])
    assert {shape for shape in shapes([a for _, a in run.fed_server.arrived]) if shape[1:] not in kinds} <= kinds


def test_no_activation_gradient_or_data_reaches_the_fed_server(run: Run) -> None:
    crossed = {array.tobytes() for array in run.crossed()}
    assert len(crossed) > 50
    assert not crossed & {array.tobytes() for _, array in run.fed_server.arrived}
    pieces = {piece for array in run.crossed() for piece in windows(array) if any(piece)}
    inputs = images()
    for _, array in run.fed_server.arrived:
        assert not (pieces | inputs) & windows(array)


def test_the_client_gets_no_weights_of_b(run: Run) -> None:
    middle = [array for name, array in run.server.returned if name in ("initial_state", "state")]
    weights = {array.tobytes() for array in middle if array.nbytes >= 256 and array.any()}
    assert len(weights) >= 4
    assert not weights & {array.tobytes() for _, array in run.client.arrived}
