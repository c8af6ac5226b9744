"""A run on an autoscaled Ray with cluster.yaml's kinds of nodes, all on this machine: prints what came of it as JSON.

Ray's fake provider stands in for the cloud: where that would start a machine, it starts a raylet.
A process of its own, since a process is in one Ray only: `python -m tests.deploy.autoscaled FOLDER`.
"""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import ray
import yaml
from ray._private import state
from ray.autoscaler._private.fake_multi_node.node_provider import (
    FAKE_HEAD_NODE_ID,
    FAKE_HEAD_NODE_TYPE,
    FakeMultiNodeProvider,
)

import ray_split as rs
from jobs.ray_head import environment, free_ports, ray_command
from tests.conftest import ROOT

START_SECONDS = 60
IDLE_SECONDS = 3
GONE_SECONDS = 90
MEMORY = {"object_store_memory": 10**8}
UNUSED = ("initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands")
UNUSED += ("head_start_ray_commands", "worker_start_ray_commands", "cluster_synced_files")


def fake(gcs: str) -> dict[str, Any]:
    """cluster.yaml with the fake provider in place of the cloud, and a short idle time-out."""
    found = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    types = {
        name: {**node_type, "node_config": {}, "resources": {**node_type["resources"], **MEMORY}}
        for name, node_type in found["available_node_types"].items()
    }
    for node_type in types.values():
        node_type.pop("worker_setup_commands", None)
    head = types.pop(found["head_node_type"])
    provider = {
        "type": "external",
        "module": f"{FakeMultiNodeProvider.__module__}.{FakeMultiNodeProvider.__name__}",
        "head_node_id": FAKE_HEAD_NODE_ID,
        "gcs_address": gcs,
        "launch_multiple": True,
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
    }
    return {
        "cluster_name": found["cluster_name"],
        "max_workers": found["max_workers"],
        "idle_timeout_minutes": IDLE_SECONDS / 60,
        "upscaling_speed": 1.0,
        "provider": provider,
        "auth": {},
        "docker": {},
        "file_mounts": {},
        **{name: [] for name in UNUSED},
        "head_node_type": FAKE_HEAD_NODE_TYPE,
        "available_node_types": {FAKE_HEAD_NODE_TYPE: {**head, "max_workers": 0}, **types},
    }


@contextmanager
def cluster() -> Iterator[str]:
    """A head with cluster.yaml's resources and labels, and an autoscaler; stopped at the end."""
    gcs, client, agent = free_ports(3)
    address = f"127.0.0.1:{gcs}"
    settings = fake(address)
    head = settings["available_node_types"][FAKE_HEAD_NODE_TYPE]
    with tempfile.TemporaryDirectory(prefix="rs", ignore_cleanup_errors=True) as folder:
        file = Path(folder) / "cluster.json"
        file.write_text(json.dumps(settings))
        options = {
            "--port": gcs, "--ray-client-server-port": client, "--dashboard-agent-listen-port": agent,
            "--node-ip-address": "127.0.0.1", "--include-dashboard": "false", "--temp-dir": folder,
            "--autoscaling-config": file, "--num-cpus": head["resources"]["CPU"],
            "--labels": ",".join(f"{key}={value}" for key, value in head["labels"].items()),
            "--object-store-memory": MEMORY["object_store_memory"],
        }  # fmt: skip
        command = ray_command(sys.executable, "start", "--head", "--block", "--disable-usage-stats")
        command += [f"{name}={value}" for name, value in options.items()]
        env = environment(
            RAY_FAKE_CLUSTER="1",
            RAY_enable_autoscaler_v2="1",
            RAY_CLOUD_INSTANCE_ID=FAKE_HEAD_NODE_ID,
            RAY_OVERRIDE_NODE_ID_FOR_TESTING=FAKE_HEAD_NODE_ID,
            AUTOSCALER_UPDATE_INTERVAL_S="1",
        )
        env.pop("RAY_ADDRESS", None)
        process = subprocess.Popen(command, env=env, stdout=sys.stderr, stderr=sys.stderr, start_new_session=True)
        try:
            _connect(address)
            yield address
        finally:
            ray.shutdown()
            _stop(process, folder)


def _connect(address: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
            return
        except (ConnectionError, RuntimeError, ValueError):
            if time.monotonic() > deadline:
                raise
            time.sleep(1)


def _stop(process: subprocess.Popen[bytes], folder: str) -> None:
    """End the head, and the raylets of the nodes that it started: they would look for it for a minute."""
    for log in Path(folder).glob("session_latest/logs/monitor.log"):
        print(log.read_text()[-3000:], file=sys.stderr)
    ours = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    _, alive = psutil.wait_procs([*ours, psutil.Process(process.pid)], timeout=10)
    for each in alive:
        each.kill()
    process.wait()


class Look(rs.Callback):
    """Looks where the actors are once the run goes on."""

    def __init__(self) -> None:
        self.roles: dict[str, list[str]] = {}

    def on_run_start(self, settings: rs.Config, where: list[str], first_round: int) -> None:
        labels = {node["NodeID"]: node["Labels"] for node in ray.nodes()}
        for actor in state.actors().values():
            role = labels[actor["Address"]["NodeID"]]["ray-split/role"]
            self.roles.setdefault(actor["ActorClassName"], []).append(role)


def kinds() -> list[str]:
    """The kinds of the nodes that live, by their labels."""
    return sorted(node["Labels"]["ray-split/role"] for node in ray.nodes() if node["Alive"])


def main(path: Path) -> None:
    with cluster():
        before, look = kinds(), Look()
        settings = rs.Config(
            model={"name": "mlp"},
            schedule={"name": "splitfed_v1"},
            phones={"count": 4, "local_steps": 2, "cohort": 1},
            server={"num_gpus": 1},
            cluster={"autoscaled": True, "client_actors": 2, "wait_seconds": 120},
            run={"storage_path": str(path), "name": "run", "rounds": 1},
        )
        result = rs.fit(settings, callbacks=[look])
        during, deadline = kinds(), time.monotonic() + GONE_SECONDS
        while kinds() != before and time.monotonic() < deadline:
            time.sleep(1)
        found = {"before": before, "during": during, "after": kinds(), "roles": look.roles}
    print(json.dumps({**found, "error": result.error}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
