"""Seconds until the driver knows that a node died, on a cluster in one machine: prints JSON. A process of its own."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import ray
from ray.cluster_utils import Cluster
from ray.exceptions import RayActorError


class Busy:
    """An actor that is at work when its node dies."""

    def process(self) -> int:
        """Its process."""
        return os.getpid()

    def work(self) -> None:
        """Far longer than anyone waits."""
        time.sleep(3600)


def raylet(node: Any) -> int:
    """The process that is Ray on a node."""
    return int(node.all_processes["raylet"][0].process.pid)


def removed(cluster: Cluster, node: Any, worker: int) -> None:
    """All processes of the node end at once."""
    for process in (worker, raylet(node)):
        os.kill(process, signal.SIGKILL)
    cluster.remove_node(node, allow_graceful=False)


def without_ray(cluster: Cluster, node: Any, worker: int) -> None:
    """Ray's own process on the node is killed; workers end when they see that."""
    os.kill(raylet(node), signal.SIGKILL)


def silent(cluster: Cluster, node: Any, worker: int) -> None:
    """Nothing on the node answers any more, and no connection is closed: as when its network is cut."""
    for process in (raylet(node), worker):
        os.kill(process, signal.SIGSTOP)


def seconds(cluster: Cluster, end: Callable[[Cluster, Any, int], None]) -> float:
    """From the node's end to the error in the driver, which waits for a call."""
    node = cluster.add_node(num_cpus=1, num_gpus=1)
    actor = ray.remote(Busy).options(num_cpus=1, num_gpus=1).remote()
    processes = ray.get(actor.process.remote()), raylet(node)
    working = actor.work.remote()
    time.sleep(1)
    start = time.monotonic()
    end(cluster, node, processes[0])
    try:
        ray.get(working)
    except RayActorError:
        return time.monotonic() - start
    finally:
        for process in processes:
            _end(process)
    raise RuntimeError("the call came to an end")


def _end(process: int) -> None:
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        return


def main(repeats: int) -> None:
    """Measure each way to die; the silent one once."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    ray.init(address=cluster.address, log_to_driver=False)
    found = {
        "removed": median(seconds(cluster, removed) for _ in range(repeats)),
        "raylet_killed": median(seconds(cluster, without_ray) for _ in range(repeats)),
        "silent": seconds(cluster, silent),
    }
    ray.shutdown()
    cluster.shutdown()
    print(json.dumps({name: round(value, 2) for name, value in found.items()}))  # last: Ray prints here too


if __name__ == "__main__":
    main(int(sys.argv[1]))
