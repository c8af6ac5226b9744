"""Machines in network namespaces: what they send each other is counted, limited and cut off."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.clusters.network import Machine, network, why_not

pytestmark = pytest.mark.usefixtures("own_ray")  # whose nodes have networks, too

BYTES = 2_000_000
SERVE = "import socket; s = socket.create_server(('', 9)); print(flush=True); s.settimeout(300); c, _ = s.accept()"
SERVE += "\nwhile c.recv(65536): pass"
SEND = f"import sys, socket; socket.create_connection((sys.argv[1], 9), int(sys.argv[2])).sendall(bytes({BYTES}))"


@pytest.fixture(scope="module")
def machines() -> Iterator[dict[str, Machine]]:
    if reason := why_not():
        pytest.skip(reason)
    with network(["one", "other"]) as found:
        yield found


def python(machine: Machine, *arguments: str) -> subprocess.Popen[str]:
    command = machine.command(sys.executable, "-c", *arguments)
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def send(machines: dict[str, Machine]) -> float:
    """Seconds that it takes to send BYTES from one to the other."""
    serving = python(machines["other"], SERVE)
    assert serving.stdout
    serving.stdout.readline()
    start = time.monotonic()
    _, said = python(machines["one"], SEND, machines["other"].address, "300").communicate()
    assert not said
    serving.communicate()
    return time.monotonic() - start


def test_bytes_are_counted_where_they_leave_and_where_they_arrive(machines: dict[str, Machine]) -> None:
    before = {name: machine.traffic() for name, machine in machines.items()}
    send(machines)
    moved = {name: machine.traffic().since(before[name]) for name, machine in machines.items()}
    assert moved["one"].sent == pytest.approx(BYTES, rel=0.05)
    assert moved["other"].received == pytest.approx(BYTES, rel=0.05)


def test_without_its_cable_a_machine_is_not_reached(machines: dict[str, Machine]) -> None:
    machines["other"].cut()
    assert python(machines["one"], SEND, machines["other"].address, "1").wait() != 0
    machines["other"].plug_in()
    send(machines)


def test_a_limited_link_takes_as_long_as_its_rate_says(machines: dict[str, Machine]) -> None:
    machines["other"].limit("8mbit", burst="100kb")
    assert send(machines) > 0.9 * (BYTES - 100_000) / 1e6


def test_nothing_is_left_of_a_network() -> None:
    if reason := why_not():
        pytest.skip(reason)
    with network(["one"]) as machines:
        left = python(machines["one"], "import time; print(flush=True); time.sleep(1000)")
        assert left.stdout and left.stdout.readline()  # before that it may not be on the machine yet
        namespaces = {machines["one"].namespace, machines["one"].switch}
    assert left.wait() != 0
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    assert not namespaces & set(listed.split())
    assert not any(name.startswith("port") for _, name in socket.if_nameindex())
