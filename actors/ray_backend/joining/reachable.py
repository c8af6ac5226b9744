"""Whether anything at an address could be Ray. Ray itself tries for minutes before it says that there is nothing."""

from __future__ import annotations

import os
import socket

# What opens a connection of HTTP/2, which gRPC speaks, and an empty frame of settings; the answer is such a frame.
HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
SETTINGS_FRAME = 4


def complaint(address: str, seconds: float = 10.0) -> str | None:
    """Why nothing at host:port could be Ray, or None. An address of another form is left to Ray to judge."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit() or "/" in host:
        return None
    try:
        with socket.create_connection((host.strip("[]"), int(port)), seconds) as connection:
            return (
                None if os.environ.get("RAY_USE_TLS") or _speaks_http2(connection) else "what answers there is not Ray"
            )
    except OSError as error:
        return f"nothing answers there ({error.strerror or error})"


def _speaks_http2(connection: socket.socket) -> bool:
    connection.sendall(HELLO)
    answer = connection.recv(4)
    return len(answer) == 4 and answer[3] == SETTINGS_FRAME
