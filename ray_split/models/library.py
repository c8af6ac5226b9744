"""Any model of torchvision or timm by its name, with cuts that suit its family, and stems for small images.

torchvision and timm are imported only when one of their models is asked for: they cost a process 0.1 GB and seconds.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from ray_split.errors import SettingsError, listed

LIBRARIES = ("torchvision", "timm")


class Named(NamedTuple):
    """A model of a library: `library/name`, the function that builds it."""

    library: str
    name: str
    build: Callable[..., nn.Module]


def lookup(name: str) -> Named | None:
    """The model 'name', of torchvision if it has one and else of timm; or of the one that 'library/name' says."""
    library, slash, short = name.rpartition("/")
    if slash and library not in LIBRARIES:
        return None
    for each in (library,) if slash else LIBRARIES:
        if short in known(each):
            return Named(each, short, _builder(each, short))
    return None


def known(library: str) -> list[str]:
    """The names of a library's models."""
    if library == "torchvision":
        return list(importlib.import_module("torchvision.models").list_models())
    return list(importlib.import_module("timm").list_models())


def _builder(library: str, name: str) -> Callable[..., nn.Module]:
    def build(num_classes: int | None = None, small_input: bool = False, **kwargs: Any) -> nn.Module:
        if num_classes is not None:
            kwargs["num_classes"] = num_classes
        if name in ("inception_v3", "googlenet"):
            kwargs.setdefault("init_weights", True)  # torchvision warns otherwise
        model = _make(library, name, kwargs)
        return with_small_input(model, name) if small_input else model

    build.__name__ = name
    return build


def _make(library: str, name: str, kwargs: dict[str, Any]) -> nn.Module:
    if library == "torchvision":
        models = importlib.import_module("torchvision.models")
        if "weights_backbone" in inspect.signature(models.get_model_builder(name)).parameters:
            kwargs = {"weights_backbone": None, **kwargs}  # torchvision would download them
        made = models.get_model(name, weights=None, **kwargs)
    else:
        made = importlib.import_module("timm").create_model(name, pretrained=False, **kwargs)
    assert isinstance(made, nn.Module)
    return made


def wanted_by(name: str, weights: str | None) -> dict[str, Any]:
    """What torchvision's trained weights want of a model: those of its Inceptions were trained on other scales."""
    changed = weights is not None and not is_file(weights) and name.rpartition("/")[2] in ("inception_v3", "googlenet")
    return {"transform_input": True} if changed else {}


FILES = (".safetensors", ".pt", ".pth", ".bin")


def is_file(weights: str) -> bool:
    """Whether weights are named as a file."""
    path = Path(weights).expanduser()
    return path.suffix in FILES or path.is_file()


def cuts_of(model: nn.Module) -> tuple[str, str] | None:
    """Two layers that suit the family of a model, early enough and late enough; None for a family not known."""
    layers = dict(model.named_modules())
    for first, last in (
        ("maxpool", "avgpool"),  # ResNet, ResNeXt
        ("features.transition1", "features.denseblock4"),  # DenseNet
        ("maxpool2", "Mixed_7c"),  # Inception v3
        ("maxpool_5a", "conv2d_7b"),  # Inception-ResNet v2
        ("maxpool", "global_pool"),  # timm's ResNets
    ):
        if first in layers and last in layers:
            return first, last
    return _vgg(model) or _stages(model) or _blocks(layers)


def _vgg(model: nn.Module) -> tuple[str, str] | None:
    """After the second and the last pooling."""
    pools = [i for i, m in enumerate(_features(model)) if isinstance(m, nn.MaxPool2d)]
    return (f"features.{pools[1]}", f"features.{pools[-1]}") if len(pools) > 2 else None


def _stages(model: nn.Module) -> tuple[str, str] | None:
    """MobileNet, EfficientNet: after the first stage and the last."""
    count = len(_features(model))
    return ("features.1", f"features.{count - 1}") if count > 3 else None


def _blocks(layers: dict[str, nn.Module]) -> tuple[str, str] | None:
    """Vision transformers: after the first block and the last but one."""
    for prefix in ("encoder.layers.encoder_layer_", "blocks."):
        count = sum(name.removeprefix(prefix).isdigit() for name in layers if name.startswith(prefix))
        if count > 2:
            return f"{prefix}0", f"{prefix}{count - 2}"
    return None


def _features(model: nn.Module) -> nn.Sequential:
    """The numbered layers called `features`, if there are."""
    features = getattr(model, "features", None)
    numbered = isinstance(features, nn.Sequential) and all(name.isdigit() for name, _ in features.named_children())
    return features if isinstance(features, nn.Sequential) and numbered else nn.Sequential()


def with_small_input(model: nn.Module, name: str) -> nn.Module:
    """The stem that the field uses for images of 32x32, as in CIFAR. Raises SettingsError for a family without one.

    ResNet (He et al. 2016, section 4.2) and DenseNet (Huang et al. 2017, section 4): a 3x3 convolution of stride 1 and
    no pooling. VGG: one linear layer after the last pooling. MobileNet: the first convolution has stride 1.
    """
    family = next((change for prefix, change in SMALL.items() if name.startswith(prefix)), None)
    wrong = f"{name} has no form for small inputs, which only torchvision's {listed(SMALL)} have"
    allowed = "Remove small_input, or choose one of those"
    if family is None:
        raise SettingsError("model.kwargs", "small_input", allowed, wrong)
    try:
        family(model)
    except (AttributeError, TypeError, IndexError) as error:
        raise SettingsError("model.kwargs", "small_input", allowed, wrong) from error
    return model


def _small_resnet(model: Any) -> None:
    model.conv1 = _stem(3, model.conv1.out_channels)
    model.maxpool = nn.Identity()


def _small_densenet(model: Any) -> None:
    model.features.conv0 = _stem(3, model.features.conv0.out_channels)
    model.features.pool0 = nn.Identity()


def _small_vgg(model: Any) -> None:
    model.avgpool = nn.Identity()
    model.classifier = nn.Linear(512, model.classifier[-1].out_features)
    nn.init.normal_(model.classifier.weight, 0, 0.01)
    nn.init.zeros_(model.classifier.bias)


def _small_mobilenet(model: Any) -> None:
    model.features[0][0].stride = (1, 1)


def _stem(inputs: int, outputs: int) -> nn.Conv2d:
    convolution = nn.Conv2d(inputs, outputs, 3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return convolution


SMALL: dict[str, Callable[[Any], None]] = {
    "resnet": _small_resnet,
    "resnext": _small_resnet,
    "wide_resnet": _small_resnet,
    "densenet": _small_densenet,
    "vgg": _small_vgg,
    "mobilenet": _small_mobilenet,
}
