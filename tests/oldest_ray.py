"""On the Ray that this Python has, with a token: a placement group by label, a run whose server is killed.

`python -m tests.oldest_ray FOLDER` prints what came of it as JSON. Run by the Python of an environment of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import ray_split as rs
from jobs.ray_head import free_ports


class KillServer(rs.Callback):
    """Kills the server's process after the first round."""

    def __init__(self) -> None:
        self.lost: list[str] = []

    def on_round_end(self, row: dict[str, Any]) -> None:
        from ray._private import state

        servers = [actor for actor in state.actors().values() if actor["ActorClassName"] == "Server"]
        if row["round"] == 0:
            os.kill(int(servers[0]["Pid"]), signal.SIGKILL)

    def on_recovery(self, round: int, lost: list[str]) -> None:
        self.lost += lost


def config(path: Path, name: str, backend: str) -> rs.Config:
    return rs.Config.from_yaml(Path(__file__).parent.parent / "jobs" / "configs" / "digits.yaml").with_values(
        phones={"count": 4, "local_steps": 4, "local_epochs": None},
        server={"num_gpus": 0},
        cluster={"backend": backend, "client_actors": 1},
        run={"storage_path": str(path), "name": name, "rounds": 2},
    )


def model(result: rs.Result) -> str:
    return hashlib.sha256((Path(result.path) / "model.safetensors").read_bytes()).hexdigest()


def main(path: Path) -> None:
    from ray._private.authentication.authentication_utils import is_token_auth_enabled
    from ray.cluster_utils import Cluster

    from actors.ray_backend.backend import ray  # once it has settled that there is a token

    whole = model(rs.fit(config(path, "whole", "inprocess"), callbacks=[]))
    killer = KillServer()
    head = {"num_cpus": 4, "include_dashboard": False, "gcs_server_port": free_ports(1)[0]}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    ray.init(address=cluster.address, log_to_driver=False)
    mine = {"ray.io/node-id": ray.get_runtime_context().get_node_id()}
    group = ray.util.placement_group([{"CPU": 1}], bundle_label_selector=[mine])
    placed, tokens = group.wait(60), is_token_auth_enabled()
    ray.util.remove_placement_group(group)
    on_ray = model(rs.fit(config(path, "killed", "ray"), callbacks=[killer]))
    ray.shutdown()
    cluster.shutdown()
    found = {"ray": ray.__version__, "placed": placed, "tokens": tokens, "lost": killer.lost, "same": on_ray == whole}
    print(json.dumps(found))  # last: Ray prints here too


if __name__ == "__main__":
    main(Path(sys.argv[1]))
