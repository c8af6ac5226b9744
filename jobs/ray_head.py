"""A Ray head on this machine, for as long as it is needed: reachable from here only, and with a token."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError

from actors.ray_backend.joining.auth import has_token, make_token
from actors.ray_backend.joining.head_keeper import Keeper

START_SECONDS = 90
STOP_SECONDS = 30


def ray_command(python: str, *arguments: str) -> list[str]:
    """The command `ray` of a Python's environment."""
    return [python, "-m", "ray.scripts.scripts", *arguments]


def environment(python: str = sys.executable, **extra: str) -> dict[str, str]:
    """This process's environment with a Python's folder first on PATH: a job's `python` is what PATH says.

    And what is on this machine is not asked for through a proxy.
    """
    path = os.pathsep.join([str(Path(python).parent), os.environ.get("PATH", "")])
    mode = {"RAY_AUTH_MODE": "token"} if has_token() else {}
    return {**mode, **os.environ, **_direct(), "PATH": path, **extra}


def _direct() -> dict[str, str]:
    """Hosts without a proxy, those of this machine among them. Some programs read the one spelling, some the other."""
    before = [host for name in ("no_proxy", "NO_PROXY") if (host := os.environ.get(name))]
    hosts = ",".join(dict.fromkeys([*before, "127.0.0.1", "localhost", "::1"]))
    return {"no_proxy": hosts, "NO_PROXY": hosts}


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


@contextmanager
def head(
    num_cpus: int | None = None, num_gpus: int | None = None, python: str = sys.executable
) -> Iterator[tuple[str, str]]:
    """A Ray head on this machine, stopped at the end: its address for drivers, and for jobs.

    Raises RuntimeError if it does not start; its log is shown.
    """
    make_token()  # `ray start` asks for one and makes none
    gcs, dashboard, client, agent = free_ports(4)
    # Two CPUs at least: a client and the server each take one.
    cpus = num_cpus or max(2, os.cpu_count() or 1)
    keeper = Keeper()
    try:
        options = {
            "--port": gcs, "--dashboard-port": dashboard, "--ray-client-server-port": client,
            "--dashboard-agent-listen-port": agent, "--dashboard-host": "127.0.0.1",
            "--node-ip-address": "127.0.0.1", "--num-cpus": cpus, "--temp-dir": keeper.folder,
        }  # fmt: skip
        if num_gpus is not None:
            options["--num-gpus"] = num_gpus
        command = ray_command(python, "start", "--head", "--block", "--disable-usage-stats")
        command += [f"{name}={value}" for name, value in options.items()]
        with keeper.log.open("w") as out:
            # Time for a stopped job to end in order; Ray's own default is three seconds.
            env = environment(python, RAY_JOB_STOP_WAIT_TIME_S="20")
            env.pop("RAY_ADDRESS", None)
            process = subprocess.Popen(command, env=env, stdout=out, stderr=out, start_new_session=True)
        try:
            _wait_for(f"http://127.0.0.1:{dashboard}", process, keeper.log)
            yield f"127.0.0.1:{gcs}", f"http://127.0.0.1:{dashboard}"
        finally:
            _stop(process)
    finally:
        keeper.end()


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy knows nothing of this machine's
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            direct.open(f"{url}/api/version", timeout=5).close()
            return
        except urllib.error.HTTPError:
            return  # it answers; without a token it refuses
        except (URLError, OSError):
            time.sleep(0.25)
    raise RuntimeError(f"Ray did not start within {START_SECONDS} s:\n{log.read_text()}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the head and what it started: `ray stop` would end every Ray on the machine."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
