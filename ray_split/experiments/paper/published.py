"""What the paper behind this project measured, and where its networks are assumed to be cut: it does not say.

SplitEasy (Palanisamy, Khimani, Moti, Chatzopoulos 2021): a phone that trains with TensorFlow.js, a server with a GPU,
JSON text between them, one image a step.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Times(NamedTuple):
    """A row of Table 1: seconds an image."""

    overall_double: float
    overall_single: float
    communication_double: float
    communication_single: float
    alone: float | None  # on the phone, unsplit; None: does not fit


class Stem(NamedTuple):
    """The layers of a family's beginning after which it may be cut, and which of them each rule takes."""

    layers: tuple[str, ...]
    rules: dict[str, int]
    last: str  # the second cut: the embedding, all that the paper says of it


class Network(NamedTuple):
    """An architecture of Table 1."""

    model: str  # of ray_split.models.library
    size: int  # of an image
    stem: Stem
    paper: Times
    kwargs: dict[str, Any] = {}  # noqa: RUF012


def _rules(first: int, pixels: int, pooling: int, end: int) -> dict[str, int]:
    return {"first_convolution": first, "7x7_pixels": pixels, "first_pooling": pooling, "end_of_stem": end}


RULES = {
    "first_convolution": "after the first convolution, with its BatchNorm and ReLU",
    "7x7_pixels": "after the first layer whose numbers each depend on 7x7 pixels: ResNet's and DenseNet's convolution "
    "of 7x7, or the two of 3x3 that stand for it in an Inception",
    "first_pooling": "after the first pooling",
    "end_of_stem": "after the last pooling before the first block",
}

_RESNET = Stem(("relu", "maxpool", "layer1.0"), _rules(0, 0, 1, 1), "avgpool")
_DENSENET = Stem(("features.norm0", "features.pool0", "features.denseblock1"), _rules(0, 0, 1, 1), "global_pool")
_INCEPTION = ("1a_3x3", "2a_3x3", "2b_3x3", "maxpool1", "3b_1x1", "4a_3x3", "maxpool2", "Mixed_5b")
_INCEPTION_V3 = Stem(
    tuple(f"Conv2d_{layer}" if layer[0].isdigit() else layer for layer in _INCEPTION), _rules(0, 1, 3, 6), "avgpool"
)
_INCEPTION_RESNET = Stem(
    ("conv2d_1a", "conv2d_2a", "conv2d_2b", "maxpool_3a", "conv2d_3b", "conv2d_4a", "maxpool_5a", "mixed_5b"),
    _rules(0, 1, 3, 6),
    "global_pool",
)
LAYERS_OF_TABLE_2 = 7  # of an Inception's stem

FITTED = "ResNet50"  # the row that the prediction may see
NETWORKS = {
    FITTED: Network("resnet50", 224, _RESNET, Times(2.55, 1.74, 1.60, 1.07, 9.6)),
    "ResNet152": Network("resnet152", 224, _RESNET, Times(2.72, 1.95, 1.93, 1.03, None)),
    "DenseNet121": Network("timm/densenet121", 224, _DENSENET, Times(2.59, 1.72, 1.88, 0.99, 11.5)),
    "DenseNet201": Network("timm/densenet201", 224, _DENSENET, Times(2.67, 1.82, 1.87, 0.93, None)),
    "InceptionV3": Network(
        "inception_v3",
        299,
        _INCEPTION_V3,
        Times(2.61, 2.10, 1.63, 1.21, None),
        # Without the second head: it can't train on one image (its BatchNorm), and Keras's Inception has none.
        {"aux_logits": False, "init_weights": False},
    ),
    "InceptionResNetV2": Network(
        "timm/inception_resnet_v2", 299, _INCEPTION_RESNET, Times(2.38, 2.30, 1.60, 1.19, None)
    ),
}
