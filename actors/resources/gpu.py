"""A process that computes on a GPU: what it says to torch before it does."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from ray_split import config
from ray_split.errors import ClientMemoryError, DeviceMemoryError, first_line

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


def device_of(gpus: float | str, is_there: bool) -> str:
    """What a role computes on that has so much of a GPU, `auto` before it is settled; torch sees one, or none."""
    return "cuda" if gpus not in ("auto", 0) and is_there else "cpu"


def common_card(settings: config.Config) -> torch.device | None:
    """The card that A, B and C are on, if they are in one process: what crosses stays there. None if there is none.

    Devices outside the process are sent arrays.
    """
    if settings.cluster.backend != "inprocess" or settings.phones.remote_phones:
        return None
    there = torch.cuda.is_available()
    devices = {device_of(gpus, there) for gpus in (settings.server.num_gpus, settings.cluster.client_gpus)}
    return torch.device("cuda") if devices == {"cuda"} else None


def set_up_gpu(server: config.Server, share: float) -> None:
    """Let the same settings give the same bits on the same card, and TF32 be what is asked for, on or off.

    `share`: of the card's memory that this process may take.

    Before this process starts CUDA: cuBLAS reads its workspace's size then. An operation that has no deterministic
    implementation is run all the same, and torch warns of it.
    """
    os.environ.setdefault(WORKSPACE, ":4096:8")
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # takes time, and nobody reads it
    if share < 1:
        torch.cuda.set_per_process_memory_fraction(share)
    torch.backends.cuda.matmul.allow_tf32 = server.tf32
    torch.backends.cudnn.allow_tf32 = server.tf32


def memory_share(server: config.Server) -> float:
    """The share of a GPU's memory that a server may take: of a GPU that it shares what it asks for of it."""
    if server.memory_fraction is not None:
        return server.memory_fraction
    return 1.0 if server.num_gpus == "auto" else min(1.0, server.num_gpus)


def client_memory_share(settings: config.Config) -> float:
    """The share of a GPU's memory that a client may take: of a process of its own what Ray gives it of the GPU."""
    if settings.cluster.backend != "ray":
        return memory_share(settings.server)
    return min(1.0, settings.cluster.client_gpus)


@contextmanager
def within_memory(drop: Callable[[], None]) -> Iterator[None]:
    """Around what a call computes. Raises DeviceMemoryError where the GPU has no room for it.

    `drop` lets go of what is pending: first of all of what the frames hold that the error has come through.
    """
    with _letting_go(drop, DeviceMemoryError):
        yield


@contextmanager
def clients_within_memory(drop: Callable[[], None], no_room: Callable[[str], ClientMemoryError]) -> Iterator[None]:
    """As `within_memory`, around what a client computes: raises `no_room`, which is told torch's reason."""
    with _letting_go(drop, no_room):
        yield


@contextmanager
def _letting_go(drop: Callable[[], None], no_room: Callable[[str], DeviceMemoryError]) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        traceback.clear_frames(error.__traceback__)
        drop()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        raise no_room(first_line(error)) from None
