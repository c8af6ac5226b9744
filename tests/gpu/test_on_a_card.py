"""B, and A and C, on a card that is there: `python -m pytest -m gpu`, and within `make gpu-check`."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

import ray_split as rs
from actors.resources import gpu
from jobs.bench.gpu_check import training
from jobs.bench.gpu_check.rows import Sections, trained
from ray_split.errors import DeviceMemoryError
from ray_split.messages.message import as_bits, clone, receive_leaf
from ray_split.messages.staging import Staging, pinned

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU here"),
]
CARD = torch.device("cuda")
SMALL: Sections = {
    "phones": {"count": 4, "local_steps": 2, "cohort": 4, "stacked": []},
    "schedule": {"name": "splitfed_v1"},
    "run": {"rounds": 2, "seed": 1},
}
TENSORS = {
    "float32": torch.arange(24.0).reshape(2, 3, 4),
    "bfloat16": torch.arange(24.0).reshape(2, 3, 4).bfloat16(),
    "int64": torch.arange(7),
    "channels last": torch.arange(48.0).reshape(2, 3, 2, 4).contiguous(memory_format=torch.channels_last),
    "turned": torch.arange(12.0).reshape(3, 4).T,
    "large": torch.arange(5_000_000.0),
}


@pytest.mark.parametrize("name", TENSORS)
def test_what_goes_to_the_card_and_back_is_what_a_plain_copy_brings(name: str) -> None:
    tensor = TENSORS[name]
    there = clone(tensor, CARD)
    assert torch.equal(there, tensor.to(CARD)) and there.stride() == tensor.to(CARD).stride()
    assert torch.equal(receive_leaf(as_bits(there)), tensor)


def test_what_lies_in_pinned_memory_goes_over_whole_also_when_it_is_let_go_of_at_once() -> None:
    arrays = [np.full(1_000_000, number, np.float32) for number in range(20)]
    there = [clone(torch.from_numpy(pinned(array)), CARD) for array in arrays]
    assert [tensor.unique().tolist() for tensor in there] == [[number] for number in range(20)]


@pytest.mark.parametrize("measure", [training._as_on_cpu, training._same("sequential"), training._same("splitfed_v1")])
def test_rows_of_the_check_that_are_about_bits_and_losses_reach_their_goal(measure: training.Measure) -> None:
    measured = measure()
    assert measured.reached, measured.figure


def test_looped_phones_computed_in_chunks_come_to_the_same_bits() -> None:
    whole, pieces = trained(SMALL), trained({**SMALL, "server": {"chunk": 2}})
    assert whole.digest == pieces.digest


@pytest.fixture
def hundredth() -> Iterator[int]:
    """A process that may take a hundredth of the card's memory: how many bytes that is."""
    torch.cuda.empty_cache()
    gpu.set_up_gpu(rs.config.Server(num_gpus=1, memory_fraction=0.01), 0.01)
    try:
        yield torch.cuda.get_device_properties(0).total_memory // 100
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_of_its_share_of_the_memory_a_process_takes_no_more_and_goes_on_after_that(hundredth: int) -> None:
    dropped: list[str] = []
    with pytest.raises(DeviceMemoryError), gpu.within_memory(lambda: dropped.append("all")):
        torch.empty(2 * hundredth, dtype=torch.uint8, device=CARD)
    assert dropped == ["all"]
    assert torch.empty(hundredth // 10, dtype=torch.uint8, device=CARD).is_cuda


def test_a_and_c_on_the_card_learn_what_they_do_on_a_cpu_and_their_batches_may_be_made_ahead() -> None:
    card, cpu = trained(SMALL, client_gpus=1), trained(SMALL, gpus=0)
    assert card.losses == pytest.approx(cpu.losses, rel=1e-3)
    images: Sections = {
        **SMALL,
        "model": {"name": "cnn"},
        "data": {"name": "fake_images", "kwargs": {"samples": 200, "shape": [3, 32, 32]}},
    }
    ahead, not_ahead = (
        trained({**images, "data": {**images["data"], "decoders": decoders}}, client_gpus=1) for decoders in (2, 0)
    )
    assert ahead.digest == not_ahead.digest


def test_what_crosses_in_one_process_stays_on_the_card_to_the_bits_of_what_goes_through_the_host(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fetched: list[torch.Size] = []
    to_host = Staging.to_host

    def counted(staging: Staging, tensor: torch.Tensor) -> torch.Tensor:
        fetched.append(tensor.shape)
        return to_host(staging, tensor)

    monkeypatch.setattr(Staging, "to_host", counted)
    stayed, on_card = trained(SMALL, client_gpus=1), len(fetched)
    monkeypatch.setattr(gpu, "common_card", lambda settings: None)
    over_host = trained(SMALL, client_gpus=1)
    assert stayed.digest == over_host.digest
    assert stayed.losses == over_host.losses
    # Of 4 phones, 2 steps and 2 rounds four tensors each; beside these, norms, states, and figures of evaluations.
    assert len(fetched) - on_card >= on_card + 40


def test_clients_that_share_the_card_on_ray_come_to_the_bits_of_one_process(own_ray: None) -> None:
    shared: Sections = {**SMALL, "cluster": {"client_actors": 2}}
    assert trained(shared, "ray", gpus=0.5, client_gpus=0.25).digest == trained(SMALL, client_gpus=1).digest
