"""Stacked copies compute what a loop over the phones computes, within rounding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from ray_split import config
from ray_split.segments.looped_copies import LoopedCopies
from ray_split.segments.segment import Segment
from ray_split.segments.stacked_copies import StackedCopies
from ray_split.tasks.task import Task
from tests.tiers import thorough

SGD, MOMENTUM, ADAM = (
    config.Optimizer(lr=0.1, weight_decay=0.01),
    config.Optimizer(lr=0.05, momentum=0.9),
    config.Optimizer(name="adam", lr=0.01),
)
PHONES, STEPS = 5, 20
TASK = Task(config.Task())
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


class Attention(nn.Module):
    """Self-attention over 4 tokens of width 8, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.out = nn.Linear(32, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = x.reshape(-1, 4, 8)
        mixed, _ = self.attention(tokens, tokens, tokens, need_weights=False)
        return self.out(self.norm(tokens + mixed).flatten(1))


def conv() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3)
    )


def linear() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(32, 16), nn.Tanh(), nn.Linear(16, 3))


def batchnorm() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))


def dropout() -> nn.Module:
    return nn.Sequential(nn.Dropout(0.2), nn.Flatten(), nn.Linear(32, 16), nn.Dropout(0.5), nn.ReLU(), nn.Linear(16, 3))


def both(module: nn.Module, optimizer: config.Optimizer, dtype: torch.dtype) -> tuple[LoopedCopies, StackedCopies]:
    module = module.to(dtype)

    def make() -> Segment:
        import copy

        return Segment(copy.deepcopy(module), optimizer)

    looped, stacked = LoopedCopies(make), StackedCopies(module, optimizer)
    state = make().state()
    for copies in (looped, stacked):
        copies.load(state, PHONES)
    return looped, stacked


