"""Connecting this process to Ray. The first of the files that import ray: what must be set before that is set here."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.resources.placement import cpus_here
from actors.ray_backend.joining.auth import make_token, use_token

use_token()  # before ray is imported
# Refs of a round that failed are dropped unread. Ray would print what each of them holds, a page long.
os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")

import ray
from ray._private.utils import get_ray_address_file

from actors.ray_backend import software_versions
from actors.ray_backend.joining import reachable
from actors.ray_backend.joining.head_keeper import Keeper
from actors.ray_backend.joining.own_sessions import own_sessions
from ray_split import logs
from ray_split.errors import RunFailedError, SettingsError, shown

OPTIONS: dict[str, Any] = {"log_to_driver": True, "logging_level": logging.ERROR}

SLOW = "timed out during startup"  # what Ray says after half a minute, in its Exception

logger = logs.get(__name__)


@dataclass(frozen=True)
class Connection:
    """This process's connection to Ray."""

    told: str  # which Ray it is, for people
    address: str | None = None  # where its head listens, if that is known
    ours: bool = True  # whether it was made here
    keeper: Keeper | None = None  # of a Ray that was started for it

    def is_lost(self) -> bool:
        """Whether nobody is there any more who could answer. Ray would wait for a minute, and then end this process."""
        return self.address is not None and not reachable.listens(self.address)

    def close(self) -> None:
        """Disconnect, if this process was not connected before, and end the Ray that was started for it."""
        if self.ours:
            ray.shutdown()
        if self.keeper:
            self.keeper.end()


def connect(address: str | None) -> Connection:
    """Use the Ray that this process is in, the one at the address, or the one that `ray start` began; else start one.

    A Ray that another run started for itself is never joined: it ends with that run. Raises SettingsError for an
    address where there is none, RunFailedError if none can be started.
    """
    if ray.is_initialized():
        return Connection(f"on Ray at {_address()}", _head(), ours=False)
    named, running = address or os.environ.get("RAY_ADDRESS"), None
    if named and named not in ("auto", "local"):
        _join(named)
        return Connection(f"on Ray at {_address()}", named)
    if named != "local" and (running := began()):
        try:
            _init(running)
            return Connection(f"on Ray at {_address()}, which `ray start` began here", running)
        except ConnectionError:
            logger.warning("the Ray at %s, which `ray start` began here, lets nobody in: is this its token?", running)
    if named == "auto":
        allowed = "Start one with 'ray start --head', or set the address of a Ray elsewhere"
        raise SettingsError(
            "cluster.address", named, allowed, "there is no Ray on this machine that 'ray start' started"
        )
    return _start()


def _start() -> Connection:
    """A Ray of this process alone, which ends with it. Raises RunFailedError."""
    make_token()
    for more in (True, True, True, True, False):
        keeper = Keeper()
        try:
            _begin(keeper)
        except BaseException as error:
            keeper.end()
            if not isinstance(error, Exception):
                raise
            if not more or SLOW not in str(error):  # whatever kind: Ray tells a plain Exception of that
                raise RunFailedError(f"no Ray could be started on this machine: {first_line(error)}") from error
            logger.warning("this machine is busy, Ray did not start in time: it is started again")
        else:
            break
    told = f"on a Ray started for this run, which ends with it, at {_address()}"
    return Connection(told, _head(), keeper=keeper)


def _begin(keeper: Keeper) -> None:
    # Who closes a terminal, or stops a whole process group, ends the run, and the run ends Ray's processes.
    with own_sessions():
        ray.init("local", num_cpus=cpus_here(), include_dashboard=False, _temp_dir=str(keeper.folder), **OPTIONS)


def _address() -> str:
    return str(ray.get_runtime_context().gcs_address)


def _head() -> str | None:
    """Where the head listens; of a Ray Client it is not known, and may not be reachable from here."""
    return None if ray.util.client.ray.is_connected() else _address()


RUNNING = "Set the address of a running Ray, such as host:6379 or ray://host:10001"


def _join(address: str) -> None:
    if complaint := reachable.complaint(address):
        raise SettingsError(
            "cluster.address", address, RUNNING, f"there is no running Ray at {shown(address)}: {complaint}"
        )
    try:
        _init(address)
    except (ConnectionError, ValueError) as error:
        wrong = f"the Ray at {shown(address)} refused the connection: {first_line(error)}"
        do = "Check its token (RAY_AUTH_TOKEN), or set the address of another Ray"
        raise SettingsError("cluster.address", address, do, wrong) from error


def _init(address: str) -> None:
    try:
        ray.init(address=address, **OPTIONS)
    except RuntimeError as error:
        if told := software_versions.mismatch(str(error)):
            wrong = f"the Ray at {shown(address)} has other versions: {told}"
            raise SettingsError(
                "cluster.address", address, "Install the same versions on both machines", wrong
            ) from error
        raise


def began() -> str | None:
    """The address of the Ray that `ray start` last began on this machine, if it is there.

    It writes that into a file; what a `ray.init` started doesn't. A file that another user wrote counts for nothing: it
    would lead to their Ray, with our token.
    """
    file = Path(get_ray_address_file(None))
    try:
        found, owner = file.read_text().strip(), file.stat().st_uid
    except OSError:
        return None
    if owner not in (os.getuid(), 0):
        logger.warning("another user's Ray is not joined unasked: cluster.address %s would", found)
        return None
    return None if not found or reachable.complaint(found) else found


def first_line(error: Exception) -> str:
    """Ray's several lines as one, not too long."""
    return " ".join(str(error).split()[:60])
