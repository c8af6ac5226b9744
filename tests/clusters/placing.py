"""Runs on a Ray cluster with nodes for each role, full and with room: prints who ran where, and what was said, as JSON.

A process of its own, since a process is in one Ray only: `python -m tests.clusters.placing FOLDER`.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray._private import state
from ray.cluster_utils import Cluster

import ray_split as rs
from ray_split.api import dry_run
from ray_split.errors import RunFailedError, SettingsError
from tests.loopback import free_port

ROLE = "ray-split/role"


def settings(path: Path, name: str, clients: int = 6, gpus: float = 1, **cluster: Any) -> rs.Config:
    return rs.Config(
        model={"name": "mlp"},
        schedule={"name": "splitfed_v1"},
        phones={"count": 12, "local_steps": 1, "cohort": 1},
        server={"num_gpus": gpus},
        cluster={"client_actors": clients, "wait_seconds": 60, **cluster},
        run={"storage_path": str(path), "name": name, "rounds": 2},
    )


def with_gateway(path: Path, name: str, node: str) -> rs.Config:
    """With a remote phone that never comes: rounds begin without it."""
    return settings(path, name, clients=1).with_values(
        phones={"remote": 1},
        gateway={"node": node, "port": free_port(), "tokens": str(path / "devices.json")},
        run={"rounds": 1, "wait_for_phones": 0.1},
    )


class Look(rs.Callback):
    """Looks where the actors are while the run goes on."""

    def __init__(self, nodes: dict[str, str]) -> None:
        self.nodes = nodes
        self.places: list[tuple[str, str]] = []
        self.said: list[str] = []

    def on_run_start(self, settings: rs.Config, where: list[str], first_round: int) -> None:
        self.said = where
        job = ray.get_runtime_context().get_job_id()
        alive = [a for a in state.actors().values() if (a["State"], a["JobID"]) == ("ALIVE", job)]
        self.places = sorted((a["ActorClassName"], self.nodes[a["Address"]["NodeID"]]) for a in alive)


class Cloud:
    """A head, two nodes with a (logical) GPU and three with CPUs, by default labelled."""

    def __init__(self, path: Path, labelled: bool) -> None:
        self.path, self.labelled = path, labelled
        self.cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **self._labels("head")}
        )
        self.nodes = {self.cluster.head_node.node_id: "head"}
        for i in range(2):
            self.add(f"gpu {i}", "server", num_cpus=1, num_gpus=1)
        for i in range(3):
            self.add(f"cpu {i}", "client", num_cpus=4)
        ray.init(address=self.cluster.address, log_to_driver=False, logging_level=logging.ERROR)

    def _labels(self, role: str) -> dict[str, Any]:
        return {"labels": {ROLE: role}} if self.labelled else {}

    def add(self, name: str, role: str, **resources: Any) -> None:
        node = self.cluster.add_node(**resources, **self._labels(role))
        self.nodes[node.node_id] = name

    def run(self, config: rs.Config, meanwhile: Callable[[], None] = lambda: None) -> dict[str, Any]:
        """A run, with something done (in the main thread: nodes are added there) once it waits for room."""
        look = Look(self.nodes)
        with ThreadPoolExecutor() as threads:
            running = threads.submit(rs.fit, config, [look])
            time.sleep(0.1)
            meanwhile()
            try:
                running.result()
            except (RunFailedError, SettingsError) as error:
                return {"error": str(error)}
        return {"places": look.places, "said": look.said}

    def planned(self, config: rs.Config) -> list[tuple[str, str]]:
        """Who --dry-run places where."""
        _, lines = dry_run(config)
        found = [re.search(r"^(.+?) +\d+ CPU.*\(node (\w+)\)", line) for line in lines]
        return [(match[1], self._named(match[2])) for match in found if match]

    def _named(self, start: str) -> str:
        return next(name for node, name in self.nodes.items() if node.startswith(start))

    def groups_left(self) -> int:
        table = ray.util.placement_group_table()
        return sum(group["state"] != "REMOVED" for group in table.values())

    def close(self) -> None:
        ray.shutdown()
        self.cluster.shutdown()


@contextmanager
def gpus_taken(count: int) -> Iterator[None]:
    """Somebody else's actors have the GPUs."""
    others = [ray.remote(Other).options(num_cpus=0, num_gpus=1).remote() for _ in range(count)]
    ray.get([other.__ray_ready__.remote() for other in others])
    try:
        yield
    finally:
        for other in others:
            ray.kill(other)


class Other:
    """Somebody else's actor."""


def labelled(path: Path) -> dict[str, Any]:
    cloud = Cloud(path, labelled=True)

    def config(name: str, **how: Any) -> rs.Config:
        return settings(path, name, **how)

    def add_gpu() -> None:
        time.sleep(2)
        cloud.add("gpu 2", "server", num_cpus=1, num_gpus=1)

    found = {
        "dry": cloud.planned(config("dry")),
        "left_by_dry": cloud.groups_left(),
        "six": cloud.run(config("six")),
        "bound": cloud.planned(config("bound", clients=5, clients_per_node=2)),
        "too_bound": cloud.run(config("too_bound", clients=4, clients_per_node=1)),
        "too_many": cloud.run(config("too_many", clients=13)),
        "too_many_waited": cloud.run(config("too_many_waited", clients=13, autoscaled=True, wait_seconds=2)),
    }
    for node in ("server", "edge"):
        found[f"gateway_{node}"] = cloud.run(with_gateway(path, node, node))
    found["gateway_dry"] = cloud.planned(with_gateway(path, "dry", "server"))
    with gpus_taken(2):
        found["no_gpu"] = cloud.run(config("no_gpu", wait_seconds=2))
        found["dry_no_gpu"] = dry_run(config("dry"))
        found["gpu_later"] = cloud.run(config("gpu_later", clients=1), add_gpu)
    found["left"] = cloud.groups_left()
    cloud.close()
    return found


def unlabelled(path: Path) -> dict[str, Any]:
    cloud = Cloud(path, labelled=False)
    found = {"plain": cloud.planned(settings(path, "plain")), "plain_said": dry_run(settings(path, "plain"))[1][-2:]}
    cloud.close()
    return found


def main(path: Path) -> None:
    found = {**labelled(path), **unlabelled(path)}
    print(json.dumps(found))  # last: Ray prints here too


if __name__ == "__main__":
    main(Path(sys.argv[1]))
