"""Where a model can be cut: what the planner says is what cut() accepts, and the same crosses."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import combinations

import pytest
import torch
from torch import nn

from ray_split import config
from ray_split.costs.cut_positions import Position, positions_of, trace
from ray_split.costs.planner import plan
from ray_split.costs.planner_hardware import Profile
from ray_split.costs.position_costs import scan
from ray_split.cutting.cut import CutError, cut
from ray_split.errors import SettingsError
from ray_split.messages.message import leaves
from ray_split.models.small import MLP, DigitsCNN
from ray_split.segments.segment import call
from tests import nets, tied_nets
from tests.nets import chain, model_of


def positions(model: nn.Module) -> list[Position]:
    return positions_of(model, trace(model, training=True), trace(model, training=False))


def names(model: nn.Module) -> list[str]:
    return [position.name for position in positions(model)]


def test_positions_are_all_layers_but_the_last_in_the_order_they_run() -> None:
    digits = ["block1.0", "block1", "block2.0", "block2.1", "block2", "hidden.0", "hidden.1", "hidden"]
    assert names(DigitsCNN()) == digits


def test_layers_that_end_at_the_same_place_share_a_position() -> None:
    assert positions(DigitsCNN())[1].names == ("block1", "block1.1")


def test_a_first_cut_has_something_trained_before_it() -> None:
    assert [(p.name, p.first) for p in positions(MLP())] == [("flatten", False), ("layers.0", True), ("layers.1", True)]


def test_no_first_cut_where_the_raw_input_would_cross() -> None:
    model = model_of(lambda self, x: self.c(self.b(self.a(x)) + x))
    assert [(p.name, p.first) for p in positions(model)] == [("a", False), ("b", False)]


def test_no_position_between_two_uses_of_a_weight() -> None:
    model = model_of(lambda self, x: self.d(self.c(self.b(self.a(x)))), d=nn.Linear(4, 4))
    model.c.weight = model.b.weight
    assert names(model) == ["a", "c"]


def of_ends(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return self.a(self.d(self.c(self.b(self.a(x)))))


TIED = [tied_nets.HeadFirst, tied_nets.TiedAutoencoder, lambda: model_of(of_ends, d=nn.ReLU())]


@pytest.mark.parametrize("build", TIED, ids=["head first", "autoencoder", "layer called twice"])
def test_a_weight_may_be_in_a_and_c_and_cut_takes_the_pairs_that_the_planner_offers(
    build: Callable[[], nn.Module],
) -> None:
    model = build()
    width = 4 if build is TIED[2] else tied_nets.FEATURES
    found = plan(scan(copy.deepcopy(model), (width,), batch=2), config.Optimizer(), Profile())
    offered = {tuple(found.cuts(i)) for i in range(len(found.fits))}
    assert offered
    assert offered == {pair for pair in combinations(names(model), 2) if trains_in_b(model, list(pair))}


def trains_in_b(model: nn.Module, cuts: list[str]) -> bool:
    try:
        return any(True for _ in cut(model, cuts).b.parameters())
    except CutError:
        return False


def test_a_layer_called_twice_ends_at_its_last_call() -> None:
    model = model_of(lambda self, x: self.c(self.r(self.b(self.r(self.a(x))))), r=nn.ReLU())
    assert names(model) == ["a", "b", "r"]


def looks_at_numbers(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return self.b(self.a(x)) if x.sum() > 0 else self.c(x)


def without_gradients(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        x = self.a(x)
    return self.b(x)


def drawn(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return self.b(self.a(x) * float(torch.rand(())))


@pytest.mark.parametrize("forward", [looks_at_numbers, without_gradients, drawn])
def test_a_layer_that_cannot_be_traced_stays_whole(forward: Callable[..., torch.Tensor]) -> None:
    model = model_of(chain, b=model_of(forward))
    assert names(model) == ["a", "b"]


def test_a_layer_with_hooks_stays_whole() -> None:
    model = model_of(chain, b=nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)))
    model.b.register_forward_hook(lambda *_: None)
    assert names(model) == ["a", "b"]


def test_a_layer_that_only_training_calls_is_no_position() -> None:
    model = model_of(lambda self, x: self.c(self.b(x) if self.training else x), b=nn.ReLU(), a=nn.ReLU())
    assert names(model) == []


def test_a_model_that_cannot_be_traced_is_told_of() -> None:
    with pytest.raises(
        SettingsError, match=r"model\.name: the forward of Model can't be traced by torch\.fx.*control flow"
    ):
        trace(model_of(looks_at_numbers), training=True)


def test_tracing_leaves_random_numbers_and_mode_alone() -> None:
    model, before = model_of(chain, b=model_of(drawn)), torch.get_rng_state()
    positions(model)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training


MODELS = [DigitsCNN, MLP, nets.Residual, nets.with_dropout, nets.with_batchnorm, nets.inplace_first]


@pytest.mark.parametrize("build", MODELS, ids=lambda build: build.__name__)
@pytest.mark.few(3)
def test_cut_accepts_every_pair_and_what_crosses_is_as_planned(build: Callable[[], nn.Module]) -> None:
    model, example = build(), torch.randn(2, 1, 8, 8)
    scanned = scan(copy.deepcopy(model), (1, 8, 8), batch=2)
    for i, first in enumerate(scanned.positions):
        if not first.first:
            continue
        for j, second in enumerate(scanned.positions[i + 1 :], i + 1):
            segments = cut(model, [first.name, second.name])
            activation = segments.a(example)
            hidden = call(segments.b, activation)
            for place, crossing in ((i, activation), (j, hidden)):
                assert sorted(tuple(x.shape) for x in leaves(crossing)) == sorted(scanned.shapes(place))
                assert sum(x.nbytes for x in leaves(crossing)) == scanned.at(scanned.costs.crossing)[place]


def test_cut_refuses_what_is_no_first_cut() -> None:
    with pytest.raises(CutError, match="raw input"):
        cut(model_of(lambda self, x: self.c(self.b(self.a(x)) + x)), ["a"])
