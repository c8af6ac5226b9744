"""Where other machines of the network find this one."""

from __future__ import annotations

import socket


def own_address() -> str:
    """The address of this machine in its network, by which others reach it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:  # to connect such a socket sends nothing
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return socket.gethostname()
        address: str = probe.getsockname()[0]
        return address
