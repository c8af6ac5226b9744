"""What a forward does outside of the values that torch.fx follows: kept as the untouched model does it, or refused."""

from __future__ import annotations

import copy
import logging
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from ray_split import config
from ray_split.cutting.cut import CutError, Segments, cut, merge
from ray_split.cutting.own_segments import Chain
from ray_split.errors import SettingsError
from ray_split.messages.message import leaves
from ray_split.models import registry
from tests.nets import model_of
from tests.ray_split.cutting.test_cut import backward, forward
from tests.ray_split.forwards import KINDS, RIGHT, Keeping, Net, WithLayer, checked

INPUTS, LABELS = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(3)), torch.tensor([0, 1, 2, 3, 0])
CUTS = [["a", "c"], ["b"]]


def assert_trains_as_the_untouched_model(model: nn.Module, cuts: list[str]) -> None:
    """Three steps under the same seeds, in train mode and, after each, in eval mode: bit for bit."""
    parts = cut(model, cuts, INPUTS).modules()
    segments, reference = list(parts.values()), copy.deepcopy(model)
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.05, momentum=0.9) for m in (reference, *segments)]
    whole = Segments(*segments)
    for step in range(3):
        torch.manual_seed(step)
        functional.cross_entropy(reference.train()(INPUTS), LABELS).backward()
        for segment in segments:
            segment.train()
        torch.manual_seed(step)
        outputs, passes = forward(whole, INPUTS)
        backward(functional.cross_entropy(outputs, LABELS), passes)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        torch.manual_seed(step)
        expected = reference.eval()(INPUTS)
        for segment in segments:
            segment.eval()
        torch.manual_seed(step)
        assert torch.equal(forward(whole, INPUTS)[0], expected)
    state = merge(*(segment.state_dict() for segment in segments))
    assert state.keys() == reference.state_dict().keys()
    assert not [key for key, tensor in reference.state_dict().items() if not torch.equal(tensor, state[key])]


@pytest.mark.parametrize("cuts", CUTS, ids=",".join)
@pytest.mark.parametrize("name", RIGHT)
@pytest.mark.few(20)
def test_it_trains_as_the_untouched_model(name: str, cuts: list[str]) -> None:
    torch.manual_seed(0)
    assert_trains_as_the_untouched_model(RIGHT[name](), ["a", "b.1"] if name == "InnerFrozen" else cuts)


@pytest.mark.parametrize("seed", range(12))
def test_several_at_once_train_as_the_untouched_model(seed: int) -> None:
    """Features switched on and off at random, one after the other in the model's middle."""
    chosen = random.Random(seed).sample(sorted(KINDS), 4)

    def middle(self, h):
        for name in chosen:
            h = KINDS[name].middle(self, h)
        return h

    torch.manual_seed(seed)
    assert_trains_as_the_untouched_model(type("Mixed", (Net,), {"middle": middle})(), CUTS[seed % 2])


def refusal(model: nn.Module, cuts: list[str]) -> str:
    with pytest.raises(SettingsError) as caught:
        cut(model, cuts, INPUTS)
    assert "\n" not in str(caught.value)
    return str(caught.value)


KEPT = {
    "counts": "steps", "draws": "draw", "draws_numpy": "own", "draws_torch": "generator", "next_number": "numbers",
    "of_the_class": "__class__.total", "of_the_module": "the variable ALL", "first_mean": "table",
    "first_mean_in_eval_mode": "table",
}  # fmt: skip


@pytest.mark.parametrize("how", KEPT)
def test_state_in_a_plain_place_is_refused_by_layer_and_line(how: str) -> None:
    said = refusal(WithLayer(Keeping(how)), ["a", "c"])
    assert "layer (Keeping)" in said and KEPT[how] in said and "register_buffer" in said
    assert "forwards.py:" in said


@pytest.mark.parametrize("how", ["python", "numpy"])
def test_numbers_that_no_run_seeds_are_refused_in_a_whole_layer(how: str) -> None:
    states = random.getstate(), np.random.get_state()[1].tolist()
    assert (
        "which a run can't repeat. Use torch's random functions" in (said := refusal(WithLayer(Keeping(how)), ["b"]))
        and "forwards.py:" in said
    )
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states


