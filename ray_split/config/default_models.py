"""Which model suits which data set, and which loss: what they are where only `data.name` is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray_split.config.user_code.by_value import ByValue

DEFAULT_MODELS = {
    "digits": "digits_cnn",
    "mnist_5k": "cnn",
    "cifar10": "cnn",
    "cifar100": "cnn",
    "mnist": "cnn",
    "fashion_mnist": "cnn",
    "image_folder": "resnet18",
    "fake_images": "resnet18",
    "japanese_vowels": "lstm",
    "basic_motions": "cnn1d",
    "table": "mlp",
    "synthetic_regression": "mlp",
    "synthetic_segmentation": "unet",
    "synthetic_tokens": "transformer",
    "text": "transformer",
    "shakespeare": "transformer",
}


def with_default_model(values: dict[str, Any]) -> dict[str, Any]:
    """The sections of the settings, with the model that suits the data where none is named."""
    data, model = values.get("data"), values.get("model", {})
    name = DEFAULT_MODELS.get(_kind(_named(data)))
    if name is None or not isinstance(model, Mapping) or "name" in model:
        return values
    return {**values, "model": {**model, "name": name}}


TEXTS = ("text", "shakespeare")
LOSSES_OF_DATA = dict.fromkeys(TEXTS, "token_cross_entropy")


def with_default_loss(values: dict[str, Any]) -> dict[str, Any]:
    """The sections of the settings, with the loss that suits the data where none is named."""
    loss, task = LOSSES_OF_DATA.get(_kind(_named(values.get("data")))), values.get("task", {})
    if loss is None or not isinstance(task, Mapping) or "loss" in task:
        return values
    return {**values, "task": {**task, "loss": loss}}


def _kind(data: Any) -> str:
    """The name of a data set, as far as one is told; a table that is given itself is a table."""
    if isinstance(data, ByValue):
        data = data.value
    if isinstance(data, str):
        return data
    first = data[0] if isinstance(data, tuple) and len(data) == 2 and isinstance(data[1], str) else data
    return "table" if type(first).__name__ in ("DataFrame", "Table") else ""


def _named(data: Any) -> Any:
    return data.get("name") if isinstance(data, Mapping) else getattr(data, "name", None)
