"""Real architectures, cut early, in the middle of a block and late, train as the unsplit model does."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from ray_split import config
from ray_split.cutting.cut import cut, merge
from ray_split.errors import SettingsError
from ray_split.messages.message import num_bytes, send
from ray_split.models import library as zoo
from ray_split.models import registry
from ray_split.segments.segment import Segment
from ray_split.tasks.task import Task
from tests.tiers import mostly_thorough, thorough

OPTIMIZER = config.Optimizer(lr=0.01, momentum=0.9)
STEPS = 3
LOSS = "cross_entropy"
Data = list[tuple[torch.Tensor, torch.Tensor]]
SEEDS = [(10, 11, 12), (20, 21, 22), (30, 31, 32)]

# name, kwargs: the side of the images, the batch, and three pairs of cuts: early, inside blocks, late
ARCHITECTURES: dict[str, tuple[int, int, list[str]]] = {
    "resnet50": (64, 3, [
        "conv1,layer1.0.conv2",
        "layer2.1.conv2,layer3.2.relu",
        "layer4.0.downsample,avgpool",
    ]),
    "resnet152": (32, 3, [
        "maxpool,layer2.3.bn1",
        "layer3.10.conv2,layer3.20.conv1",
        "layer4.1.conv3,avgpool",
    ]),
    "densenet121": (64, 3, [
        "features.pool0,features.transition1",
        "features.denseblock2.denselayer5.conv1,features.denseblock3.denselayer7.norm2",
        "features.denseblock4.denselayer10.relu1,features.norm5",
    ]),
    "densenet201": (64, 2, [
        "features.transition1,features.denseblock4",
        "features.denseblock2.denselayer5.conv1,features.denseblock3.denselayer7.norm2",
        "features.denseblock4.denselayer10.relu1,features.norm5",
    ]),
    "inception_v3": (299, 2, [
        "Conv2d_2a_3x3,Mixed_5b",
        "Mixed_5c.branch3x3dbl_2,Mixed_6b.branch7x7_1.conv",
        "maxpool2,Mixed_7c",
    ]),
    "inception_v3 without its auxiliary head": (80, 2, [
        "Conv2d_2a_3x3,Mixed_5b",
        "Mixed_5c.branch3x3dbl_2,Mixed_6b.branch7x7_1.conv",
        "Mixed_6e,avgpool",
    ]),
    "vgg16": (32, 2, [
        "features.1,features.9",
        "features.11,classifier.0",
        "features.20,classifier.4",
    ]),
    "mobilenet_v3_small": (64, 3, [
        "features.0,features.3",
        "features.4.block.1,features.8.block.2",
        "features.11.block.3,avgpool",
    ]),
    "vit_b_16": (64, 2, [
        "conv_proj,encoder.layers.encoder_layer_1",
        "encoder.layers.encoder_layer_2.self_attention,encoder.layers.encoder_layer_7.mlp.0",
        "encoder.layers.encoder_layer_10,encoder.ln",
    ]),
    "inception_resnet_v2": (96, 2, [
        "conv2d_2b,maxpool_5a",
        "repeat.3.branch1.0,repeat_1.5.branch1.2.conv",
        "mixed_7a,conv2d_7b",
    ]),
}  # fmt: skip


TRANSFORMER = [
    "embedding,blocks.0",
    "blocks.0.attention.project,blocks.2.norm2",
    "blocks.1,norm",
]


def settings_of(name: str, size: int) -> config.Model:
    name, _, without = name.partition(" ")
    kwargs: dict[str, Any] = {"aux_logits": False} if without else {}
    if name == "vit_b_16":
        kwargs = {"image_size": size}
    return config.Model(name=name, num_classes=10, kwargs=kwargs)


def batches(size: int, batch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    draw = torch.Generator().manual_seed(5)
    for _ in range(STEPS):
        yield torch.randn(batch, 3, size, size, generator=draw), torch.randint(0, 10, (batch,), generator=draw)


def token_batches() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    draw = torch.Generator().manual_seed(5)
    for _ in range(STEPS):
        tokens = torch.randint(0, 16, (4, 13), generator=draw)
        yield tokens[:, :-1], tokens[:, 1:]


def train_split(model: nn.Module, cuts: list[str], data: Data, loss: str = LOSS) -> dict[str, Any]:
    """The merged state dict after training in segments, with everything that crosses as messages."""
    parts = [pickle.loads(pickle.dumps(module)) for module in cut(model, cuts).modules().values()]
    segments, task = [Segment(part, OPTIMIZER) for part in parts], Task(config.Task(loss=loss))
    for (inputs, labels), seeds in zip(data, SEEDS, strict=True):
        crossing: Any = inputs.numpy()
        for segment, seed in zip(segments, seeds, strict=True):
            outputs = segment.forward(crossing, seed, differentiable=segment is not segments[0])
            crossing = send(outputs)
        gradient = segments[-1].backward_loss(task.loss(outputs, labels))
        for segment in segments[-2::-1]:
            gradient = segment.backward(gradient)
        for segment in segments:
            segment.step()
    return merge(*(segment.module.state_dict() for segment in segments))


def train_unsplit(model: nn.Module, cuts: list[str], data: Data, loss: str = LOSS) -> dict[str, Any]:
    model, now = copy.deepcopy(model).train(), [0]
    for place, name in enumerate(cuts, start=1):  # the segments' seeds, where they begin
        model.get_submodule(name).register_forward_hook(
            lambda *_, place=place: torch.default_generator.manual_seed(SEEDS[now[0]][place])
            and None
        )  # fmt: skip
    optimizer, task = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9), Task(config.Task(loss=loss))
    for step, (inputs, labels) in enumerate(data):
        now[0] = step
        torch.default_generator.manual_seed(SEEDS[step][0])
        optimizer.zero_grad()
        task.loss(model(inputs), labels).backward()
        optimizer.step()
    return model.state_dict()


def draws(model: nn.Module) -> bool:
    return any(isinstance(module, nn.Dropout) and module.p > 0 for module in model.modules())


@pytest.mark.parametrize("name", mostly_thorough(ARCHITECTURES, "mobilenet_v3_small"))
@pytest.mark.few(thorough=1)
def test_split_training_is_unsplit_training(name: str) -> None:
    torch.set_num_threads(1)
    size, batch, pairs = ARCHITECTURES[name]
    model, data = registry.build(settings_of(name, size), seed=0), list(batches(size, batch))
    first, expected = copy.deepcopy(model.state_dict()), {}
    for pair in pairs:
        cuts = pair.split(",")
        split = train_split(model, cuts, data)
        if not expected or draws(model):  # where it is seeded depends on the cuts
            expected = train_unsplit(model, cuts, data)
        assert split.keys() == expected.keys()
        different = {key for key in expected if not torch.equal(split[key], expected[key])}
        assert not different, pair
        assert any(not torch.equal(first[key], split[key]) for key in first)


@pytest.mark.parametrize("pair", TRANSFORMER)
def test_a_decoder_only_transformer_with_integer_inputs_too(pair: str) -> None:
    torch.set_num_threads(1)
    model, data, cuts = (
        registry.build(config.Model(name="transformer", num_classes=16), seed=0),
        list(token_batches()),
        pair.split(","),
    )
    split = train_split(model, cuts, data, "token_cross_entropy")
    expected = train_unsplit(model, cuts, data, "token_cross_entropy")
    assert split.keys() == expected.keys()
    assert [key for key in expected if not torch.equal(split[key], expected[key])] == []


def test_the_auxiliary_head_is_in_b_or_c_and_crosses_in_train_mode_alone() -> None:
    model = registry.build(settings_of("inception_v3", 299), seed=0)
    segments = cut(model, ["maxpool2", "Mixed_7c"])
    assert any(key.startswith("AuxLogits") for key in segments.b.state_dict())
    activation = torch.randn(2, 192, 35, 35)
    with torch.no_grad():
        assert [tuple(x.shape) for x in segments.b.train()(activation)] == [(2, 10), (2, 2048, 8, 8)]
        assert [tuple(x.shape) for x in segments.b.eval()(activation)] == [(2, 2048, 8, 8)]


# kilobytes per sample at full size, from the tables of the architectures' papers: activation and hidden
FULL_SIZE = {
    "resnet50": (224, ("maxpool", "avgpool"), (803, 8)),
    "densenet121": (224, ("features.transition1", "features.denseblock4"), (401, 201)),
    "inception_v3": (299, ("maxpool2", "Mixed_7c"), (941, 524)),
    "inception_resnet_v2": (299, ("maxpool_5a", "conv2d_7b"), (941, 393)),
    "vgg16": (224, ("features.9", "features.30"), (1606, 100)),
    "mobilenet_v3_small": (224, ("features.1", "features.12"), (201, 113)),
    "vit_b_16": (224, ("encoder.layers.encoder_layer_0", "encoder.layers.encoder_layer_10"), (605, 605)),
}


@pytest.mark.few(3)
@pytest.mark.parametrize("name", FULL_SIZE)
def test_each_family_has_cuts_that_suit_it(name: str) -> None:
    size, cuts, kilobytes = FULL_SIZE[name]
    with torch.device("meta"):
        model = zoo.lookup(name).build(num_classes=1000)  # type: ignore[union-attr]
    assert zoo.cuts_of(model) == cuts
    segments = cut(model, cuts)
    activation = segments.a.eval()(torch.empty(1, 3, size, size, device="meta"))
    hidden = segments.b.eval()(*activation)
    for crossing, expected in zip((activation, hidden), kilobytes, strict=True):
        assert round(sum(x.numel() * x.element_size() for x in crossing) / 1000) == expected


@pytest.mark.parametrize(
    "name", ["resnet50", "vgg16", *thorough("densenet121", "mobilenet_v3_small", "resnext50_32x4d")]
)
@pytest.mark.few(1)
def test_a_stem_for_small_images_keeps_their_size(name: str) -> None:
    model = registry.build(config.Model(name=name, num_classes=7, kwargs={"small_input": True}), seed=0).eval()
    plain = registry.build(config.Model(name=name, num_classes=7), seed=0).eval()
    cuts = zoo.cuts_of(model)
    assert cuts is not None
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert model(images).shape == (2, 7)
        if name != "vgg16":  # whose first layers are for any size
            sizes = [num_bytes(send(cut(each, cuts).a.eval()(images))) for each in (model, plain)]
            assert sizes[0] >= 4 * sizes[1]
    assert sum(p.numel() for p in model.parameters()) <= sum(p.numel() for p in plain.parameters())


def test_a_name_is_torchvisions_before_timms_unless_it_says_whose() -> None:
    found = [zoo.lookup(name) for name in ("resnet18", "timm/resnet18", "torchvision/resnet18", "inception_resnet_v2")]
    assert [each and each.library for each in found] == ["torchvision", "timm", "torchvision", "timm"]
    assert zoo.lookup("elsewhere/resnet18") is None
    assert zoo.lookup("torchvision/inception_resnet_v2") is None


def refusal(**fields: Any) -> str:
    settings = config.Model(**fields)
    with pytest.raises(SettingsError) as caught:
        registry.cuts_of(settings, registry.build(settings, seed=0))
    return str(caught.value)


def test_what_is_not_there_is_refused_with_what_is() -> None:
    assert "Did you mean resnet50" in refusal(name="resnet500")
    assert "You can also name a torchvision or timm model, or your own function as package.module:function" in refusal(
        name="nothing of the kind"
    )
    assert "small_input" in refusal(name="alexnet", kwargs={"small_input": True})
    assert "has no form for small inputs, which only torchvision's resnet, resnext" in refusal(
        name="alexnet", kwargs={"small_input": True}
    )
    assert "model.cuts: is not set" in refusal(name="squeezenet1_0x") or "Did you mean" in refusal(
        name="squeezenet1_0x"
    )


def test_trained_weights_of_inception_want_its_input_transformed() -> None:
    for weights, transformed in ((None, False), ("IMAGENET1K_V1", True), ("file.pt", False)):
        settings = config.Model(name="inception_v3", num_classes=3, weights=weights, kwargs={"aux_logits": False})
        assert registry.build(settings, seed=0).transform_input is transformed


def test_a_tag_of_trained_weights_in_a_name_is_told_where_it_goes() -> None:
    assert "Set model.name to resnet50 and model.weights to a1_in1k" in refusal(name="resnet50.a1_in1k")
    assert "Set model.name to timm/resnet18 and model.weights to a1_in1k" in refusal(name="timm/resnet18.a1_in1k")


def test_a_family_of_timm_has_no_small_stem() -> None:
    assert "has no form for small inputs, which only torchvision's resnet" in refusal(
        name="resnet18d", kwargs={"small_input": True}
    )


def test_no_model_downloads_a_backbone() -> None:
    model = registry.build(config.Model(name="lraspp_mobilenet_v3_large", num_classes=3), seed=0)
    assert model.eval()(torch.randn(1, 3, 32, 32))["out"].shape == (1, 3, 32, 32)
