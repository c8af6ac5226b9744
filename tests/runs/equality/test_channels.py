"""By whose calls messages go changes nothing: the bytes are those of one process, also when somebody dies meanwhile."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

import ray_split as rs
from actors.channel import is_direct
from ray_split.errors import RunFailedError
from tests.conftest import alive_actors
from tests.runs.equality.test_same_bytes import model_bytes, rows, timeless
from tests.tiers import mostly_thorough

CASES: dict[str, dict[str, Any]] = {
    "sequential, two clients": {"cluster": {"client_actors": 2}},
    "sequential, more steps than one call takes": {"phones": {"count": 2, "local_steps": 19}},
    "sequential, phones drop out": {"phones": {"count": 5, "dropout": 0.5}, "cluster": {"client_actors": 2}},
    "sequential, accumulated": {"data": {"batch_size": 8, "accumulate": 3}, "phones": {"count": 2, "local_steps": 7}},
    "sequential, single split": {"model": {"cuts": ["layers.0"]}, "cluster": {"client_actors": 2}},
    "splitfed_v2, a client": {"schedule": {"name": "splitfed_v2"}},
    "splitfed_v2, two clients": {"schedule": {"name": "splitfed_v2"}, "cluster": {"client_actors": 2}},
    "splitfed_v2, three clients, phones drop out": {
        "schedule": {"name": "splitfed_v2"},
        "phones": {"count": 7, "dropout": 0.4},
        "cluster": {"client_actors": 3},
    },
    "splitfed_v1, two clients, phones drop out": {
        "schedule": {"name": "splitfed_v1"},
        "phones": {"count": 9, "dropout": 0.4, "cohort": 2},
        "cluster": {"client_actors": 2},
    },
    "splitfed_v1, more steps than one call takes": {
        "schedule": {"name": "splitfed_v1"},
        "phones": {"count": 4, "local_steps": 19, "cohort": 1},
    },
    "splitfed_v1, single split": {
        "schedule": {"name": "splitfed_v1"},
        "model": {"cuts": ["layers.0"]},
        "phones": {"count": 5, "cohort": 1},
        "cluster": {"client_actors": 2},
    },
    "splitfed_v3, two clients": {
        "schedule": {"name": "splitfed_v3"},
        "phones": {"count": 9, "cohort": 3, "held_out": 0.2},
        "cluster": {"client_actors": 2},
    },
    "splitfed_v2, single split": {
        "schedule": {"name": "splitfed_v2"},
        "model": {"cuts": ["layers.0"]},
        "cluster": {"client_actors": 2},
    },
}


def config(path: Path, name: str, case: str, **cluster: Any) -> rs.Config:
    given = CASES[case]
    return rs.Config(
        model={"name": "mlp", **given.get("model", {})},
        data={"batch_size": 32, **given.get("data", {})},
        phones={"count": 4, "local_steps": 3, **given.get("phones", {})},
        schedule=given.get("schedule", {}),
        optimizer={"lr": 0.1, "momentum": 0.5},
        server={"num_gpus": 0},
        cluster={"client_actors": 1, "channel": "auto", **given.get("cluster", {}), **cluster},
        run={"storage_path": str(path), "name": name, "rounds": 3, "max_failures": 3},
    )


def assert_same(one: rs.Result, other: rs.Result) -> None:
    """Their models to the last bit, and every figure that measures no time."""
    assert model_bytes(one.path) == model_bytes(other.path)
    assert [timeless(row) for row in rows(one.path)] == [timeless(row) for row in rows(other.path)]


@pytest.mark.thorough
@pytest.mark.parametrize("case", mostly_thorough(CASES, "splitfed_v2, two clients"))
def test_clients_that_lead_exchanges_give_the_bytes_of_one_process(
    tmp_path: Path, ray_session: object, case: str
) -> None:
    here = rs.fit(config(tmp_path, "here", case, backend="inprocess"), callbacks=[])
    direct = rs.fit(config(tmp_path, "direct", case), callbacks=[])
    assert is_direct(rs.Config.from_yaml(Path(direct.path) / "config.yaml"))
    assert_same(here, direct)


@pytest.mark.thorough
@pytest.mark.few(thorough=1)
@pytest.mark.parametrize("case", ["sequential, two clients", "splitfed_v2, two clients"])
def test_the_drivers_calls_give_them_too(tmp_path: Path, ray_session: object, case: str) -> None:
    here = rs.fit(config(tmp_path, "here", case, backend="inprocess"), callbacks=[])
    assert_same(here, rs.fit(config(tmp_path, "calls", case, channel="calls"), callbacks=[]))


class KillWithin(rs.Callback):
    """Kills an actor within its round, once some of its exchanges are reported."""

    def __init__(self, role: str, at: int) -> None:
        self._role, self._at = role, at
        self.lost: list[str] = []

    def on_progress(self, round: int, done: int, total: int, samples_per_second: float) -> None:
        if round == self._at:
            self._at = -1
            os.kill(next(actor.pid for actor in alive_actors() if actor.class_name == self._role), signal.SIGKILL)

    def on_recovery(self, round: int, lost: list[str]) -> None:
        self.lost += lost


@pytest.mark.thorough
@pytest.mark.parametrize("role", ["Client", "Server"])
@pytest.mark.parametrize("schedule", ["sequential", "splitfed_v1", "splitfed_v2"])
def test_who_dies_within_exchanges_is_replaced_and_the_bytes_are_the_same(
    tmp_path: Path, ray_session: object, schedule: str, role: str
) -> None:
    case = f"{schedule}, two clients" if schedule != "splitfed_v1" else f"{schedule}, two clients, phones drop out"
    many = {"phones": {"local_steps": 40}}  # so that a round's first reports come long before its end
    here = rs.fit(config(tmp_path, "here", case, backend="inprocess").with_values(**many), callbacks=[])
    killer = KillWithin(role, at=1)
    killed = rs.fit(config(tmp_path, "killed", case).with_values(**many), callbacks=[killer])
    assert [name.partition(" ")[0] for name in killer.lost] == [role.lower()]
    assert_same(here, killed)


@pytest.mark.thorough
@pytest.mark.few(thorough=1)
@pytest.mark.parametrize("what", ["activation", "gradient"])
def test_a_phone_that_the_server_refuses_is_named_as_in_one_process(
    tmp_path: Path, ray_session: object, what: str
) -> None:
    def said(backend: str) -> str:
        settings = config(tmp_path, backend, "sequential, two clients", backend=backend)
        with pytest.raises(RunFailedError, match="BadPhoneError: phone") as caught:
            rs.fit(settings.with_values(phones={"max_norm": {what: 1e-6}}), callbacks=[])
        return str(caught.value)

    assert said("inprocess") == said("ray")


def segments_in_shared_memory() -> set[str]:
    """Files of shared memory that are not a Ray's store as a whole."""
    return {file.name for file in Path("/dev/shm").iterdir() if not file.name.startswith("plasma")}


@pytest.mark.thorough
def test_a_run_leaves_no_actor_and_no_shared_memory(tmp_path: Path, ray_session: object) -> None:
    before = segments_in_shared_memory()
    rs.fit(config(tmp_path, "direct", "sequential, two clients"), callbacks=[])
    assert not [actor for actor in alive_actors() if actor.class_name in ("Client", "Server", "FedServer")]
    assert segments_in_shared_memory() <= before
