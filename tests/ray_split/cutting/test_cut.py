import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ray_split.cutting.cut import cut, merge
from ray_split.messages.message import leaves, tree_map
from ray_split.models.library import lookup
from ray_split.models.small import MLP, DigitsCNN
from ray_split.segments.segment import call
from tests.nets import chain, model_of

resnet18 = lookup("resnet18").build

CASES = [
    (DigitsCNN, (1, 8, 8), ["block1", "hidden"]),
    (DigitsCNN, (1, 8, 8), ["block1.0", "block2.1"]),
    (DigitsCNN, (1, 8, 8), ["block2.0", "hidden.1"]),
    (DigitsCNN, (1, 8, 8), ["block2"]),
    (MLP, (1, 8, 8), ["layers.0", "layers.1"]),
    (MLP, (1, 8, 8), ["layers.1"]),
    (resnet18, (3, 64, 64), ["maxpool", "avgpool"]),
    (resnet18, (3, 64, 64), ["layer1.0.bn1", "layer4.0.conv2"]),
    (resnet18, (3, 64, 64), ["layer2.0.conv1", "layer2.0.downsample.0"]),
    (lambda: resnet18(small_input=True), (3, 16, 16), ["maxpool", "layer4"]),
    (lambda: resnet18(small_input=True), (3, 16, 16), ["layer1.1.relu", "layer3.0.downsample"]),
]
CASE_IDS = [f"{getattr(build, '__name__', 'small')}-{'-'.join(cuts)}" for build, _, cuts in CASES]


def fresh(tree):
    """What arrives behind a border: tensors of its own, with a gradient of their own."""
    return tree_map(
        lambda v: v.detach().clone().requires_grad_(v.is_floating_point()) if torch.is_tensor(v) else v, tree
    )


def forward(segments, inputs):
    """The segments' output, and what arrived at and left each."""
    value, passes = (inputs,), []
    for module in segments.modules().values():
        arrived = fresh(value)
        value = call(module, tree_map(lambda v: v.clone() if torch.is_tensor(v) else v, arrived))
        passes.append((arrived, value))
    return value, passes


def backward(loss, passes):
    loss.backward()
    for (arrived, _), (_, left) in zip(passes[:0:-1], passes[-2::-1], strict=True):
        pairs = zip(leaves(left), leaves(arrived), strict=True)
        pairs = [(o, i.grad) for o, i in pairs if torch.is_tensor(i) and i.grad is not None]
        torch.autograd.backward(*zip(*pairs, strict=True))


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def assert_computes_the_same(model, segments, inputs):
    """In train mode, then in eval mode with the statistics of that."""
    model = copy.deepcopy(model)
    for training in (True, False):
        for module in (model, *segments.modules().values()):
            module.train(training)
        torch.manual_seed(1)
        expected = model(inputs)
        torch.manual_seed(1)
        assert torch.equal(forward(segments, inputs)[0], expected)


@pytest.mark.parametrize(("build", "shape", "cuts"), CASES, ids=CASE_IDS)
@pytest.mark.few(4)
def test_split_training_is_unsplit_training(build, shape, cuts):
    torch.manual_seed(0)
    model, inputs, labels = build(), torch.randn(4, *shape), torch.tensor([1, 2, 3, 4])
    before = copy.deepcopy(model.state_dict())
    segments = cut(model, cuts, inputs)
    assert same(model.state_dict(), before)
    assert merge(*(m.state_dict() for m in segments.modules().values())).keys() == before.keys()
    assert_computes_the_same(model, segments, inputs)

    segments = cut(model.train(), cuts)
    groups = [model.parameters(), *(m.train().parameters() for m in segments.modules().values())]
    optimizers = [torch.optim.SGD(group, lr=0.05, momentum=0.9) for group in groups]
    for _ in range(3):
        F.cross_entropy(model(inputs), labels).backward()
        output, passes = forward(segments, inputs)
        backward(F.cross_entropy(output, labels), passes)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    assert not same(model.state_dict(), before)
    assert same(merge(*(m.state_dict() for m in segments.modules().values())), model.state_dict())


@pytest.mark.parametrize("training", [True, False])
def test_the_model_stays_as_it_was_and_shares_nothing(training):
    model = DigitsCNN().train(training)
    draws = torch.random.get_rng_state()
    segments = cut(model, ["block1", "hidden"], torch.zeros(2, 1, 8, 8))
    assert torch.equal(torch.random.get_rng_state(), draws)
    assert all(module.training == training for module in model.modules())
    own = {p.data_ptr() for p in model.parameters()}
    assert not own & {p.data_ptr() for m in segments.modules().values() for p in m.parameters()}


