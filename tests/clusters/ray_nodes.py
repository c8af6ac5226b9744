"""Ray nodes on machines of tests/clusters/network.py, started as docs/cluster.md says, and processes on the head."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from jobs.ray_head import environment, ray_command
from tests.clusters.network import Machine, network, written
from tests.programs import printed

PORT = 6379
START_SECONDS = 120
STORE = 300_000_000
OFFERS = {
    "head": ("--num-cpus=0", "--num-gpus=0"),
    "server": ("--num-cpus=1", "--num-gpus=1"),  # a logical GPU
    "client": ("--num-cpus=3", "--num-gpus=0"),
}
HEALTH = {"RAY_health_check_period_ms": "2000", "RAY_health_check_timeout_ms": "4000"}  # docs/reliability.md


class Nodes:
    """Machines with a Ray node each; the driver runs on the head."""

    def __init__(self, machines: dict[str, Machine], env: dict[str, str], folder: Path) -> None:
        self.machines = machines
        self._env = env
        self._folder = folder

    def run(self, name: str, env: dict[str, str] | None = None, do: str = "", **settings: dict[str, Any]) -> Any:
        """What tests/clusters/across_nodes.py prints of a run on these nodes."""
        head = self.machines["head"]
        what = {"folder": str(self._folder), "name": name, "settings": settings, "env": env or {}, "do": do}
        given = [json.dumps(written(self.machines)), f"{head.address}:{PORT}", json.dumps(what)]
        command = head.command(sys.executable, "-m", "tests.clusters.across_nodes", *given)
        found = printed(command, self._env)
        (self._folder / f"{name}.json").write_text(json.dumps(found))  # for people
        return found


@contextmanager
def nodes(folder: Path, names: tuple[str, ...] = ("head", "server", "client")) -> Iterator[Nodes]:
    """A Ray cluster whose nodes are machines with these names, of which the first word is the node's role."""
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid.uuid4().hex * 2}
    whole = {**environment(), **token, **HEALTH}
    whole.pop("RAY_ADDRESS", None)
    with network(names) as machines, ExitStack() as stack:
        for name, machine in machines.items():  # one after the other: Ray gives each 30 s to start
            stack.enter_context(_node(machine, machines["head"], whole, folder / f"{name}.log"))
        yield Nodes(machines, whole, folder)


@contextmanager
def _node(machine: Machine, head: Machine, env: dict[str, str], log: Path) -> Iterator[None]:
    role = machine.name.split()[0]
    place = ["--head", f"--port={PORT}", "--include-dashboard=false"]
    if machine != head:
        place = [f"--address={head.address}:{PORT}"]
    options = [f"--node-ip-address={machine.address}", f"--labels=ray-split/role={role}", *OFFERS[role]]
    # Short: Ray makes sockets in it, whose paths end at 107 characters.
    sockets = tempfile.TemporaryDirectory(prefix="rs", ignore_cleanup_errors=True)
    options += [f"--temp-dir={sockets.name}", f"--object-store-memory={STORE}", "--disable-usage-stats"]
    command = machine.command(*ray_command(sys.executable, "start", "--block", *place, *options))
    with sockets, log.open("w") as out:
        process = subprocess.Popen(command, env=env, stdout=out, stderr=out, start_new_session=True)
        try:
            _wait_for(log, process)
            yield
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()  # what it started ends with its namespace
                process.wait()


def _wait_for(log: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while "Ray runtime started" not in log.read_text():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"Ray did not start within {START_SECONDS} s:\n{log.read_text()}")
        time.sleep(0.2)
