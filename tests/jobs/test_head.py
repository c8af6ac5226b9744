"""The Ray that is started here is for this machine alone."""

from __future__ import annotations

import socket
import struct
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest


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
    from jobs import submit

    def refuse(*_: object, **__: object) -> Any:
        raise OSError("no head is wanted here")

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(submit, "_free_ports", refuse)
    with pytest.raises(OSError, match="no head"), submit.head():
        pass
    assert (tmp_path / ".ray" / "auth_token").stat().st_mode & 0o777 == 0o600
