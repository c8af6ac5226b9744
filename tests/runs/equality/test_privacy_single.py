"""Single split: labels reach the server with the activation, and nothing else of the phone's does."""

from __future__ import annotations

import numpy as np
import pytest

import actors.inprocess
import ray_split as rs
from actors.client import Client
from actors.fed_server import FedServer
from actors.server import Server
from tests.runs.equality.test_privacy import CONFIG, Run, Seen, images, recording, windows

RUNS = {
    "sequential": ({}, {"learn"}),
    "splitfed_v1": ({"phones": {"cohort": 2}}, {"learn"}),
    "splitfed_v2": ({}, {"learn"}),
    "splitfed_v3": ({"phones": {"cohort": 2}}, {"learn"}),
    "parallel": ({"phones": {"cohort": 2}}, {"learn"}),
    "parallel joint": ({"phones": {"cohort": 2}, "schedule": {"kwargs": {"batch": "joint"}}}, {"learn"}),
}


@pytest.fixture(scope="module", params=RUNS)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    sections, calls = RUNS[request.param]
    schedule = request.param.partition(" ")[0]
    seen = Run(schedule, Seen(), Seen(), Seen(), calls | {"evaluate_loss"})
    with pytest.MonkeyPatch.context() as patched:
        for role, each in ((Server, seen.server), (Client, seen.client), (FedServer, seen.fed_server)):
            patched.setattr(actors.inprocess, role.__name__, recording(role, each))
        settings = rs.Config(**CONFIG).with_values(model={"cuts": "block1"}, **{"schedule": {}, **sections})
        folder = {"storage_path": str(tmp_path_factory.mktemp("run")), "name": "run", "rounds": 2}
        schedule_of = {"name": schedule, **sections.get("schedule", {})}
        rs.fit(settings.with_values(schedule=schedule_of, run=folder), callbacks=[])
    return seen


def of_labels(arrived: list[tuple[str, np.ndarray]]) -> list[tuple[str, np.ndarray]]:
    return [(name, array) for name, array in arrived if array.dtype == np.int64 and array.ndim == 2]


@pytest.mark.few(2)
def test_labels_come_with_the_activation_and_only_then(run: Run) -> None:
    got = of_labels(run.server.arrived)
    assert {name for name, _ in got} == run.calls
    assert {int(label) for _, array in got for label in array.flatten()} == set(range(10))
    activations = [(n, a) for n, a in run.server.arrived if n in run.calls and a.dtype == np.float32]
    assert [(n, a.shape[:2]) for n, a in got] == [(n, a.shape[:2]) for n, a in activations]
    assert {a.shape[2:] for _, a in activations} == {(16, 8, 8)}


@pytest.mark.few(4)
def test_the_server_gets_no_input_and_no_weights_of_a(run: Run) -> None:
    inputs = images()
    ends = {array.tobytes() for array in run.ends() if array.nbytes >= 40 and array.any()}
    assert len(ends) >= 2
    for _, array in run.server.arrived:
        assert not inputs & windows(array)
        assert array.tobytes() not in ends


def test_no_label_comes_back_and_none_reaches_the_fed_server(run: Run) -> None:
    assert not of_labels(run.server.returned)
    assert not of_labels(run.fed_server.arrived)
    assert not of_labels([(n, a) for n, a in run.client.returned if n not in ("forward", "evaluate_forward",
                          "evaluate_own_forward")])  # fmt: skip
