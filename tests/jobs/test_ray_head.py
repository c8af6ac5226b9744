"""The Ray that is started here is for this machine and this user alone, and ends with its maker."""

from __future__ import annotations

import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import pytest

from jobs.ray_head import environment
from tests.conftest import ROOT

pytestmark = pytest.mark.usefixtures("own_ray")


def listening(port: int) -> set[str]:
    """The addresses at which somebody listens on a port, of this machine's sockets for IPv4 and IPv6."""
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        address, state = line.split()[1], line.split()[3]
        host, _, number = address.partition(":")
        if state == "0A" and int(number, 16) == port:
            found.add(socket.inet_ntoa(struct.pack("<I", int(host, 16))))
    for line in Path("/proc/net/tcp6").read_text().splitlines()[1:]:
        address, state = line.split()[1], line.split()[3]
        if state == "0A" and int(address.partition(":")[2], 16) == port:
            words = struct.unpack(">4I", bytes.fromhex(address.partition(":")[0]))
            found.add(socket.inet_ntop(socket.AF_INET6, struct.pack("<4I", *words)))
    return found


def port(address: str) -> int:
    return int(address.rpartition(":")[2])


def test_its_dashboard_listens_on_this_machine_alone(ray_head: Any) -> None:
    assert listening(port(ray_head.dashboard)) == {"127.0.0.1"}


def test_without_the_token_it_answers_nobody(ray_head: Any) -> None:
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{ray_head.dashboard}/api/jobs/", timeout=10)


def test_a_token_that_is_made_is_its_owners_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from jobs import ray_head as started

    def refuse(*_: object, **__: object) -> Any:
        raise OSError("no head is wanted here")

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setattr(started, "free_ports", refuse)
    with pytest.raises(OSError, match="no head"), started.head():
        pass
    assert (tmp_path / ".ray" / "auth_token").stat().st_mode & 0o777 == 0o600


MAKER = """
import time
from jobs.ray_head import head
with head(num_cpus=2) as addresses:
    print(*addresses, flush=True)
    time.sleep(1000)
"""


def ended(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


@pytest.mark.thorough
def test_it_ends_with_its_maker_that_is_killed_and_its_files_are_one_users(tmp_path: Path) -> None:
    env = environment(TMPDIR="/tmp", http_proxy="http://127.0.0.1:9", HTTP_PROXY="http://127.0.0.1:9")
    maker = subprocess.Popen([sys.executable, "-c", MAKER], cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True)
    assert maker.stdout is not None and maker.stdout.readline().startswith("127.0.0.1:")
    left = psutil.Process(maker.pid).children(recursive=True)
    option = next(part for process in left for part in process.cmdline() if part.startswith("--temp-dir="))
    folder = Path(option.partition("=")[2])
    assert folder.stat().st_mode & 0o777 == 0o777  # Ray's own doing
    assert folder.parent.stat().st_mode & 0o777 == 0o700
    maker.send_signal(signal.SIGKILL)
    maker.wait()
    assert len(left) > 5
    deadline = time.monotonic() + 300
    while not all(map(ended, left)) or folder.parent.exists():
        assert time.monotonic() < deadline, [p for p in left if not ended(p)]
        time.sleep(0.1)
