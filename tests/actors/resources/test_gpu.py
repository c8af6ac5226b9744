"""What a process says to torch before it computes on a GPU. There is none here: what torch is told is looked at."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

import ray_split as rs
from actors.resources import gpu
from actors.resources.placement import whole
from actors.resources.resolve import resolve
from ray_split.errors import DeviceMemoryError


@pytest.fixture
def shares(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The memory fractions that torch is told; its other settings are put back."""
    told: list[float] = []
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", told.append)
    monkeypatch.setenv(gpu.WORKSPACE, "")
    monkeypatch.delenv(gpu.WORKSPACE)
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32
    fills = torch.utils.deterministic.fill_uninitialized_memory
    try:
        yield told
    finally:
        cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = before
        torch.utils.deterministic.fill_uninitialized_memory = fills
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("tf32", [False, True])
def test_products_are_rounded_to_tf32_only_where_it_is_asked_for(shares: list[float], tf32: bool) -> None:
    gpu.set_up_gpu(rs.config.Server(num_gpus=1, tf32=tf32), 1.0)
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == (tf32, tf32)


def test_what_has_a_deterministic_algorithm_uses_it(shares: list[float]) -> None:
    gpu.set_up_gpu(rs.config.Server(num_gpus=1), 1.0)
    assert torch.are_deterministic_algorithms_enabled() and torch.is_deterministic_algorithms_warn_only_enabled()
    assert torch.backends.cudnn.deterministic and not torch.backends.cudnn.benchmark
    assert os.environ[gpu.WORKSPACE] == ":4096:8"


@pytest.mark.parametrize(
    ("server", "share"),
    [({"num_gpus": 0.25}, [0.25]), ({"num_gpus": 2}, []), ({"num_gpus": 1, "memory_fraction": 0.5}, [0.5])],
)
def test_of_a_gpu_that_is_shared_a_server_takes_its_share_of_memory(
    shares: list[float], server: dict[str, float], share: list[float]
) -> None:
    settings = rs.config.Server(**server)
    gpu.set_up_gpu(settings, gpu.memory_share(settings))
    assert shares == share


@pytest.mark.parametrize(
    ("gpus", "is_there", "device"),
    [("auto", True, "cpu"), (0, True, "cpu"), (0.25, True, "cuda"), (1, True, "cuda"), (1, False, "cpu")],
)
def test_a_role_computes_on_cuda_where_it_has_of_a_gpu_and_torch_sees_one(
    gpus: float | str, is_there: bool, device: str
) -> None:
    assert gpu.device_of(gpus, is_there) == device


@pytest.mark.parametrize(
    ("backend", "server", "share"),
    [
        ("ray", {"num_gpus": 0.5}, 0.25),
        ("ray", {"num_gpus": 1, "memory_fraction": 0.9}, 0.25),
        ("inprocess", {"num_gpus": 0.5}, 0.5),
        ("inprocess", {"num_gpus": 1}, 1.0),
    ],
)
def test_of_a_gpus_memory_a_client_takes_what_ray_gives_it_of_the_gpu(
    backend: str, server: dict[str, float], share: float
) -> None:
    settings = rs.Config(server=server, cluster={"backend": backend, "client_gpus": 0.25})
    assert gpu.client_memory_share(settings) == share


@pytest.mark.parametrize(
    ("backend", "wrong"), [("ray", "the cluster has no GPU"), ("inprocess", "torch sees no GPU in this process")]
)
def test_clients_that_would_have_no_gpu_are_refused(backend: str, wrong: str) -> None:
    settings = rs.Config(cluster={"backend": backend, "client_gpus": 0.5})
    with pytest.raises(rs.SettingsError, match=rf"^cluster\.client_gpus: is 0\.5, but {wrong}\."):
        resolve(settings, [whole("here", 2, 0)])


def test_what_has_no_room_lets_go_of_what_it_held() -> None:
    dropped: list[str] = []

    def compute() -> None:
        large = torch.zeros(3)
        raise torch.OutOfMemoryError(f"CUDA out of memory\nby {len(large)}")

    with (
        pytest.raises(DeviceMemoryError, match=r"^CUDA out of memory$") as raised,
        gpu.within_memory(lambda: dropped.append("all")),
    ):
        compute()
    assert dropped == ["all"]
    context = raised.value.__context__
    frames = [] if context is None else [each for each in _frames(context) if each.f_code.co_name == "compute"]
    assert frames and not any(frame.f_locals for frame in frames)


def _frames(error: BaseException) -> list:  # type: ignore[type-arg]
    found, traceback = [], error.__traceback__
    while traceback is not None:
        found.append(traceback.tb_frame)
        traceback = traceback.tb_next
    return found