@pytest.mark.parametrize("example", [None, torch.ones(2, 4)])
def test_every_module_of_a_new_segment_is_in_train_mode(example):
    segments = cut(model_of(chain, b=nn.Sequential(nn.BatchNorm1d(4))), ["a", "b"], example)
    assert all(m.training for segment in segments.modules().values() for m in segment.modules())


def test_several_tensors_cross_inside_a_block():
    segments = cut(resnet18(small_input=True), ["layer1.0.conv1", "layer4.0.downsample"])
    activation = segments.a(torch.randn(2, 3, 8, 8))
    assert [value.shape for value in activation] == [(2, 64, 8, 8)] * 2
    assert len(segments.b(*activation)) == 2


def test_a_skip_crosses_both_cuts():
    def skip(self, x):
        first = self.a(x)
        return self.c(self.b.inner(first)) + first

    model = model_of(skip, b=model_of(lambda self, x: x, inner=nn.Linear(4, 4)))
    assert_computes_the_same(model, cut(model, ["a", "b.inner"], torch.ones(3, 4)), torch.randn(3, 4))


def test_a_nested_tuple_crosses():
    def attend(self, x):
        first = self.a(x)
        attended, weights = self.b(first, first, first)
        return self.c(attended + first) * weights.sum()

    model = model_of(attend, b=nn.MultiheadAttention(4, 2, batch_first=True))
    assert_computes_the_same(model, cut(model, ["a", "b"]), torch.randn(2, 3, 4))


def test_functional_dropout_follows_the_mode():
    model = model_of(lambda self, x: self.c(self.b(F.dropout(self.a(x), 0.5, self.training))))
    segments = cut(model, ["a", "b"], torch.ones(3, 4))
    assert_computes_the_same(model, segments, torch.randn(3, 4))


def test_what_crosses_may_differ_between_the_modes():
    def two_heads(self, x):
        first = self.a(x)
        return self.c(self.b(first)) + (self.extra(first) if self.training else 0)

    model = model_of(two_heads, extra=nn.Linear(4, 4))
    segments = cut(model, ["a", "b"])
    assert_computes_the_same(model, segments, torch.randn(3, 4))
    assert [len(segments.b.train(t)(*segments.a.train(t)(torch.ones(2, 4)))) for t in (True, False)] == [2, 1]


@pytest.mark.parametrize("sized", ["input", "activation"])
def test_sizes_cross_as_integers(sized):
    def reshape(self, x):
        first = self.a(x)
        rows = (x if sized == "input" else first).size(0)
        return self.c(self.b(first).view(rows, -1)).reshape(rows, 2, 2)

    model = model_of(reshape)
    segments = cut(model, ["a", "b"], torch.ones(3, 4))
    activation = segments.a(torch.ones(5, 4))
    for crossing in (activation, segments.b(*activation)):
        assert [value for value in crossing if not torch.is_tensor(value)] == [5]
        assert [value.shape for value in crossing if torch.is_tensor(value)] == [(5, 4)]
    assert_computes_the_same(model, segments, torch.randn(7, 4))


def test_an_in_place_op_may_come_first():
    model = model_of(lambda self, x: self.c(self.b(self.a(x))), b=nn.Sequential(nn.ReLU(inplace=True)))
    assert_computes_the_same(model, cut(model, ["a", "b.0"], torch.ones(3, 4)), torch.randn(3, 4))


def test_the_last_call_of_a_layer_is_the_cut():
    model = model_of(lambda self, x: self.c(self.b(self.r(self.a(self.r(x))))), r=nn.ReLU())
    segments = cut(model, ["r", "b"], torch.ones(3, 4))
    assert list(segments.a.state_dict()) == ["a.weight", "a.bias"]
    assert_computes_the_same(model, segments, torch.randn(3, 4))


def test_tied_weights_inside_a_segment_stay_tied():
    model = model_of(lambda self, x: self.c(self.d(self.b(self.a(x)))), d=nn.Linear(4, 4))
    model.d.weight = model.b.weight
    segments = cut(model, ["a", "d"], torch.ones(3, 4))
    assert segments.b.d.weight is segments.b.b.weight
    assert {"b.weight", "d.weight"} <= segments.b.state_dict().keys()


def test_default_arguments_have_their_defaults():
    def masked(self, x, mask=None, scale=2.0, mode="sum", *, shape=(-1, 4)):
        first = self.a(x) if mask is None else mask
        return self.c(self.b(first) * scale).view(*shape) if mode == "sum" else x

    model = model_of(masked)
    assert_computes_the_same(model, cut(model, ["a", "b"], torch.ones(3, 4)), torch.randn(3, 4))


def test_a_forward_may_take_arguments_that_nobody_gives():
    model = model_of(lambda self, x, *args, **kwargs: self.c(self.b(self.a(x))))
    assert_computes_the_same(model, cut(model, ["a", "b"], torch.ones(3, 4)), torch.randn(3, 4))


