import copy

import numpy as np
import pytest
import torch
from torch import nn

from ray_split.config import Optimizer
from ray_split.messages.message import send
from ray_split.segments.segment import Segment

OPTIMIZERS = [
    {"name": "sgd", "lr": 0.1},
    {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.01},
    {"name": "adam", "lr": 0.01},
    {"name": "adamw", "lr": 0.01, "weight_decay": 0.1},
]


class Two(nn.Module):
    """Takes two tensors and a number, gives a tensor, what it was given second, and an index."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, one, two, number):
        hidden = self.linear(one) * number
        return hidden + two, two, hidden.argmax(1)


def module():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(inplace=True), nn.Linear(6, 3))


def segment(made=None, frozen=False, **optimizer):
    return Segment(made or module(), Optimizer(**optimizer), frozen=frozen)


def batch(seed=0, columns=4):
    return np.random.default_rng(seed).standard_normal((8, columns), np.float32)


def train(trained, steps, first=0):
    for step in range(first, first + steps):
        trained.forward(batch(step), seed=step)
        trained.backward(batch(100 + step, columns=3))
        trained.step()


def bits(state):
    return {key: (array.dtype.str, array.shape, array.tobytes()) for key, array in state.items()}


def misaligned(array, offset):
    """The same values in read-only memory that begins `offset` bytes after a 64-byte border, and that memory."""
    memory = bytearray(array.nbytes + 128)
    start = -np.frombuffer(memory, np.uint8).ctypes.data % 64 + offset
    memory[start : start + array.nbytes] = array.tobytes()
    view = np.frombuffer(memoryview(memory).toreadonly(), array.dtype, array.size, start)
    return view.reshape(array.shape), memory


def test_backward_gives_the_gradient_of_the_border():
    whole, inputs, gradient = module(), torch.from_numpy(batch()).requires_grad_(), batch(1, columns=3)
    one = segment(copy.deepcopy(whole))
    outputs = one.forward(batch(), seed=0)
    expected = whole(inputs)
    expected.backward(torch.from_numpy(gradient))
    assert torch.equal(outputs, expected)
    assert np.array_equal(one.backward(gradient), inputs.grad.numpy())
    for own, parameter in zip(one.module.parameters(), whole.parameters(), strict=True):
        assert torch.equal(own.grad, parameter.grad)


def test_the_gradient_has_none_for_integers_numbers_and_what_was_not_used():
    one = segment(Two())
    _, passed, index = one.forward((batch(0), batch(1), 3), seed=0)
    assert torch.equal(passed, torch.from_numpy(batch(1)))
    assert not index.requires_grad
    gradients = one.backward((np.ones((8, 4), np.float32), None, None))
    assert np.array_equal(gradients[1], np.ones((8, 4), np.float32))
    assert gradients[2] is None
    one.forward((batch(0), np.arange(32).reshape(8, 4), 3), seed=0)
    assert one.backward((np.ones((8, 4), np.float32), None, None))[1:] == (None, None)
    one.forward((batch(0), batch(1), 3), seed=0)
    assert one.backward((None, None, None)) == (None, None, None)


def test_a_value_that_passes_through_adds_up_its_gradients():
    one = segment(Two())
    one.forward((batch(0), batch(1), 3), seed=0)
    ones = np.ones((8, 4), np.float32)
    assert np.array_equal(one.backward((ones, 2 * ones, None))[1], 3 * ones)


def test_backward_of_a_loss_is_backward_of_its_gradient():
    one, other = segment(), segment()
    loss = one.forward(batch(), seed=0).square().sum()
    outputs = other.forward(batch(), seed=0)
    gradient = other.backward(2 * send(outputs))
    assert np.array_equal(one.backward_loss(loss), gradient)


def test_data_has_no_gradient():
    one = segment()
    one.forward(batch(), seed=0, differentiable=False)
    assert one.backward(batch(1, columns=3)) is None
    assert all(p.grad is not None for p in one.module.parameters())


def test_a_backward_needs_a_forward_of_its_own():
    one = segment()
    with pytest.raises(RuntimeError, match="without a forward"):
        one.backward(batch(1, columns=3))
    train(one, 1)
    with pytest.raises(RuntimeError, match="without a forward"):
        one.backward(batch(1, columns=3))
    one.forward(batch(), seed=0)
    one.load(one.state())
    with pytest.raises(RuntimeError, match="without a forward"):
        one.backward(batch(1, columns=3))


def test_dropout_follows_the_seed_of_the_forward():
    one = segment(nn.Dropout(0.5))
    first, same, other = (one.forward(np.ones((8, 4), np.float32), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: "-".join(map(str, o.values())))
def test_a_frozen_segment_keeps_its_weights_and_statistics(optimizer):
    frozen = segment(frozen=True, **optimizer)
    before = bits(frozen.state())
    train(frozen, 2)
    assert bits(frozen.state()) == before
    frozen.forward(batch(), seed=0)
    assert np.abs(frozen.backward(batch(1, columns=3))).sum() > 0
    changed = segment(**optimizer)
    train(changed, 2)
    assert not before.items() & {k: v for k, v in bits(changed.state()).items() if "bias" in k}.items()


def test_a_frozen_segment_on_data_needs_no_gradient():
    frozen = segment(frozen=True)
    assert not frozen.forward(batch(), seed=0, differentiable=False).requires_grad
    assert frozen.backward(None) is None
    frozen.step()


def test_load_copies():
    one, state = segment(name="adam", lr=0.1), segment(name="adam", lr=0.1)
    train(state, 2)
    state = state.state()
    before = bits(state)
    assert one.load(state) == sum(array.nbytes for array in state.values())
    train(one, 3)
    assert bits(state) == before
    one.load(state)
    for array in state.values():
        array[...] = 7
    assert bits(one.state()) == before


def test_load_refuses_other_keys_and_shapes():
    one, state = segment(), segment().state()
    missing = {key: array for key, array in state.items() if key != "weights/1.running_var"}
    for wrong in (missing, {**state, "weights/extra": np.zeros(3)}, {}):
        with pytest.raises(ValueError, match="other weights"):
            one.load(wrong)
    with pytest.raises(ValueError, match=r"weights/0\.bias has shape \(6,\), the state \(5,\)"):
        one.load({**state, "weights/0.bias": np.zeros(5, np.float32)})


def test_the_state_shares_no_memory():
    one = segment(momentum=0.9)
    train(one, 2)
    before, state = bits(one.state()), one.state()
    for array in state.values():
        array[...] = 7
    assert bits(one.state()) == before
    state = one.state()
    train(one, 1)
    assert bits(state) == before


def test_the_state_has_the_buffers_that_a_state_dict_leaves_out():
    one = segment(nn.Linear(2, 2))
    one.module.register_buffer("left_out", torch.ones(3), persistent=False)
    state = one.state()
    assert sorted(state) == ["buffers/left_out", "weights/bias", "weights/weight"]
    one.load({**state, "buffers/left_out": np.full(3, 5, np.float32)})
    assert one.module.left_out.tolist() == [5, 5, 5]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: "-".join(map(str, o.values())))
def test_state_and_load_keep_every_bit_of_the_training(optimizer):
    undisturbed, handed_on = segment(**optimizer), segment(nn.Sequential(*module()), **optimizer)
    train(undisturbed, 3)
    with torch.no_grad():
        handed_on.module[0].weight.zero_()
    train(handed_on, 2)
    handed_on.load(undisturbed.state())
    assert bits(handed_on.state()) == bits(undisturbed.state())
    for one in (undisturbed, handed_on):
        train(one, 3, first=3)
    assert bits(handed_on.state()) == bits(undisturbed.state())


def test_a_fresh_optimizer_remembers_nothing():
    one, new = segment(momentum=0.9), segment(momentum=0.9)
    train(one, 3)
    state = one.state()
    assert any(key.startswith("optimizer/") for key in state)
    one.load(state, fresh_optimizer=True)
    new.load({key: array for key, array in state.items() if not key.startswith("optimizer/")})
    assert not any(key.startswith("optimizer/") for key in one.state())
    for each in (one, new):
        train(each, 2)
    assert bits(one.state()) == bits(new.state())


@pytest.mark.parametrize("offset", range(1, 64))
def test_where_an_array_lies_changes_no_bit_and_nothing_is_written_to_it(offset):
    def run(place):
        one = segment(nn.Sequential(nn.Linear(37, 19), nn.ReLU(inplace=True), nn.Linear(19, 5)), momentum=0.9)
        arrived = [place(batch(seed, columns)) for seed, columns in ((0, 37), (1, 5))]
        state = {
            key: place(np.random.default_rng(3).standard_normal(a.shape, np.float32)) for key, a in one.state().items()
        }
        one.load(state)
        outputs = send(one.forward(arrived[0], seed=0)).tobytes()
        gradient = one.backward(arrived[1]).tobytes()
        one.step()
        return outputs, gradient, send(one.evaluate(arrived[0])).tobytes(), bits(one.state())

    memories = []

    def place(array):
        view, memory = misaligned(array, offset)
        assert view.ctypes.data % 64 == offset
        assert not view.flags.writeable
        memories.append((memory, bytes(memory)))
        return view

    assert run(place) == run(np.copy)
    assert all(memory == before for memory, before in memories)


def test_an_in_place_layer_does_not_write_to_the_message():
    one = segment(nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 3)))
    message = batch()
    before = message.tobytes()
    for run in (
        lambda: one.forward(message, seed=0),
        lambda: one.forward(message, seed=0, differentiable=False),
        lambda: one.evaluate(message),
    ):
        run()
        assert message.tobytes() == before


def test_evaluate_leaves_no_graph_and_no_trace():
    one = segment()
    before = bits(one.state())
    assert not one.evaluate(batch()).requires_grad
    assert bits(one.state()) == before
    with pytest.raises(RuntimeError, match="without a forward"):
        one.backward(batch(1, columns=3))
    expected = module().eval()(torch.from_numpy(batch()))
    assert torch.equal(one.evaluate(batch()), expected)
    one.forward(batch(), seed=0)
    assert bits(one.state()) != before
