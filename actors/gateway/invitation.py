"""How devices find the gateway: tokens, addresses, and what is said of both when a run begins."""

from __future__ import annotations

from ray_split import config
from ray_split.devices.tokens import operator_of, path_of, tokens_of

OVER = "the run is over"
LOCAL = ("127.0.0.1", "localhost", "::1")
ANY = ("0.0.0.0", "::")


def gateway_arguments(settings: config.Config) -> tuple[dict[str, int], str]:
    """Whose phone each token is of, and the operator's. Raises SettingsError."""
    path, phones = path_of(settings.gateway.tokens), settings.phones.remote_phones
    return dict(zip(tokens_of(path, len(phones)), phones, strict=True)), operator_of(path)


def invitation(settings: config.Config, port: int, machine: str) -> list[str]:
    """Where devices connect, in lines for people. `machine`: how others reach the gateway's."""
    gateway, count = settings.gateway, len(settings.phones.remote_phones)
    file = "" if gateway.tokens is None else f" --tokens {gateway.tokens}"
    address = url_of(gateway, port, machine)
    told = [
        f"gateway at {address} for {count} device{'s' * (count > 1)}; their invitations: "
        f"ray-split devices invite --count {count} --url {address}{file}"
    ]
    if gateway.certificate is None and gateway.host not in LOCAL:
        told.append("gateway without TLS: whoever is on its network can read what crosses (gateway.certificate)")
    elif gateway.certificate is None:
        told.append("gateway for its own machine alone; for devices elsewhere set gateway.host and gateway.certificate")
    return told


def url_of(gateway: config.Gateway, port: int, machine: str) -> str:
    """The page's address."""
    host = machine if gateway.host in ANY else gateway.host
    return f"http{'s' * (gateway.certificate is not None)}://{f'[{host}]' if ':' in host else host}:{port}/"
