"""A run whose client is on a node with another torch and another CPU, as far as anybody can tell: prints it as JSON.

A process of its own, since a process is in one Ray only: `python -m tests.actors.other_node FOLDER`.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

import ray_split as rs
from tests.clusters.node_death import CLIENT_NODE, SERVER_NODE, config


class Warnings(logging.Handler):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def main(path: Path) -> None:
    dist_info = path / "torch-2.1.0.dist-info"  # found before the real one's
    dist_info.mkdir()
    (dist_info / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.1.0\n")
    search = os.pathsep.join([str(path), os.environ.get("PYTHONPATH", "")])
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    cluster.add_node(**SERVER_NODE)
    cluster.add_node(**CLIENT_NODE, env_vars={"PYTHONPATH": search, "ATEN_CPU_CAPABILITY": "default"})
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    heard = Warnings()
    logging.getLogger("actors.ray_backend.backend").addHandler(heard)
    result = rs.fit(config(path, "run").with_values(run={"rounds": 1}, phones={"local_steps": 1}), callbacks=[])
    ray.shutdown()
    cluster.shutdown()
    versions = json.loads((Path(result.path) / "summary.json").read_text())["versions"]
    print(
        json.dumps({"warnings": [line for line in heard.lines if line.startswith("node ")], "versions": versions})
    )  # last: Ray prints here too


if __name__ == "__main__":
    main(Path(sys.argv[1]))
