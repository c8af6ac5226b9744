"""Weak scaling over client actors, and what a phone's round costs each role: docs/scaling.md reckons on from these."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import psutil

import ray_split as rs
from jobs.bench.phones import Rounds, settings_of
from jobs.bench.timing import Row, interleaved

CLIENTS = (1, 2, 4)
COHORTS, COHORT = 2, 125  # of a client; phones in one
NODES = (10, 100, 1000)  # of clients
SERVERS: dict[str, dict[str, Any]] = {
    "a thread": {},
    "a GPU": {"speed": 50.0},
    "a GPU, 64 lanes": {"speed": 50.0, "lanes": 64},
    "8 GPUs, 64 lanes": {"speed": 50.0, "lanes": 64, "replicas": 8},
}
THREADS = 16  # clients on a node, on paper


class Scaled(Rounds):
    """Rounds whose roles' processors are watched."""

    def __init__(self, settings: rs.Config) -> None:
        super().__init__(settings)
        self.phones, self.clients = settings.phones.count, int(settings.cluster.client_actors)
        pid = self._backend.roles.fed_server.__ray_call__.remote(lambda _: os.getpid())
        self._fed_server = psutil.Process(self._backend.get([pid])[0])
        self._cpu: list[tuple[float, float]] = []

    def __call__(self) -> None:
        before = time.process_time(), self._busy()
        super().__call__()
        self._cpu.append((time.process_time() - before[0], self._busy() - before[1]))

    def _busy(self) -> float:
        times = self._fed_server.cpu_times()
        return times.user + times.system

    def costs(self) -> dict[str, float]:
        """Of one phone's round: seconds of each role's processor, in milliseconds, and bytes."""
        row, driver, fed = self.rows[-1], *(median(each) for each in zip(*self._cpu, strict=True))
        server, client = (median(r[f"{who}_compute_seconds"] for r in self.rows) for who in ("server", "client"))
        seconds = {"server": server, "client": client * self.clients, "driver": driver, "fed_server": fed}
        sizes = {name: row[name] / self.phones for name in ("bytes_up", "bytes_down", "bytes_weights")}
        spent = {f"{who}_ms": round(value / self.phones * 1e3, 4) for who, value in seconds.items()}
        return {**spent, **{name: round(value) for name, value in sizes.items()}}


def digits(clients: int) -> rs.Config:
    """Each client has the same to do, however many there are."""
    trained, cluster = {"cohort": COHORT}, {"client_actors": clients}
    return settings_of("digits_cnn", clients * COHORTS * COHORT, 16, "splitfed_v1", trained=trained, cluster=cluster)


def resnet() -> rs.Config:
    """A phone at a time, three steps on 32 images of 3x64x64."""
    net, data = {"cuts": ["layer2", "avgpool"]}, {"batch_size": 32, "kwargs": {"samples": 480, "shape": [3, 64, 64]}}
    return settings_of("resnet18", 5, 96, "splitfed_v1", cluster={"client_actors": 2}, net=net, data=data)


def cost_row(repeats: int, calls: int) -> Row:
    """What a phone's round costs each role, of a small model in cohorts and of a large one."""
    found = {}
    for model, settings in {"digits_cnn, cohorts of 125": digits(2), "resnet18, phone by phone": resnet()}.items():
        run = Scaled(settings)
        interleaved({"": run}, min(repeats, 5), 1)
        cost = run.costs()
        run.stop()
        paper = {f"{n} nodes, {who}": on_paper(cost, n, **how) for n in NODES for who, how in SERVERS.items()}
        found[model] = {"a_phones_round": cost, "on_paper": paper}
    return found


def weak_row(repeats: int, calls: int) -> Row:
    """Phone-rounds a second with 1 to 4 clients, each with two cohorts of 125 phones x 16, digits_cnn, SplitFed V1."""
    runs = {clients: Scaled(digits(clients)) for clients in CLIENTS}
    cases: dict[str, Callable[[], Any]] = {str(clients): run for clients, run in runs.items()}
    times = interleaved(cases, min(repeats, 7), 1)
    rate = {name: round(runs[int(name)].phones / median(seconds), 1) for name, seconds in times.items()}
    share = {
        c: round(median(r["server_compute_seconds"] for r in run.rows) / median(times[str(c)]), 3)
        for c, run in runs.items()
    }
    costs = {clients: run.costs() for clients, run in runs.items()}
    for run in runs.values():
        run.stop()
    return {"phone_rounds_per_second": rate, "server_busy_share": share, "a_phones_round": costs}


def on_paper(
    cost: dict[str, float], nodes: int, speed: float = 1.0, replicas: int = 1, lanes: int = 8, network: float = 1.25e9
) -> dict[str, Any]:
    """Phone-rounds a second with this many client nodes, by what breaks first: what is busy all the time.

    `cost` of a phone's round as `Scaled.costs` tells it; a node has 16 clients. `speed`: a server's, in such threads;
    `lanes`: server.lanes, the cohorts that a server has under way, each of which is at its client or at the server;
    `network`: bytes a second of a server's interface, each way.
    """
    most = {
        "clients": nodes * THREADS / cost["client_ms"] * 1e3,
        "servers": replicas * speed / cost["server_ms"] * 1e3,
        "server.lanes": replicas * lanes / (cost["client_ms"] + cost["server_ms"] / speed) * 1e3,
        "servers' network": replicas * network / max(cost["bytes_up"], cost["bytes_down"]),
        "driver": 1e3 / cost["driver_ms"],
        "fed server": 1e3 / cost["fed_server_ms"],
    }
    first = min(most, key=lambda name: most[name])
    rate = most[first]
    return {
        "nodes": nodes,
        "phone_rounds_per_second": round(rate),
        "breaks_first": first,
        "server_busy_share": round(rate / most["servers"], 2),
        "mb_per_second": round(rate * (cost["bytes_up"] + cost["bytes_down"]) / 1e6),
        "most": {name: round(value) for name, value in most.items()},
    }


SCALING_ROWS = {"weak scaling over clients": weak_row, "a phone's round by role": cost_row}
