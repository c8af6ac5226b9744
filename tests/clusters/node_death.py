"""Runs on a Ray cluster of several nodes, and ends nodes while they go on: prints what came of each as JSON.

A process of its own, since a process is in one Ray only: `python -m tests.clusters.node_death FOLDER`; with
`undisturbed` after it no node is ended.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import ray
from ray._private import state
from ray.cluster_utils import Cluster

import ray_split as rs
from ray_split.errors import RunFailedError

SERVER_NODE = {"num_cpus": 1, "num_gpus": 1}  # a logical GPU: the server goes there, and no client
CLIENT_NODE = {"num_cpus": 1}


class Watch(rs.Callback):
    """Tells when the second round is under way, and what was recovered from."""

    def __init__(self) -> None:
        self.under_way = Event()
        self.lost: list[list[str]] = []
        self.recovered = 0.0

    def on_round_end(self, row: dict[str, Any]) -> None:
        if row["round"] == 0:
            self.under_way.set()

    def on_recovery(self, round: int, lost: list[str]) -> None:
        self.lost.append(lost)
        self.recovered = time.monotonic()

    def on_run_end(self, summary: dict[str, Any], path: str) -> None:
        self.under_way.set()


def config(path: Path, name: str, **cluster: Any) -> rs.Config:
    return rs.Config(
        model={"name": "mlp"},
        schedule={"name": "splitfed_v1"},
        phones={"count": 4, "local_steps": 20, "cohort": 2},
        server={"num_gpus": 1 if cluster.get("backend", "ray") == "ray" else 0},
        cluster={"client_actors": 1, "wait_seconds": 90, **cluster},
        run={"storage_path": str(path), "name": name, "rounds": 8, "max_failures": -1},
    )


class Scenarios:
    """The cluster: a head with the driver and the fed server, and a node each for server and client."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        self.server = self.cluster.add_node(**SERVER_NODE)
        self.client = self.cluster.add_node(**CLIENT_NODE)
        ray.init(address=self.cluster.address, log_to_driver=False, logging_level=logging.ERROR)

    def run(self, name: str, do: Callable[[], None], **cluster: Any) -> dict[str, Any]:
        """A run, in whose second round `do` is done: nodes are added from the main thread only."""
        watch, settings = Watch(), config(self.path, name, **cluster)
        with ThreadPoolExecutor() as threads:
            running = threads.submit(rs.fit, settings, [watch])
            watch.under_way.wait(600)
            time.sleep(0.2)
            start = time.monotonic()
            do()
            try:
                result = running.result()
            except RunFailedError as error:
                return {"error": str(error)}
        return {"bytes": model(result), "lost": watch.lost, "seconds": watch.recovered - start}

    def client_with_spare(self) -> dict[str, Any]:
        """The client's node dies; there is another."""
        nodes = [self.client, self.cluster.add_node(**CLIENT_NODE)]

        def do() -> None:
            place = next(a for a in state.actors().values() if (a["ActorClassName"], a["State"]) == ("Client", "ALIVE"))
            dead = next(node for node in nodes if node.node_id == place["Address"]["NodeID"])
            self.cluster.remove_node(dead, allow_graceful=False)

        return self.run("client", do)

    def server_replaced_later(self) -> dict[str, Any]:
        """The server's node dies; another comes after some seconds."""

        def do() -> None:
            self.remove_server()
            time.sleep(12)
            self.server = self.cluster.add_node(**SERVER_NODE)

        return self.run("server", do)

    def remove_server(self) -> None:
        """The server's node dies, as when a machine loses power."""
        self.cluster.remove_node(self.server, allow_graceful=False)

    def taken(self) -> dict[str, Any]:
        """Another actor has the server's room from the start."""
        self.server = self.cluster.add_node(**SERVER_NODE)
        other = ray.remote(Other).options(num_cpus=0, num_gpus=1).remote()
        ray.get(other.__ray_ready__.remote())
        return self.run("taken", lambda: None, wait_seconds=10)


class Other:
    """Somebody else's actor."""


def model(result: rs.Result) -> str:
    return hashlib.sha256((Path(result.path) / "model.safetensors").read_bytes()).hexdigest()


def deaths(scenarios: Scenarios) -> dict[str, Any]:
    return {
        "client": scenarios.client_with_spare(),
        "server": scenarios.server_replaced_later(),
        "never": scenarios.run("never", scenarios.remove_server, wait_seconds=10),
        "taken": scenarios.taken(),
    }


def main(path: Path, undisturbed: bool) -> None:
    found: dict[str, Any] = {"whole": model(rs.fit(config(path, "whole", backend="inprocess"), callbacks=[]))}
    scenarios = Scenarios(path)
    found |= {"several": scenarios.run("several", lambda: None)} if undisturbed else deaths(scenarios)
    ray.shutdown()
    scenarios.cluster.shutdown()
    print(json.dumps(found))  # last: Ray prints here too


if __name__ == "__main__":
    main(Path(sys.argv[1]), undisturbed=sys.argv[2:] == ["undisturbed"])
