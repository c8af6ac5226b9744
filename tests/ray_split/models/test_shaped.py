from __future__ import annotations

import pytest
import torch

from ray_split import config
from ray_split.errors import SettingsError
from ray_split.models import registry
from ray_split.models.shaped import CNN
from ray_split.models.small import MLP


def built(name: str, shape: list[int] | None, classes: int = 10, **kwargs: object) -> torch.nn.Module:
    return registry.build(config.Model(name=name, num_classes=classes, input_shape=shape, kwargs=kwargs), seed=0)


def test_cnn_has_as_many_parameters_as_fedavgs_paper_says() -> None:
    assert sum(weight.numel() for weight in CNN(10, (1, 28, 28)).parameters()) == 1_663_370


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        *[("cnn", shape) for shape in ([1, 28, 28], [3, 32, 32], [4, 17, 30], [1, 4, 5])],
        *[("cnn1d", shape) for shape in ([6, 100], [1, 4], [12, 29])],
        *[("lstm", shape) for shape in ([12, 29], [1, 1])],
        *[("mlp", shape) for shape in ([7], [2, 3], [1, 8, 8])],
    ],
)
def test_sizes_are_those_of_the_data(name: str, shape: list[int]) -> None:
    assert built(name, shape, classes=5)(torch.randn(2, *shape)).shape == (2, 5)


def test_an_lstms_classes_are_of_the_mean_over_steps() -> None:
    model, series = built("lstm", [3, 6]), torch.randn(2, 3, 6)
    embedded = [model.embedding.norm(model.embedding.linear(series[:, :, step])) for step in range(6)]
    outputs, _ = model.recurrent.lstm(torch.stack(embedded, 1))
    assert torch.allclose(model(series), model.head(outputs.sum(1) / 6), atol=1e-6)


def test_an_mlp_without_a_shape_takes_64_values_and_what_is_told_wins() -> None:
    assert MLP().layers[0].in_features == 64
    assert MLP(inputs=9, input_shape=(2, 3)).layers[0].in_features == 9


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("cnn", [12, 29], "cnn takes samples (channels, height, width), of 4 or more, but these are (12, 29)"),
        ("cnn", [1, 3, 9], "cnn takes samples (channels, height, width), of 4 or more, but these are (1, 3, 9)"),
        ("lstm", [64], "lstm takes samples (channels, length), but these are (64,)"),
        (
            "cnn1d",
            None,
            "model.input_shape: is not set, and cnn1d needs it where there is no data. Set it to the shape of a sample",
        ),
    ],
)
def test_other_shapes_are_refused(name: str, shape: list[int] | None, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        built(name, shape)
    assert message in str(caught.value)
