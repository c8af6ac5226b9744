"""SIGKILL at random moments on a real Ray: whoever dies, the run ends with the bytes of the undisturbed one."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from torch import nn

import ray_split as rs
from ray_split.errors import RunFailedError
from tests.failures.test_faults import contents
from tests.runs.equality.test_same_bytes import rows, timeless
from tests.tiers import slow

ROUNDS = 10
ROLES = ("Client", "Server", "FedServer")
SCHEDULES: dict[str, dict[str, Any]] = {
    "sequential": {},
    "splitfed_v1": {"phones": {"cohort": 2}},
    "splitfed_v2": {},
    "splitfed_v3": {"phones": {"cohort": 2}},
    "parallel": {"phones": {"cohort": 2}},
    "fedavg": {"phones": {"cohort": 2}},
}


def config(path: Path, name: str, schedule: str, **cluster: Any) -> rs.Config:
    return rs.Config(
        model={"name": "mlp"},
        schedule={"name": schedule},
        data={"batch_size": 16},
        phones={"count": 4, "local_steps": 6, **SCHEDULES[schedule].get("phones", {})},
        optimizer={"lr": 0.1, "momentum": 0.5},
        cluster={"client_actors": 2, **cluster},
        run={"storage_path": str(path), "name": name, "rounds": ROUNDS, "max_failures": -1},
    )


def processes(*states: str) -> list[tuple[str, int]]:
    """The class and the process of the actors that are in one of these states."""
    from ray._private import state

    found = [actor for actor in state.actors().values() if actor["State"] in states and actor["Pid"]]
    return sorted((actor["ActorClassName"], actor["Pid"]) for actor in found if actor["ActorClassName"] in ROLES)


class Killer(rs.Callback):
    """Kills actors at moments drawn uniformly from the whole run: rounds with their evaluation and checkpoint."""

    def __init__(self, seed: int, kills: int) -> None:
        draw = random.Random(seed)
        self._plan = sorted((draw.uniform(0, ROUNDS), draw.random()) for _ in range(kills))
        self._replaced, self._over = Event(), Event()
        self._ended = [Event() for _ in range(ROUNDS)]
        self._seconds, self._last = 0.4, 0.0  # of a round, and when the last one ended
        self._thread = Thread(target=self._kill)
        self.killed: list[str] = []
        self.lost: list[list[str]] = []

    def on_run_start(self, settings: rs.Config, where: list[str], first_round: int) -> None:
        self._thread.start()

    def on_round_end(self, row: dict[str, Any]) -> None:
        before, self._last = self._last, time.monotonic()
        if before:
            self._seconds = min(self._seconds, self._last - before)  # without what recovery took
        self._ended[row["round"]].set()

    def on_recovery(self, round: int, lost: list[str]) -> None:
        self.lost.append(lost)
        self._replaced.set()

    def on_run_end(self, summary: dict[str, Any], path: str) -> None:
        for event in (self._over, self._replaced, *self._ended):
            event.set()
        self._thread.join()

    def _kill(self) -> None:
        for moment, choice in self._plan:
            self._replaced.clear()
            if moment >= 1:
                self._ended[int(moment) - 1].wait()
            if self._over.wait(moment % 1 * self._seconds):
                return
            actors = processes("ALIVE")
            name, process = actors[int(choice * len(actors))]
            os.kill(process, signal.SIGKILL)
            self.killed.append(name)
            self._replaced.wait()


def killed_as_undisturbed(
    path: Path, schedule: str, kills: int, seed: int, clients: int = 2, channel: str = "auto"
) -> Killer:
    """Run undisturbed, then with kills; asserts that both leave the same. Says who was killed."""
    whole = rs.fit(config(path, "whole", schedule, backend="inprocess"), callbacks=[])
    killer = Killer(seed, kills)
    result = rs.fit(config(path, "killed", schedule, client_actors=clients, channel=channel), callbacks=[killer])
    print(f"\n{schedule}: killed {killer.killed}; replaced {killer.lost}")
    assert dict(contents(Path(result.path))) == dict(contents(Path(whole.path)))
    assert [timeless(row) for row in rows(result.path)] == [timeless(row) for row in rows(whole.path)]
    assert result.metrics["recoveries"] == len(killer.lost)
    # The last may have been killed when nobody needed it any more.
    assert len(killer.killed) - 1 <= len(killer.lost) and len(killer.killed) >= kills - 1
    return killer


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("schedule", "clients", "channel"),
    [("splitfed_v1", 1, "calls"), *slow(("sequential", 1, "direct"), ("splitfed_v2", 2, "direct"))],
)
def test_four_kills_at_random_moments_change_nothing(
    tmp_path: Path, ray_session: object, schedule: str, clients: int, channel: str
) -> None:
    killer = killed_as_undisturbed(tmp_path, schedule, 4, seed=1, clients=clients, channel=channel)
    assert len(set(killer.killed)) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_five_kills_at_random_moments_change_nothing(tmp_path: Path, ray_session: object, schedule: str) -> None:
    killed_as_undisturbed(tmp_path, schedule, 5, seed=100 + list(SCHEDULES).index(schedule))


def while_being_made(name: str, do: Callable[[int], None]) -> Thread:
    """Do something to the process of the next actor of this class that is being made."""

    def watch() -> None:
        deadline = time.monotonic() + 600
        while time.monotonic() < deadline:
            for kind, process in processes("PENDING_CREATION"):
                if kind == name:
                    return do(process)
            time.sleep(0.02)
        return None

    thread = Thread(target=watch)
    thread.start()
    return thread


@pytest.mark.thorough
@pytest.mark.parametrize("role", ["FedServer", *(pytest.param(r, marks=pytest.mark.slow) for r in ROLES[:2])])
def test_an_actor_may_die_while_it_is_made(tmp_path: Path, ray_session: object, role: str) -> None:
    killer = while_being_made(role, lambda process: os.kill(process, signal.SIGKILL))
    result = rs.fit(config(tmp_path, "killed", "splitfed_v1", client_actors=1), callbacks=[])
    killer.join()
    assert result.metrics["recoveries"] == 1
    whole = rs.fit(config(tmp_path, "whole", "splitfed_v1", backend="inprocess"), callbacks=[])
    assert dict(contents(Path(result.path))) == dict(contents(Path(whole.path)))


@pytest.mark.slow
def test_the_fed_server_is_not_forgotten_if_another_dies_while_it_is_replaced(
    tmp_path: Path, ray_session: object
) -> None:
    class Kill(rs.Callback):
        lost: list[str] = []  # noqa: RUF012

        def on_round_end(self, row: dict[str, Any]) -> None:
            if row["round"] == 2:
                self.second = while_being_made("FedServer", lambda _: kill("Client"))
                kill("FedServer")

        def on_recovery(self, round: int, lost: list[str]) -> None:
            self.lost += lost

    def kill(role: str) -> None:
        os.kill(next(process for name, process in processes("ALIVE") if name == role), signal.SIGKILL)

    killer = Kill()
    result = rs.fit(config(tmp_path, "killed", "splitfed_v1", client_actors=1), callbacks=[killer])
    killer.second.join()
    assert sorted(killer.lost) == ["client 0", "fed server"]
    whole = rs.fit(config(tmp_path, "whole", "splitfed_v1", backend="inprocess"), callbacks=[])
    assert dict(contents(Path(result.path))) == dict(contents(Path(whole.path)))


def for_drivers_only(num_classes: int) -> nn.Module:
    """A model that no actor can make."""
    if sys.argv[0].endswith("default_worker.py"):
        raise ValueError("not\nin an actor")
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, num_classes))


@pytest.mark.thorough
def test_a_constructor_that_raises_fails_the_run_at_once_with_its_message(tmp_path: Path, ray_session: object) -> None:
    settings = config(tmp_path, "r", "sequential", client_actors=1).with_values(
        model={"name": "tests.failures.test_kills:for_drivers_only", "cuts": ["1", "2"]}
    )
    with pytest.raises(RunFailedError, match=r"could not be made: .*ValueError: not in an actor"):
        rs.fit(settings, callbacks=[])
    assert rs.Result.from_path(tmp_path / "r").metrics["recoveries"] == 0
