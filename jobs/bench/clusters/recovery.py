"""How long it takes until a death is noticed, and until it is made good."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from statistics import median
from threading import Timer
from typing import Any

import ray
from ray._private import state

import ray_split as rs
from jobs.bench.phones import Rounds
from jobs.bench.timing import Row

ROLES = {"client": "Client", "server": "Server"}


class Recoveries(Rounds):
    """Rounds in whose midst an actor's process is killed."""

    def __init__(self, settings: rs.Config) -> None:
        super().__init__(settings)
        self._killed = self._noticed = 0.0
        self._rebuild, self._backend.rebuild = self._backend.rebuild, self._notice  # type: ignore[method-assign]

    def _notice(self) -> list[str]:
        self._noticed = time.monotonic()
        return self._rebuild()

    def _kill(self, role: str) -> None:
        job = ray.get_runtime_context().get_job_id()
        found = [actor for actor in state.actors().values() if actor["State"] == "ALIVE" and actor["JobID"] == job]
        process = next(actor["Pid"] for actor in found if actor["ActorClassName"] == ROLES[role])
        self._killed = time.monotonic()
        os.kill(process, signal.SIGKILL)

    def killed(self, role: str, after: float) -> dict[str, float]:
        """Seconds from the kill until it is noticed, and until the round is committed."""
        timer = Timer(after, self._kill, [role])
        timer.start()
        self()
        timer.join()
        return {"notice": self._noticed - self._killed, "commit": time.monotonic() - self._killed}


def recovery_row(repeats: int, calls: int) -> Row:
    """The digits model: from a kill in the midst of a round to its notice, and to the end of the round.

    To recover takes what is left when an undisturbed round is taken off.
    """
    settings = rs.Config.from_yaml("jobs/configs/digits.yaml").with_values(
        cluster={"client_actors": 2}, server={"num_gpus": 0}, run={"name": "bench", "max_failures": -1}
    )
    rounds, repeats, undisturbed = Recoveries(settings), min(repeats, 5), []
    rounds()
    found: dict[str, list[dict[str, float]]] = {role: [] for role in ROLES}
    for _ in range(repeats):
        start = time.monotonic()
        rounds()
        undisturbed.append(time.monotonic() - start)
        for role, each in found.items():
            each.append(rounds.killed(role, median(undisturbed) / 2))
    plain = median(undisturbed)
    return {
        "undisturbed_round_seconds": round(plain, 2),
        **{f"seconds_to_notice_killed_{role}": _median(each, "notice", 0.0) for role, each in found.items()},
        **{f"seconds_to_recover_from_killed_{role}": _median(each, "commit", plain) for role, each in found.items()},
        "repeats": repeats,
    }


def nodes_row(repeats: int, calls: int) -> Row:
    """From a node's end to its notice, with Ray's own settings of its health check, and with faster ones."""
    return {"by_default": nodes(3), "faster": nodes(1, period_ms="2000", timeout_ms="4000")}


def _median(each: list[dict[str, float]], name: str, less: float) -> float:
    return round(median(one[name] for one in each) - less, 3)


def nodes(repeats: int, **health_check: str) -> dict[str, Any]:
    """What jobs/bench/clusters/nodes.py measures, on a cluster of its own with these settings of Ray's health check."""
    settings = {f"RAY_health_check_{name}": value for name, value in health_check.items()}
    env = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | settings
    command = [sys.executable, "-m", "jobs.bench.clusters.nodes", str(repeats)]
    done = subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found | {"health_check": health_check or "Ray's own"}


RECOVERY_ROWS = {"recovery": recovery_row, "recovery: nodes": nodes_row}