def test_what_no_output_depends_on_is_allowed_and_told_if_it_counts(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        for how in ("caches", "stashes"):
            cut(WithLayer(Keeping(how)), ["b"], INPUTS)
        assert not caplog.records
        cut(WithLayer(Keeping("only_counts")), ["b"], INPUTS)
    assert "layer (Keeping).steps" in caplog.text


def test_state_in_a_segment_of_ones_own_is_refused() -> None:
    own = Chain(nn.Sequential(nn.Flatten(), nn.Linear(64, 16)), Keeping("counts"), nn.Linear(16, 4))
    assert "b.b (Keeping).steps" in (said := refusal(own, ["a", "b"])) or "b (Keeping).steps" in said


def counts_itself(self, h):
    self.steps = getattr(self, "steps", 0) + 1
    return h


def reads_a_buffer(self, h):
    return h * float(self.seen)


def gradients_off(self, h):
    torch.set_grad_enabled(False)
    h = h * 2
    torch.set_grad_enabled(True)
    return h


def eval_after_its_call(self, h):
    h = self.norm(h)
    self.norm.eval()
    return h


def makes_weights(self, h):
    return nn.Linear(16, 16)(h)


def writes_to_what_it_makes(self, h):
    made = torch.zeros(16)
    made[0] = h.mean()
    return h + made


def branches_on_a_buffer(self, h):
    return h if self.seen > 0 else -h


def draws_python(self, h):
    return h if random.random() < 0.5 else -h


def draws_numpy(self, h):
    return h * np.random.rand()


REFUSED = {
    counts_itself: "(counts_itself).steps (test_cut_forwards.py:",
    reads_a_buffer: "h * float(self.seen)",
    gradients_off: "h = h * 2: a no_grad",
    eval_after_its_call: "the train mode of norm",
    makes_weights: "make it in __init__",
    writes_to_what_it_makes: "made[0] = h.mean(): a tensor is made here",
    branches_on_a_buffer: "return h if self.seen > 0",
    draws_python: "random numbers from Python's random are drawn around these layers (test_cut_forwards.py:",
    draws_numpy: "random numbers from numpy are drawn around these layers (test_cut_forwards.py:",
}


@pytest.mark.parametrize("middle", REFUSED, ids=lambda middle: middle.__name__)
def test_what_tracing_would_freeze_is_refused_with_the_line(middle) -> None:
    assert REFUSED[middle] in refusal(type(middle.__name__, (Net,), {"middle": middle})(), ["a", "c"])


class Doubled(Net):
    def __call__(self, x):
        return 2 * super().__call__(x)


class Merging(Net):
    def train(self, mode=True):
        super().train(mode)
        if not mode:
            self.c.weight.data.mul_(0.5)
        return self


class Extra(Net):
    def get_extra_state(self):
        return {"version": 1}


def with_state_hook():
    model = Net()
    model.register_state_dict_post_hook(lambda *_: None)
    return model


def with_a_forward_of_its_own():
    model = Net()
    model.forward = lambda x: model.head(model.a(model.flat(x)))
    return model


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (Doubled, "own __call__"),
        (Merging, "c.weight is set by a forward that would be cut, or by train()"),
        (Extra, "_extra_state"),
        (with_state_hook, "hooks on its state dict"),
        (with_a_forward_of_its_own, "forward is set on the object"),
    ],
)
def test_what_an_opened_module_would_lose_is_refused(make, says: str) -> None:
    assert says in refusal(make(), ["a", "c"])


def test_a_buffer_that_moves_is_not_copied_to_both_sides() -> None:
    def moving(self, x):
        h = self.a(x) + self.mask
        if self.training:
            self.mask.add_(1)
        return self.c(self.b(h) + self.mask)

    model = model_of(moving)
    model.register_buffer("mask", torch.ones(4))
    with pytest.raises(CutError, match="forward changes mask, which two segments use"):
        cut(model, ["a", "b"], torch.randn(5, 4))


def test_a_copied_constant_is_in_one_state_dict_and_no_part_of_it_crosses() -> None:
    torch.manual_seed(0)
    segments = cut(RIGHT["MaskOnBothSides"](), ["a", "b"], INPUTS)
    assert [("mask" in m.state_dict(), "rope.table" in m.state_dict()) for m in segments] == [
        (False, False), (True, True), (False, False),
    ]  # fmt: skip
    assert [tuple(x.shape) for x in leaves(segments.a(INPUTS))] == [(5, 16)]


def test_a_test_that_tracing_took_as_given_is_done_at_each_forward() -> None:
    segments = cut(model_of(checked), ["a", "b"], torch.ones(3, 4))
    assert segments.a(torch.ones(2, 4))
    with pytest.raises(ValueError, match="at most three"):
        segments.b(*segments.a(torch.ones(4, 4)))


def ask_for_a_type(self, x):
    first = self.a(x)
    return self.c(self.b(torch.cat([first] if isinstance(first, torch.Tensor) else first)))


def test_what_is_traced_says_that_it_is_a_tensor() -> None:
    model, inputs = model_of(ask_for_a_type), torch.randn(3, 4)
    segments = cut(model, ["a", "b"], inputs)
    assert torch.equal(forward(segments, inputs)[0], model(inputs))
    assert "isinstance" not in globals()


def of_unknown_size() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.LazyLinear(16), nn.Linear(16, 4))


def with_old_weight_norm() -> nn.Module:
    model = Net()
    with pytest.warns(FutureWarning):
        nn.utils.weight_norm(model.c)
    return model


def test_layers_of_unknown_size_are_refused_by_name() -> None:
    with pytest.raises(SettingsError, match=r"2\.weight has no size yet.*nn\.LazyLinear"):
        registry.build(config.Model(name=f"{__name__}:of_unknown_size"), 0)


def test_torchs_old_weight_norm_trains_as_the_untouched_model() -> None:
    model = registry.build(config.Model(name=f"{__name__}:with_old_weight_norm"), 0)
    assert_trains_as_the_untouched_model(model, ["a", "c"])


class AsksForTheType(nn.Module):
    """As transformers' ViT does, and as models of images from bytes do."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.dtype == torch.uint8:
            x = x / 255
        if x.dtype != self.a.weight.dtype:
            x = x.to(self.a.weight.dtype)
        return self.c(self.b(self.a(x).relu()).relu())


def test_a_test_of_the_inputs_type_is_done_at_each_forward() -> None:
    model, inputs = AsksForTheType(), torch.randn(6, 8)
    segments = cut(model, ["a", "b"], inputs)
    assert torch.equal(forward(segments, inputs)[0], model(inputs))
    for others in (inputs.double(), torch.ones(6, 8, dtype=torch.uint8)):
        assert model(others).shape == (6, 4)
        with pytest.raises(ValueError, match=r"doesn't hold any more: if x\.dtype"):
            forward(segments, others)
        with pytest.raises(CutError) as caught:
            cut(model, ["a", "b"], others)
        assert "\n" not in str(caught.value) and "if x.dtype" in str(caught.value)
