"""Weak scaling over client actors, and what a phone's round costs each role: docs/scaling.md reckons on from these."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import psutil

from jobs.measures.phones import Rounds, settings_of
from jobs.measures.timing import Row, interleaved

CLIENTS = (1, 2, 4)
COHORTS, COHORT = 2, 125  # of a client; phones in one
THREADS = 16  # clients on a node, on paper


class Scaled(Rounds):
    """Rounds in which each client has the same to do, however many there are."""

    def __init__(self, clients: int) -> None:
        trained, cluster = {"cohort": COHORT}, {"client_actors": clients}
        phones = clients * COHORTS * COHORT
        super().__init__(settings_of("digits_cnn", phones, 16, "splitfed_v1", trained=trained, cluster=cluster))
        self.phones = phones
        pid = self._wiring.roles.fed_server.__ray_call__.remote(lambda _: os.getpid())
        self._fed_server = psutil.Process(self._wiring.get([pid])[0])
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
        clients = self.phones / (COHORTS * COHORT)
        seconds = {"server": server, "client": client * clients, "driver": driver, "fed_server": fed}
        sizes = {name: row[name] / self.phones for name in ("bytes_up", "bytes_down", "bytes_weights")}
        spent = {f"{who}_ms": round(value / self.phones * 1e3, 4) for who, value in seconds.items()}
        return {**spent, **{name: round(value) for name, value in sizes.items()}}


def weak_row(repeats: int, calls: int) -> Row:
    """Phone-rounds a second with 1 to 4 clients, each with two cohorts of 125 phones x 16, digits_cnn, SplitFed V1."""
    runs = {clients: Scaled(clients) for clients in CLIENTS}
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


def on_paper(cost: dict[str, float], nodes: int, servers: float = 1.0, network: float = 1.25e9) -> dict[str, Any]:
    """Phone-rounds a second with this many client nodes, by what breaks first: the role that is busy all the time.

    `cost` of a phone's round as `Scaled.costs` tells it; a node has 16 clients. `servers`: how many times the measured
    thread the servers are, all together; `network`: bytes a second of a node's interface, each way.
    """
    most = {
        "clients": nodes * THREADS / cost["client_ms"] * 1e3,
        "servers": servers / cost["server_ms"] * 1e3,
        "driver": 1e3 / cost["driver_ms"],
        "fed server": 1e3 / cost["fed_server_ms"],
        "the server's network": network / max(cost["bytes_up"], cost["bytes_down"]),
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


SCALING_ROWS = {"weak scaling over clients": weak_row}