def test_parameters_buffers_and_unused_ones_are_all_there():
    def used(self, x):
        return self.c(self.b(self.a(x) * self.scale) + self.shift) + self.plain

    model = model_of(used, scale=nn.Parameter(torch.rand(4)), plain=torch.ones(4), left=nn.BatchNorm1d(4))
    model.register_buffer("shift", torch.rand(4), persistent=False)
    model.register_buffer("idle", torch.rand(4))
    segments = cut(model, ["a", "b"], torch.ones(3, 4))
    assert_computes_the_same(model, segments, torch.randn(3, 4))
    assert same(merge(*(m.state_dict() for m in segments.modules().values())), model.state_dict())
    assert {"scale", "idle", "left.running_mean"} <= segments.b.state_dict().keys()
    assert "shift" in dict(segments.c.named_buffers())


def test_a_layer_may_have_any_name():
    model = model_of(lambda self, x: self.c(self.programs(self.a(x))), programs=nn.Linear(4, 4))
    assert_computes_the_same(model, cut(model, ["a", "programs"], torch.ones(3, 4)), torch.randn(3, 4))


@pytest.mark.parametrize("wrap", [lambda y: {"scores": y}, lambda y: (y, [y])], ids=["dict", "tuple"])
def test_a_model_may_return_a_structure(wrap):
    model = model_of(lambda self, x: wrap(self.c(self.b(self.a(x)))))
    segments = cut(model, ["a", "b"], torch.ones(3, 4))
    output, _ = forward(segments, torch.ones(3, 4))
    expected = leaves(model(torch.ones(3, 4)))
    assert all(torch.equal(one, other) for one, other in zip(leaves(output), expected, strict=True))


def test_control_flow_inside_a_layer_is_kept():
    model = model_of(chain, b=model_of(lambda self, x: self.b(x) if x.sum() > 0 else -x))
    segments = cut(model, ["a", "b"], torch.ones(3, 4))
    for inputs in (torch.full((3, 4), 9.0), torch.full((3, 4), -9.0)):
        assert_computes_the_same(model, segments, inputs)


def functional(self, x):
    first = F.gelu(self.a(x))
    pooled = F.max_pool1d(first[:, None], 1)[:, 0] + torch.cat([first, first], 1).chunk(2, 1)[0]
    attended = F.scaled_dot_product_attention(pooled[:, None], first[:, None], first[:, None]).squeeze(1)
    return self.c(torch.einsum("ni,ni->ni", self.b(attended), pooled).view(x.shape[0], -1))


@pytest.mark.parametrize("cuts", [["layer1.0.bn1", "layer4.0.conv2"], ["a", "b"]])
def test_pickled_segments_compute_the_same(cuts):
    model = model_of(functional) if cuts == ["a", "b"] else resnet18(small_input=True)
    inputs = torch.randn(2, 4) if cuts == ["a", "b"] else torch.randn(2, 3, 16, 16)
    segments = cut(model, cuts, inputs)
    assert_computes_the_same(model, type(segments)(*pickle.loads(pickle.dumps(tuple(segments)))), inputs)


def test_merge_refuses_a_key_in_two_segments():
    with pytest.raises(ValueError, match=r"a\.weight"):
        merge({"a.weight": 1, "b": 2}, {"a.weight": 1})


def test_after_a_cut_other_models_are_traced_as_before():
    cut(lookup("vit_b_16").build(num_classes=10, image_size=32), ["encoder.layers.encoder_layer_2.mlp.0"])
    traced = torch.fx.symbolic_trace(model_of(chain))
    assert [node.target for node in traced.graph.nodes if node.op == "call_module"] == ["a", "b", "c"]
    assert not any(node.meta.get("is_wrapped") for node in traced.graph.nodes)


@pytest.mark.thorough
def test_segments_of_functions_of_a_script_pickle(tmp_path):
    """A model whose class and functions are in __main__."""
    import subprocess
    import sys

    script = tmp_path / "script.py"
    script.write_text(
        "import pickle, torch\nfrom torch import nn\nfrom ray_split.cutting.cut import cut\n"
        "def double(x):\n    return 2 * x\n"
        "class Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.a, self.b = nn.Linear(2, 2), nn.Linear(2, 2)\n"
        "    def forward(self, x):\n        return self.b(double(self.a(x)))\n"
        "parts = pickle.loads(pickle.dumps(cut(Net(), ['a'], torch.ones(1, 2))))\n"
        "print(type(parts.b(*parts.a(torch.ones(1, 2)))).__name__)\n"
    )
    assert subprocess.run([sys.executable, script], capture_output=True, text=True, check=True).stdout == "Tensor\n"
