"""Runs on Ray nodes with networks of their own, watched from the driver: prints what was counted as JSON.

A process of its own, on the head: `python -m tests.clusters.across_nodes MACHINES ADDRESS WHAT`, as
tests/clusters/ray_nodes.py starts it. WHAT is JSON: the folder, the run's name, its settings beside those in `config`,
environment variables of the actors, and what is done in its second round.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import ray
from ray._private import state

import ray_split as rs
from tests.clusters.network import Machine, Traffic, read

NEVER = 1000  # rounds between evaluations: what they send is not counted in a round's bytes
SLOW_MBPS = 8
BRIEF = 8.0  # seconds without a cable, too few for Ray's verdict


class Watch(rs.Callback):
    """Counts at the start and at each round's end: bytes of each machine and of the driver, and its memory."""

    def __init__(self, machines: dict[str, Machine]) -> None:
        self.machines = machines
        self.counts: list[dict[str, Any]] = []
        self.rows: list[dict[str, Any]] = []
        self.lost: list[str] = []
        self.seconds: list[float] = []
        self.under_way = Event()
        self._before = {name: machine.traffic() for name, machine in machines.items()}

    def on_run_start(self, settings: rs.Config, where: list[str], first_round: int) -> None:
        self.count()

    def on_round_end(self, row: dict[str, Any]) -> None:
        self.count()
        self.rows.append(row)
        self.under_way.set()

    def on_recovery(self, round: int, lost: list[str]) -> None:
        self.lost += lost
        self.seconds.append(time.monotonic())

    def count(self) -> None:
        """Take down what there is to count now."""
        moved: dict[str, Traffic] = {n: m.traffic().since(self._before[n]) for n, m in self.machines.items()}
        self.counts.append({"machines": moved, "driver": own_bytes(), "memory": own_memory()})


def own_bytes() -> int:
    """What this process sent and received on the TCP connections that it has now; Ray's last as long as the run."""
    lines = subprocess.run(["ss", "-tinpHO"], check=True, capture_output=True, text=True).stdout.splitlines()
    mine = [line for line in lines if f"pid={os.getpid()}," in line]
    return sum(int(count) for line in mine for count in re.findall(r"bytes_(?:sent|received):(\d+)", line))


def own_memory() -> dict[str, int]:
    """Bytes of this process: all (PSS), and what it has looked at of the object store, which is shared memory."""
    whole = re.search(r"^Pss:\s+(\d+)", Path("/proc/self/smaps_rollup").read_text(), re.M)
    shared = re.search(r"^RssShmem:\s+(\d+)", Path("/proc/self/status").read_text(), re.M)
    assert whole and shared
    return {"pss": int(whole[1]) * 1024, "store": int(shared[1]) * 1024}


def config(path: Path, name: str, given: dict[str, dict[str, Any]], backend: str = "ray") -> rs.Config:
    """A run whose every message is larger than what Ray sends through the driver: 100 KB."""
    found: dict[str, dict[str, Any]] = {
        "model": {"name": "tests.nets:wide", "cuts": ["1", "3"]},
        "data": {"name": "synthetic", "kwargs": {"samples": 1024, "shape": [8, 8]}, "batch_size": 64},
        "schedule": {"name": "splitfed_v1"},
        "phones": {"count": 4, "local_steps": 8, "cohort": 1},
        "server": {"num_gpus": 1 if backend == "ray" else 0},
        "cluster": {"client_actors": 1, "wait_seconds": 90, "backend": backend},
        "run": {"storage_path": str(path), "name": f"{name} {backend}", "rounds": 5, "eval_every": NEVER},
    }
    found["data"]["val_fraction"] = 0.0  # so that each phone's batches are all full
    for section, fields in given.items():
        found[section] = {**found[section], **fields}
    return rs.Config(**found)


def bytes_of(result: rs.Result) -> str:
    return hashlib.sha256((Path(result.path) / "model.safetensors").read_bytes()).hexdigest()


def client_place(machines: dict[str, Machine]) -> Machine:
    """Where the client actor runs."""
    place = next(a for a in state.actors().values() if (a["ActorClassName"], a["State"]) == ("Client", "ALIVE"))
    address = next(n["NodeManagerAddress"] for n in ray.nodes() if n["NodeID"] == place["Address"]["NodeID"])
    return next(machine for machine in machines.values() if machine.address == address)


def cut_clients(machines: dict[str, Machine]) -> None:
    """The client's node is cut off for good."""
    client_place(machines).cut()


def cut_servers_briefly(machines: dict[str, Machine]) -> None:
    """The server's node is cut off, and back before Ray gives it up."""
    machines["server"].cut()
    time.sleep(BRIEF)
    machines["server"].plug_in()


def limit_clients(machines: dict[str, Machine]) -> None:
    """From now on the clients' nodes have slow links."""
    for machine in machines.values():
        if machine.name.startswith("client"):
            machine.limit(f"{SLOW_MBPS}mbit", burst="16kb", latency="2s")


DOINGS = {
    "limit_clients": limit_clients,
    "": lambda _: None,
    "cut_clients": cut_clients,
    "cut_servers_briefly": cut_servers_briefly,
}


def main(machines: dict[str, Machine], address: str, what: dict[str, Any]) -> None:
    path, name, given, watch = Path(what["folder"]), what["name"], what["settings"], Watch(machines)
    ray.init(address=address, runtime_env={"env_vars": what["env"]}, log_to_driver=False, logging_level=logging.ERROR)
    with ThreadPoolExecutor() as threads:
        running = threads.submit(rs.fit, config(path, name, given), [watch])
        running.add_done_callback(lambda _: watch.under_way.set())
        watch.under_way.wait()
        time.sleep(0.2)
        start = time.monotonic()
        DOINGS[what["do"]](machines)
        there = bytes_of(running.result())
    ray.shutdown()
    here = bytes_of(rs.fit(config(path, name, given, "inprocess"), []))
    found = {"rows": watch.rows, "counts": watch.counts, "lost": watch.lost}
    print(json.dumps({**found, "there": there, "here": here, "seconds": [at - start for at in watch.seconds]}))  # last


if __name__ == "__main__":
    main(read(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]))