def batches(step: int, dtype: type) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Groups of phones: fewer phones and shorter batches towards the end."""
    draw = np.random.default_rng(step)
    sizes = [(3, 6), (2, 4)] if step < 10 else [(2, 6), (1, 3)] if step < 15 else [(2, 2)]
    inputs = [draw.normal(size=(k, n, 2, 4, 4)).astype(dtype) for k, n in sizes]
    return inputs, [draw.integers(0, 3, size) for size in sizes]


def train(copies: LoopedCopies | StackedCopies, dtype: type) -> list[np.ndarray]:
    """20 steps as the last segment; the gradients of what arrived and the losses."""
    seen = []
    for step in range(STEPS):
        inputs, labels = batches(step, dtype)
        seeds = [100 * step + phone for phone in range(sum(len(group) for group in inputs))]
        learned = copies.learn(inputs, labels, seeds, TASK)
        copies.step()
        seen += [*learned.gradients, learned.losses, learned.correct]
    return seen


@pytest.mark.few(thorough=4)
@pytest.mark.parametrize("dtype", [torch.float32, *thorough(torch.float64)], ids=str)
@pytest.mark.parametrize("optimizer", [*thorough(SGD, MOMENTUM), ADAM], ids=["sgd", "momentum", "adam"])
@pytest.mark.parametrize("make", [conv, linear, Attention, batchnorm, dropout], ids=lambda make: make.__name__)
def test_stacked_copies_train_as_a_loop_does(make, optimizer: config.Optimizer, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    looped, stacked = both(make(), optimizer, dtype)
    number = np.float32 if dtype == torch.float32 else np.float64
    tolerance = TOLERANCE[dtype] * (10 if optimizer is ADAM else 1)
    for a, b in zip(train(looped, number), train(stacked, number), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)
    one, other = looped.states(), stacked.states()
    assert {key for key in one if not key.startswith("optimizer/")} <= set(other)
    for key, array in one.items():
        if optimizer is ADAM and noise(key):
            continue
        if optimizer is ADAM and "in_proj_bias" in key and array.ndim > 1:  # a key's bias has a gradient of zero
            array, other[key] = (np.delete(values, range(8, 16), 1) for values in (array, other[key]))
        np.testing.assert_allclose(array, other[key], rtol=tolerance, atol=tolerance, err_msg=key)


def noise(key: str) -> bool:
    """What Adam makes of a gradient that is zero but for rounding, and the mean that it moves."""
    return key.split("/")[1] in ("0.bias", "1.running_mean")


def test_a_phone_alone_in_its_group_gets_the_bits_of_the_loop() -> None:
    torch.manual_seed(0)
    looped, stacked = both(conv(), SGD, torch.float32)
    inputs, labels = batches(0, np.float32)
    for copies in (looped, stacked):
        copies.learn([inputs[0][:1]], [labels[0][:1]], [1], TASK)
        copies.step()
    for key, array in looped.states().items():
        assert np.array_equal(array[0], stacked.states()[key][0])


def test_forward_and_backward_between_two_cuts_are_the_loops() -> None:
    torch.manual_seed(0)
    looped, stacked = both(batchnorm(), MOMENTUM, torch.float64)
    for step in range(3):
        inputs, _ = batches(step, np.float64)
        outputs, gradients = [], []
        for copies in (looped, stacked):
            outputs.append(copies.forward(inputs, range(PHONES)))
            gradients.append(copies.backward([np.ones_like(group) / 7 for group in outputs[-1]]))
            copies.step()
        for a, b in zip(outputs[0] + gradients[0], outputs[1] + gradients[1], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def test_phones_whose_batches_have_ended_are_left_as_they_are() -> None:
    for copies in both(linear(), MOMENTUM, torch.float32):
        inputs, labels = batches(0, np.float32)
        copies.learn(inputs, labels, range(PHONES), TASK)
        copies.step()
        before = copies.states()
        copies.learn([inputs[0][:2]], [labels[0][:2]], range(2), TASK)
        copies.step()
        for key, array in copies.states().items():
            assert np.array_equal(array[2:], before[key][2:])
            assert not np.array_equal(array[:2], before[key][:2])


def test_dropout_masks_are_each_phones_own_and_follow_from_its_seed() -> None:
    _, stacked = both(nn.Sequential(nn.Dropout(0.5), nn.Flatten()), SGD, torch.float32)
    ones = [np.ones((3, 2, 2, 4, 4), np.float32)]
    first = stacked.forward(ones, [1, 2, 1])[0]
    assert np.array_equal(first[0], first[2])
    assert not np.array_equal(first[0], first[1])
    assert set(np.unique(first)) == {0.0, 2.0}


def test_the_average_weights_each_phone_by_its_share_and_takes_the_largest_integer() -> None:
    for copies in both(batchnorm(), SGD, torch.float32):
        inputs, labels = batches(0, np.float32)
        copies.learn(inputs, labels, range(PHONES), TASK)
        copies.step()
        copies.learn([inputs[0][:1]], [labels[0][:1]], [9], TASK)
        copies.step()
        shares, states = np.array([0.1, 0.2, 0.3, 0.15, 0.25]), copies.states()
        average = copies.average(shares)
        for key in ("weights/0.weight", "weights/1.running_var"):
            np.testing.assert_allclose(average[key], np.tensordot(shares, states[key], 1), rtol=1e-5, atol=1e-6)
        assert average["weights/1.num_batches_tracked"] == 2
        assert not any(key.startswith("optimizer/") for key in average)


def test_each_phones_own_state_is_loaded_with_its_optimizer() -> None:
    for copies in both(linear(), ADAM, torch.float32):
        inputs, labels = batches(0, np.float32)
        copies.learn(inputs, labels, range(PHONES), TASK)
        copies.step()
        copies.learn([inputs[0][:2]], [labels[0][:2]], range(2), TASK)
        copies.step()
        own, start = copies.states(), {key: array[0] for key, array in copies.states().items()}
        assert own["optimizer/1.weight/step"].tolist() == [2, 2, 1, 1, 1]
        copies.load(start, PHONES, own, fresh=False)
        for key, array in copies.states().items():
            assert np.array_equal(array, own[key])


def test_adams_bias_correction_counts_each_phones_own_steps() -> None:
    looped, stacked = both(linear(), ADAM, torch.float64)
    inputs, labels = batches(0, np.float64)
    for copies in (looped, stacked):
        copies.learn([inputs[0][:2]], [labels[0][:2]], range(2), TASK)
        copies.step()
        own = copies.states()
        copies.load({key: array[0] for key, array in own.items()}, PHONES, own, fresh=False)
        copies.learn(inputs, labels, range(PHONES), TASK)
        copies.step()
    for key, array in looped.states().items():
        np.testing.assert_allclose(array, stacked.states()[key], rtol=1e-10, atol=1e-12)


def test_a_backward_without_a_forward_is_an_error() -> None:
    _, stacked = both(linear(), SGD, torch.float32)
    with pytest.raises(RuntimeError, match="backward without a forward"):
        stacked.backward([np.ones((2, 3), np.float32)])


def test_complex_weights_are_added_up_and_have_a_norm_as_in_a_loop() -> None:
    class Complex(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.filter = nn.Parameter(torch.tensor([3 + 4j, 1j]))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x.flatten(1)[:, :2] * self.filter).abs()

    for copies in both(Complex(), SGD, torch.complex64):
        own = np.array([[3 + 4j, 0], [1, 2j], [0, 0], [0, 0], [-5, 5]], np.complex64)
        copies.load({"weights/filter": own[0]}, PHONES, {"weights/filter": own})
        np.testing.assert_allclose(copies.norms(), [5, 5**0.5, 0, 0, 50**0.5], rtol=1e-6)
        average = copies.average(np.array([0.5, 0.25, 0, 0, 0.25]))["weights/filter"]
        np.testing.assert_allclose(average, [0.5 + 2j, 1.25 + 0.5j], rtol=1e-6)


def test_a_buffer_that_forward_assigns_is_each_phones_own_and_stays_what_a_graph_needs() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("scale", torch.tensor(1.0))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x.flatten(1) * self.scale
            self.scale = self.scale + x.mean()
            return y

    states = []
    for copies in both(Scaled(), SGD, torch.float64):
        for step in range(2):
            inputs, _ = batches(step, np.float64)
            outputs = copies.forward(inputs, range(PHONES))
            gradients = copies.backward([np.ones_like(group) for group in outputs])
            copies.step()
        states.append((*gradients, copies.states()["weights/scale"]))
        copies.evaluate(inputs)
        assert np.array_equal(copies.states()["weights/scale"], states[-1][-1])
    for one, other in zip(*states, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)
    assert len(set(states[0][-1])) == PHONES
