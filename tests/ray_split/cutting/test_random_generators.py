"""Generators of random numbers are put where a seed says."""

from __future__ import annotations

import torch

from ray_split.cutting.random_generators import seed_everywhere


def test_a_seed_gives_the_numbers_that_torch_gives_for_it() -> None:
    with torch.random.fork_rng(devices=[]):
        for seed in (0, 7, 2**63 - 1):
            torch.manual_seed(seed)
            expected = torch.rand(5)
            seed_everywhere(seed)
            assert torch.equal(torch.rand(5), expected)


def test_without_an_accelerator_nothing_waits_for_one_to_be_started() -> None:
    if torch.accelerator.is_available():
        return
    waiting = len(torch.cuda._queued_calls)
    seed_everywhere(1)
    assert len(torch.cuda._queued_calls) == waiting
