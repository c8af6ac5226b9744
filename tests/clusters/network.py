"""Machines with addresses of their own on this one: network namespaces whose cables meet in a switch. Needs root.

Nothing is made outside of these namespaces, and nothing of them is left, processes included: what a process that was
killed left behind is cleared away by the next.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

OURS = "raysplit"  # begins each namespace's name, and the process that made it comes next
INTERFACE = "eth0"  # in each machine
END_SECONDS = 60  # of a machine that is busy; killed processes need some time of it to end


class Traffic(NamedTuple):
    """Bytes that went through a machine's interface since it was made, with the headers of Ethernet, IP and TCP."""

    received: int
    sent: int

    def since(self, before: Traffic) -> Traffic:
        """What came after."""
        return Traffic(self.received - before.received, self.sent - before.sent)


@dataclass(frozen=True)
class Machine:
    """A namespace with one interface, whose cable goes to a port of the switch."""

    name: str
    namespace: str
    address: str
    switch: str
    port: str

    def command(self, *arguments: str) -> list[str]:
        """The command, as it is run on this machine."""
        return ["ip", "netns", "exec", self.namespace, *arguments]

    def traffic(self) -> Traffic:
        """What went through its interface."""
        shown = _ip("-n", self.namespace, "-j", "-s", "link", "show", INTERFACE)
        counted = json.loads(shown)[0]["stats64"]
        return Traffic(counted["rx"]["bytes"], counted["tx"]["bytes"])

    def cut(self) -> None:
        """Pull the cable: what is sent is lost, and no connection is closed."""
        _ip("-n", self.switch, "link", "set", self.port, "down")

    def plug_in(self) -> None:
        """Put the cable back."""
        _ip("-n", self.switch, "link", "set", self.port, "up")

    def limit(self, rate: str, burst: str = "256kb", latency: str = "200ms") -> None:
        """A link of this rate (`10mbit`), in each direction: a token bucket of tc's."""
        bucket = ["root", "tbf", "rate", rate, "burst", burst, "latency", latency]
        for namespace, device in ((self.namespace, INTERFACE), (self.switch, self.port)):
            _run("tc", "-n", namespace, "qdisc", "replace", "dev", device, *bucket)


def why_not() -> str | None:
    """Why there can be no network here; None if there can."""
    if os.geteuid():
        return "network namespaces take root"
    if missing := [name for name in ("ip", "ss", "tc") if not shutil.which(name)]:
        return f"not installed (iproute2): {', '.join(missing)}"
    try:
        with network(["probe"]):
            return None
    except subprocess.CalledProcessError as error:
        return f"not permitted here: {' '.join(error.cmd)}: {error.stderr.strip()}"


@contextmanager
def network(names: Sequence[str]) -> Iterator[dict[str, Machine]]:
    """Machines by name, each of which reaches the others. At the end what runs on them is killed, and they are gone."""
    _clear_away()
    run = f"{OURS}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    with ExitStack() as stack:
        switch = stack.enter_context(_namespace(f"{run}-switch"))
        _ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", switch, "link", "set", "bridge", "up")
        machines = {}
        for number, name in enumerate(names, 1):
            namespace = stack.enter_context(_namespace(f"{run}-{name.replace(' ', '-')}"))
            machines[name] = Machine(name, namespace, f"10.77.0.{number}", switch, f"port{number}")
            _connect(machines[name])
        yield machines


def _clear_away() -> None:
    """Remove the namespaces of processes that are no more."""
    for name in _ip("netns", "list").split():
        ours, _, rest = name.partition("-")
        if ours == OURS and not Path("/proc", rest.partition("-")[0]).exists():
            _remove(name)


def _remove(namespace: str) -> None:
    _end_processes(namespace)
    _ip("netns", "delete", namespace)


def _connect(machine: Machine) -> None:
    here, there = machine.namespace, machine.switch
    _ip("-n", there, "link", "add", machine.port, "type", "veth", "peer", "name", INTERFACE, "netns", here)
    _ip("-n", there, "link", "set", machine.port, "master", "bridge", "up")
    _ip("-n", here, "address", "add", f"{machine.address}/24", "dev", INTERFACE)
    for device in ("lo", INTERFACE):
        _ip("-n", here, "link", "set", device, "up")


@contextmanager
def _namespace(name: str) -> Iterator[str]:
    _ip("netns", "add", name)
    try:
        yield name
    finally:
        _remove(name)


def _end_processes(namespace: str) -> None:
    """Kill what runs in the namespace: all of it was started there, by us."""
    deadline = time.monotonic() + END_SECONDS
    while (running := _ip("netns", "pids", namespace).split()) and time.monotonic() < deadline:
        for process in running:
            try:
                os.kill(int(process), signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.1)


def _ip(*arguments: str) -> str:
    return _run("ip", *arguments)


def _run(*command: str) -> str:
    done: subprocess.CompletedProcess[str] = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout


def written(machines: dict[str, Machine]) -> dict[str, Any]:
    """The machines as JSON, for a process on one of them."""
    return {name: vars(machine) for name, machine in machines.items()}


def read(text: str) -> dict[str, Machine]:
    """The machines that were `written`."""
    return {name: Machine(**fields) for name, fields in json.loads(text).items()}
