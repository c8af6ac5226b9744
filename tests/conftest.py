"""One Ray head for the whole session, with token authentication and a logical GPU."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis
import pytest
import torch

from jobs.ray_head import head
from tests.tiers import leave_few

torch.set_num_threads(1)
hypothesis.settings.register_profile("unhurried", deadline=None)  # a machine may be slow
hypothesis.settings.load_profile("unhurried")
os.environ["RAY_AUTH_MODE"] = "token"
ROOT = Path(__file__).parent.parent
HANG_SECONDS = 1800
"""A command that takes this long hangs: a slow machine alone makes no test fail."""


def hear_hangup() -> None:
    """Whoever runs the tests may be deaf to it, under nohup, and their children would be."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


class RayHead(NamedTuple):
    address: str  # for drivers
    dashboard: str  # for jobs


@pytest.fixture(scope="session")
def ray_head() -> Iterator[RayHead]:
    os.chdir(ROOT)  # actors import tests.nets from there
    with head(num_cpus=8, num_gpus=1) as addresses:
        yield RayHead(*addresses)


@pytest.fixture(scope="session")
def ray_session(ray_head: RayHead) -> Iterator[RayHead]:
    import ray

    ray.init(address=ray_head.address, log_to_driver=False)
    yield ray_head
    ray.shutdown()


@pytest.fixture(scope="session")
def own_ray() -> None:
    """For tests that start a Ray of their own, or a process that looks for one: they wait for each other."""


NEEDS_RAY = {"ray_head", "ray_session", "own_ray"}


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist, which reads the groups
@pytest.hookimpl(tryfirst=True)  # before -m says what runs
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever needs Ray runs in one of pytest-xdist's processes, one after the other, beside everything else."""
    leave_few(items)
    for item in items:
        if NEEDS_RAY & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.xdist_group("ray"))


def alive_actors() -> list[Any]:
    """The actors that live in the Ray that this process is connected to; there may be others on the machine."""
    import ray
    from ray.util.state import list_actors

    address = ray.get_runtime_context().gcs_address
    return list(list_actors(address=address, filters=[("state", "=", "ALIVE")], detail=True))
