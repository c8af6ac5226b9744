"""Connecting this process to Ray. The first of the files that import ray: what must be set before that is set here."""

from __future__ import annotations

import logging
import os
from typing import Any

from actors.auth import use_token

use_token()  # before ray is imported
# Refs of a round that failed are dropped unread. Ray would print what each of them holds, a page long.
os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")

import ray
from ray._private import services

from actors import reach, versions
from ray_split.failure import SettingsError


def connect(address: str | None) -> bool:
    """Use the Ray that this process is in, the one at the address, or a running one; else start a local one.

    Says whether this process was not in one before. Raises SettingsError for an address where there is none.
    """
    if ray.is_initialized():
        return False
    options: dict[str, Any] = {"log_to_driver": True, "logging_level": logging.ERROR}
    if named := address or os.environ.get("RAY_ADDRESS"):
        _join(named, options)
        return True
    try:
        _init(_running(), options)
    except ConnectionError:
        # Two at least: a client and the server each take one.
        ray.init(address="local", num_cpus=max(2, os.cpu_count() or 1), include_dashboard=False, **options)
    return True


def _join(address: str, options: dict[str, Any]) -> None:
    if complaint := reach.complaint(address):
        raise SettingsError("cluster.address", address, f"the address of a running Ray: {complaint}")
    try:
        _init(address, options)
    except (ConnectionError, ValueError) as error:
        allowed = f"the address of a running Ray, with its token: {first_line(error)}"
        raise SettingsError("cluster.address", address, allowed) from error


def _init(address: str, options: dict[str, Any]) -> None:
    try:
        ray.init(address=address, **options)
    except RuntimeError as error:
        if told := versions.mismatch(str(error)):
            raise SettingsError("cluster.address", address, f"the address of a Ray like this one: {told}") from error
        raise


def _running() -> str:
    """The Ray that was last started on this machine. Raises ConnectionError if it is gone."""
    found = str(services.get_ray_address_from_environment("auto", None))
    if reach.complaint(found):
        raise ConnectionError(f"the Ray at {found} is gone")
    return found


def first_line(error: Exception) -> str:
    """Ray's several lines as one, not too long."""
    return " ".join(str(error).split()[:60])
