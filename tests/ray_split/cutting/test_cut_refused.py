import copy
import pickle

import pytest
import torch
from torch import nn

from ray_split.cutting.cut import CutError, cut
from ray_split.cutting.own_segments import Chain
from tests.nets import chain, model_of


def refusal(model, cuts, example=None):
    with pytest.raises(CutError) as caught:
        cut(model, cuts, example)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_in_place_write_to_one_of_two_crossing_views_is_refused():
    def aliased(self, x):
        first = self.a(x)
        return self.c(self.b(self.view(first).relu_() + first))

    assert "model.cuts" in refusal(model_of(aliased, view=nn.Identity()), ["view", "b"], torch.randn(9, 4))


def test_tied_weights_across_a_cut_are_refused_by_name():
    model = model_of(chain)
    model.b.weight = model.a.weight
    assert "a.weight and b.weight" in refusal(model, ["a", "b"])


def test_a_layer_used_on_both_sides_of_a_cut_is_refused():
    model = model_of(lambda self, x: self.c(self.b(self.a(self.b(self.a(x))))))
    assert "b.weight would be in both segments A and B" in refusal(model, ["a", "b"])


def test_a_raw_input_never_crosses():
    model = model_of(lambda self, image: self.c(self.b(self.a(image)) + image))
    assert "raw input image" in refusal(model, ["a", "b"])


class CudaAutocast:
    """What torch.autocast("cuda") does where there is a GPU."""

    def __enter__(self):
        torch.set_autocast_enabled("cuda", True)

    def __exit__(self, *_):
        torch.set_autocast_enabled("cuda", False)


BLOCKS = [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16), CudaAutocast]


@pytest.mark.parametrize("block", BLOCKS, ids=["no_grad", "inference_mode", "autocast", "autocast cuda"])
def test_a_block_that_tracing_would_lose_is_refused(block):
    def blocked(self, x):
        with block():
            first = self.a(x)
        return self.c(self.b(first))

    assert "no_grad or autocast" in refusal(model_of(blocked), ["a", "b"])
    inside = model_of(chain, b=model_of(blocked))
    assert cut(inside, ["a", "b"]).b is not None


@pytest.mark.parametrize("hook", ["forward_hook", "forward_pre_hook", "full_backward_hook", "full_backward_pre_hook"])
@pytest.mark.parametrize("place", ["", "b"])
def test_hooks_on_opened_modules_are_refused(hook, place):
    model = model_of(chain, b=nn.Sequential(nn.Linear(4, 4), nn.ReLU()))
    getattr(model.get_submodule(place), f"register_{hook}")(print)
    assert "hooks" in refusal(model, ["a", "b.0"])


def test_hooks_on_whole_layers_stay():
    model, seen = model_of(chain), []
    model.b.register_forward_hook(lambda *_: seen.append("b"))
    cut(model, ["a", "b"], torch.ones(3, 4))
    assert seen


def test_data_dependent_control_flow_in_an_opened_forward_is_refused():
    model = model_of(lambda self, x: self.c(self.b(self.a(x)) if x.sum() > 0 else -x))
    said = refusal(model, ["a", "b"])
    assert "test_cut_refused.py:" in said and ": model = model_of(lambda self, x" in said
    assert "symbolically traced variables" in said
    assert "into a layer of their own, or return rs.Segments(a, b, c) from the model's function" in said


@pytest.mark.parametrize(
    ("cuts", "says"),
    [
        (["a", "nope"], "there is no layer 'nope'. The layers are a, b, c and unused."),
        (["b.wait", "c"], "there is no layer 'b.wait'. The layers are "),
        (["blok", "c"], "Did you mean block"),
        (["", "b"], "there is no layer ''. The layers are "),
        (["a", "unused"], "the model's forward never calls the layer 'unused'. You can cut after a, b or c."),
        (["b", "a"], "a runs before b. Write a,b."),
        (["a", "a"], "a and a end at the same place. Name two layers"),
        (
            ["a", "c"],
            "because it is the last layer. Make the second cut after b, for example a,b.",
        ),
        (["c"], "can't cut after 'c', because it is the last layer. Cut after a or b, for example b."),
        ([], "has 0 layers, but must have one or two. Name one layer"),
        (["a", "b", "c"], "has 3 layers, but must have one or two. Name one layer"),
    ],
)
def test_impossible_cuts_are_refused_with_what_can(cuts, says):
    model = model_of(chain, unused=nn.ReLU()) if "blok" not in cuts else model_of(chain, block=nn.ReLU())
    assert says in refusal(model, cuts)


@pytest.mark.parametrize("always", [True, False])
def test_random_numbers_that_tracing_would_freeze_are_refused(always):
    def noisy(self, x):
        return self.c(self.b(self.a(x) + (torch.randn(4) if always or self.training else 0)))

    refusal(model_of(noisy), ["a", "b"], torch.ones(3, 4))


def count_calls(self, x):
    self.calls += 1
    return self.c(self.b(self.a(x))) * self.calls


@pytest.mark.parametrize("forward", [count_calls, lambda self, x, y: self.c(self.b(self.a(x)))])
def test_a_forward_that_comes_out_different_when_traced_is_refused(forward):
    refusal(model_of(forward, calls=0), ["a", "b"], torch.ones(3, 4))


def test_an_input_that_is_only_rearranged_never_crosses():
    model = nn.Sequential(nn.Flatten(), nn.ReLU(), nn.Linear(64, 4), nn.Linear(4, 2))
    said = "the raw input would cross after "
    assert said in refusal(model, ["0", "2"], torch.randn(3, 1, 8, 8))
    assert said in refusal(model, ["1"], torch.rand(3, 1, 8, 8))

    class Leaking(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            return self.layer(x), x.flip(0)

    assert said in refusal(Chain(Leaking(), nn.Bilinear(4, 4, 2)), ["a"], torch.randn(3, 4))


def test_a_refusal_crosses_processes() -> None:
    error = CutError(["a"], "b")
    for crossed in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert (type(crossed), str(crossed)) == (CutError, str(error))
