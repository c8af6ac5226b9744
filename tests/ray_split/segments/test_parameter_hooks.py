import copy

import pytest
import torch
from torch import nn

from ray_split.segments.parameter_hooks import copied, first_hooked


def net() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(2, 1), nn.Linear(1, 1))
    model[0].weight.register_hook(lambda gradient: gradient * 3)
    model[1].bias.register_post_accumulate_grad_hook(_negate)
    return model


def _negate(parameter: torch.Tensor) -> None:
    assert parameter.grad is not None
    parameter.grad.neg_()


def test_a_copy_of_a_copy_has_the_hooks_and_parameters_of_its_own() -> None:
    model = net()
    made = copied(copied(model))
    made(torch.ones(1, 2)).sum().backward()
    factor = model[1].weight.item()
    assert made[0].weight.grad[0].tolist() == pytest.approx([3 * factor, 3 * factor])
    assert made[1].bias.grad.tolist() == [-1.0]
    assert model[0].weight.grad is None


def test_a_hook_on_what_was_frozen_since_is_handed_on() -> None:
    model = net()
    model.requires_grad_(False)
    made = copied(model)
    assert [p.requires_grad for p in made.parameters()] == [False] * 4
    made.requires_grad_(True)(torch.ones(1, 2)).sum().backward()
    assert made[1].bias.grad.tolist() == [-1.0]


def test_the_first_trained_parameter_with_a_hook_is_found() -> None:
    model = net()
    assert first_hooked(model) == "0.weight"
    model[0].requires_grad_(False)
    assert first_hooked(model) == "1.bias"
    assert first_hooked(copy.deepcopy(model)) is None
