"""What is said of actors that died, and of addresses where there is no Ray."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from actors.ray_backend import death_words
from actors.ray_backend.joining import reachable
from tests.conftest import HANG_SECONDS

DIED = """The actor died unexpectedly before finishing this task.
\tclass_name: Server
\tactor_id: 2cd4e90651d9a6044fffbaa801000000
\tpid: 10184
\tnamespace: 0dd6187b
\tip: 192.0.2.2
The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Some common causes include: (1)"""
OUT_OF_REACH = (
    "The actor 2f47 is unavailable: The actor is temporarily unavailable: RpcError: RPC error: Socket closed rpc_code: "
    "14. The task may or may not have been executed on the actor."
)
RAISED = (
    'ray::A.__init__() (pid=1)\n  File "/x.py", line 12, in __init__\n    raise ValueError()\nValueError: boom\nagain'
)


def test_a_death_is_told_in_one_line_with_process_and_node() -> None:
    how = "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR"
    assert death_words.death(DIED) == f" (pid 10184, ip 192.0.2.2): {how}"
    assert death_words.death(OUT_OF_REACH) == ": RpcError: RPC error: Socket closed rpc_code: 14."


def test_of_a_traceback_the_exception_is_told() -> None:
    assert death_words.raised(RAISED) == "ValueError: boom again"


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of something that takes connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_where_nothing_could_be_ray_this_is_known_soon(silent: str) -> None:
    assert reachable.complaint(silent, 0.5) == "nothing answers there (timed out)"
    assert (reachable.complaint("127.0.0.1:1") or "").startswith("nothing answers there (Connection refused")
    assert reachable.complaint("nosuch.invalid:6379", 5) is not None


@pytest.mark.thorough
def test_addresses_of_another_form_are_left_to_ray_and_a_ray_is_one(ray_session: tuple[str, str]) -> None:
    for address in (ray_session[0], "auto", "local", "nonsense", "127.0.0.1:port"):
        assert reachable.complaint(address) is None, address
    dashboard = ray_session[1].removeprefix("http://")
    assert reachable.complaint(dashboard) == "what answers there is not Ray"


@pytest.mark.thorough
@pytest.mark.few(1)
def test_a_run_at_a_wrong_address_ends_soon_with_one_line() -> None:
    command = [sys.executable, "-m", "jobs.train", "--run.name", "wrong", "--run.storage_path", "/nowhere"]
    env = os.environ | {"RAY_ADDRESS": "127.0.0.1:1"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=HANG_SECONDS)
    assert done.returncode == 2
    line = "error: cluster.address: there is no running Ray at '127.0.0.1:1': nothing answers"
    assert done.stderr.startswith(line) and done.stderr.count("\n") == 1
