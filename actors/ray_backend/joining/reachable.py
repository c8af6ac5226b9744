"""Whether anything at an address could be Ray, or is there still. Ray itself tries for a minute or more."""

from __future__ import annotations

import os
import socket

# What opens a connection of HTTP/2, which gRPC speaks, and an empty frame of settings; the answer is such a frame.
HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
SETTINGS_FRAME = 4


def complaint(address: str, seconds: float = 10.0) -> str | None:
    """Why nothing at host:port could be Ray, or None. An address of another form is left to Ray to judge."""
    place = _host_and_port(address)
    if place is None:
        return None
    try:
        with socket.create_connection(place, seconds) as connection:
            return (
                None if os.environ.get("RAY_USE_TLS") or _speaks_http2(connection) else "what answers there is not Ray"
            )
    except OSError as error:
        return f"nothing answers there ({error.strerror or error})"


def listens(address: str, seconds: float = 5.0) -> bool:
    """Whether anybody listens at host:port: one that is only busy does. Of an address of another form it is assumed."""
    place = _host_and_port(address)
    try:
        if place is not None:
            socket.create_connection(place, seconds).close()
    except OSError:
        return False
    return True


def _host_and_port(address: str) -> tuple[str, int] | None:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    return None if not host or not port.isdigit() or "/" in host else (host.strip("[]"), int(port))


def _speaks_http2(connection: socket.socket) -> bool:
    connection.sendall(HELLO)
    answer = connection.recv(4)
    return len(answer) == 4 and answer[3] == SETTINGS_FRAME
