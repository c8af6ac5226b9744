"""Who writes to a folder, a process of some machine, and whether it lives: told by a file that it leaves there."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import uuid
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

HELD: set[str] = set()
"""The tokens of what this process holds now: what else bears its number was left by a thread that ended."""


@dataclass(frozen=True)
class Owner:
    """A process that writes to a folder. No two have the same token."""

    host: str
    machine: str  # where its number means something: since which boot, in which namespace
    pid: int
    started: str  # tells it from a later process of the same number
    since: str  # when it took the folder
    token: str
    holds: bool = True  # not: it only stands for it
    beats: int = 0  # how often it was renewed, where no time of a file tells that

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}" if self.pid else "a process that is not named"

    @property
    def content(self) -> bytes:
        """As it lies in the file."""
        return json.dumps(asdict(self)).encode()

    def lives(self) -> bool | None:
        """Whether the process lives; None if that can't be told from this machine."""
        if self.machine != _machine():
            return None
        if self.pid == os.getpid():
            return self.token in HELD
        return self.started == _started(self.pid)


def this_process(holds: bool = True) -> Owner:
    """This process, as the owner of one more folder."""
    since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    pid = os.getpid()
    return Owner(socket.gethostname(), _machine(), pid, _started(pid) or "", since, uuid.uuid4().hex, holds)


def read(content: bytes) -> Owner:
    """The owner that a file tells of; of a file that can't be understood one that is not named."""
    try:
        found = Owner(**json.loads(content))
        return replace(found, pid=int(found.pid), holds=bool(found.holds))
    except (ValueError, TypeError):
        return Owner("", "", 0, "", "", sha256(content).hexdigest()[:32])


@lru_cache
def _machine() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id")
    if boot.exists():
        return f"{boot.read_text().strip()} {Path('/proc/self/ns/pid').readlink()}"
    return f"{socket.gethostname()} {uuid.getnode():x}"


def _started(pid: int) -> str | None:
    """When a process of this machine was started, as its system counts it; None if it has ended."""
    if not Path("/proc/self/stat").exists():
        done = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
        return done.stdout.strip() or None
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else fields[19]  # one that nobody has waited for yet has ended too
