"""Between actors of one process all is copied, but what stays on a card."""

from __future__ import annotations

import torch

from actors.local_pickle import dump, load

CPU, ELSEWHERE = torch.device("cpu"), torch.device("meta")


def test_a_tensor_on_the_card_is_handed_over_and_what_is_around_it_is_copied() -> None:
    tensor, around = torch.ones(3, requires_grad=True), [1, 2]
    dumped = dump({"tensor": tensor, "around": around}, CPU)
    for found in (load(dumped), load(dumped)):
        assert found["tensor"].data_ptr() == tensor.data_ptr() and not found["tensor"].requires_grad
        assert found["around"] == around and found["around"] is not around


def test_elsewhere_and_without_a_card_tensors_are_copied() -> None:
    tensor = torch.ones(3)
    for card in (ELSEWHERE, None):
        found = load(dump([tensor], card))[0]
        assert torch.equal(found, tensor) and found.data_ptr() != tensor.data_ptr()
