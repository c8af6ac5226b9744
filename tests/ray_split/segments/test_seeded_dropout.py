import copy

import pytest
import torch
from torch import nn
from torch.func import vmap

from ray_split.segments.seeded_dropout import SeededDropout, replace_dropout


def inputs(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def plain(p, x, seed, times=1):
    """What nn.Dropout gives after torch.manual_seed, each time it is called."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return [nn.Dropout(p)(x) for _ in range(times)]


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("shape", [(3,), (8, 16), (4, 2, 5, 5), (4, 1000)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_its_masks_are_those_of_dropout_after_manual_seed(p, shape, dtype):
    x = inputs(*shape).to(dtype)
    seeded = SeededDropout(p)
    seeded.generators = generators(7)
    for expected in plain(p, x, 7, times=3):
        assert torch.equal(seeded(x), expected)


def test_without_generators_it_draws_from_torchs_own():
    x, seeded = inputs(8, 16), SeededDropout(0.4)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        found = [seeded(x), seeded(x)]
    assert all(map(torch.equal, found, plain(0.4, x, 3, times=2)))


@pytest.mark.parametrize("shape", [(16,), (8, 16), (4, 2, 5, 5)], ids=str)
def test_under_vmap_each_phones_mask_is_its_own_generators(shape):
    seeds, x = (5, 6, 2**63 + 1), inputs(3, *shape)
    seeded = SeededDropout(0.3)
    seeded.generators = generators(*seeds)
    for call in range(2):
        found = vmap(seeded)(x)
        for phone, seed in enumerate(seeds):
            assert torch.equal(found[phone], plain(0.3, x[phone], seed, times=call + 1)[call])
    assert not torch.equal(found[0] == 0, found[1] == 0)


def test_where_the_phones_dimension_lies_under_vmap_changes_no_mask():
    x = inputs(8, 3, 16)  # the phones' dimension is the second
    seeded = SeededDropout(0.3)
    seeded.generators = generators(5, 6, 7)
    found = vmap(seeded, in_dims=1)(x)
    for phone, seed in enumerate((5, 6, 7)):
        assert torch.equal(found[phone], plain(0.3, x[:, phone], seed)[0])


def test_its_gradient_is_that_of_dropout():
    x = inputs(3, 8, 16)
    seeded = SeededDropout(0.5)
    seeded.generators = generators(1, 2, 3)
    own = x.clone().requires_grad_()
    vmap(seeded)(own).square().sum().backward()
    for phone, seed in enumerate((1, 2, 3)):
        one = x[phone].clone().requires_grad_()
        plain(0.5, one, seed)[0].square().sum().backward()
        assert torch.equal(own.grad[phone], one.grad)


@pytest.mark.parametrize(("p", "training"), [(0.5, False), (0.0, True)])
def test_it_does_nothing_in_eval_mode_or_with_p_of_zero(p, training):
    seeded, x = SeededDropout(p).train(training), inputs(4, 4)
    seeded.generators = generators(1)
    assert seeded(x) is x
    assert torch.equal(vmap(seeded)(x), x)


def test_every_dropout_of_a_model_is_replaced_and_nothing_else():
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.25), nn.Sequential(nn.ReLU(), nn.Dropout(0.5)), nn.Dropout2d())
    before = copy.deepcopy(model)
    replaced = replace_dropout(model)
    assert replaced is model
    assert [type(m).__name__ for m in model.modules()][1:] == [
        "Linear", "SeededDropout", "Sequential", "ReLU", "SeededDropout", "Dropout2d",
    ]  # fmt: skip
    assert (model[1].p, model[2][1].p) == (0.25, 0.5)
    assert model.state_dict().keys() == before.state_dict().keys()
    assert isinstance(replace_dropout(nn.Dropout(0.3)), SeededDropout)


def test_a_replaced_model_gives_the_outputs_of_the_model():
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.25), nn.ReLU(), nn.Dropout(0.5)).train()
    replaced, x = replace_dropout(copy.deepcopy(model)), inputs(8, 4)
    outputs = []
    for each in (model, replaced):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(11)
            outputs.append(each(x))
    assert torch.equal(*outputs)
    model.eval(), replaced.eval()
    assert torch.equal(model(x), replaced(x))


def test_a_dropout_that_is_replaced_keeps_its_mode() -> None:
    assert not replace_dropout(nn.Sequential(nn.Linear(2, 2), nn.Dropout()).eval())[1].training
    assert replace_dropout(nn.Sequential(nn.Linear(2, 2), nn.Dropout()))[1].training
