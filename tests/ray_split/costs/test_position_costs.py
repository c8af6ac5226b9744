"""What positions cost: shapes of the paper, FLOPs and sizes worked out by hand."""

from __future__ import annotations

import time

import numpy as np
import pytest
from torch import nn

from ray_split import config
from ray_split.costs.position_costs import scan, scan_of
from ray_split.errors import SettingsError
from ray_split.models.small import DigitsCNN

TABLE_2 = [  # Palanisamy et al. 2021: the first seven layers of InceptionResNetV2, rows x columns x filters
    ("conv2d_1a", (149, 149, 32)), ("conv2d_2a", (147, 147, 32)), ("conv2d_2b", (147, 147, 64)),
    ("maxpool_3a", (73, 73, 64)), ("conv2d_3b", (73, 73, 80)), ("conv2d_4a", (71, 71, 192)),
    ("maxpool_5a", (35, 35, 192)),
]  # fmt: skip


@pytest.mark.thorough
def test_the_first_seven_layers_of_inception_resnet_v2_are_those_of_the_paper() -> None:
    model = config.Model(name="inception_resnet_v2", num_classes=1000)
    scanned = scan_of(model, (3, 299, 299), batch=1)
    layers = {name for name, _ in TABLE_2}
    found = [(p.name, scanned.shapes(i)) for i, p in enumerate(scanned.positions) if p.name in layers]
    assert found == [(name, ((1, filters, rows, columns),)) for name, (rows, columns, filters) in TABLE_2]
    bytes_forward = scanned.at(scanned.costs.crossing)[[p.name == "maxpool_5a" for p in scanned.positions]]
    assert bytes_forward.tolist() == [35 * 35 * 192 * 4]


@pytest.mark.thorough
def test_every_position_of_resnet152_takes_seconds() -> None:
    model, start = config.Model(name="resnet152", num_classes=1000), time.process_time()
    scanned = scan_of(model, (3, 224, 224), batch=1)
    seconds = time.process_time() - start
    assert len(scanned.positions) == 363
    assert scanned.total_parameters == 60_192_808
    forward = scanned.costs.forward.sum()
    assert forward == pytest.approx(2 * 11.5e9, rel=0.01)  # torchvision tells 11.51 billion multiply-adds
    first = forward_of(scanned, "conv1")
    assert scanned.costs.backward.sum() == 2 * forward - first
    assert seconds < 60  # of computing, whoever else does; 3.5 on a machine of today


def test_a_grouped_convolution_is_counted_once_for_all_its_groups() -> None:
    model = nn.Sequential(nn.Conv2d(4, 8, 1), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Flatten(), nn.Linear(288, 2))
    scanned = scan(model, (4, 6, 6), batch=2)
    assert scanned.costs.forward.tolist()[1:3] == [2 * 2 * 36 * 8 * 4, 2 * 2 * 36 * 8 * 9]
    assert scanned.costs.backward.tolist()[1:3] == [2 * 2 * 36 * 8 * 4, 2 * (2 * 2 * 36 * 8 * 9)]


def forward_of(scanned, layer: str) -> float:
    place = next(p.place for p in scanned.positions if layer in p.names)
    return scanned.costs.forward[place]


def test_flops_of_a_convolution_are_counted_forward_and_backward() -> None:
    scanned = scan(DigitsCNN(), (1, 8, 8), batch=3)
    first, second = 3 * 2 * 64 * 16 * 9, 3 * 2 * 64 * 32 * 16 * 9
    linear = 3 * 2 * 512 * 64
    # The data needs no gradient: the first layer's backward is that of its weights alone.
    assert scanned.flops[:3].tolist() == [2 * first, 2 * first, 2 * first + 3 * second]
    assert scanned.flops[6] == 2 * first + 3 * second + 3 * linear
    assert scanned.total_flops == scanned.flops[6] + 3 * 3 * 2 * 64 * 10


def test_weights_are_counted_where_they_are_used() -> None:
    scanned = scan(DigitsCNN(), (1, 8, 8), batch=3)
    blocks = [16 * 9 + 16, 32 * 16 * 9 + 32, 512 * 64 + 64]
    assert scanned.parameters[[0, 2, 6]].tolist() == np.cumsum(blocks).tolist()
    assert scanned.total_parameters == 38_282


def test_what_is_kept_for_the_backward_is_each_storage_once() -> None:
    costs = scan(DigitsCNN(), (1, 8, 8), batch=3).costs
    images, relu = 3 * 64 * 4, 3 * 16 * 64 * 4  # what the ReLU returns is what the second convolution keeps
    pooled = 3 * 32 * 16
    relu_2, indices, hidden, scores = 3 * 32 * 64 * 4, pooled * 8, 3 * 64 * 4, 3 * 10 * 4
    assert costs.saved[costs.saved > 0].tolist() == [images, relu, relu_2, indices, pooled * 4, hidden, scores]


def test_an_input_that_does_not_fit_is_told_of() -> None:
    with pytest.raises(
        SettingsError,
        match=r"input: the model can't take a batch of shape \(3, 2, 8, 8\): .*"
        r"expected input\[3, 2, 8, 8\] to have 1 channels",
    ):
        scan(DigitsCNN(), (2, 8, 8), batch=3)


def test_a_model_with_nowhere_to_cut_is_told_of() -> None:
    with pytest.raises(SettingsError, match="Linear can't be cut anywhere"):
        scan_of(config.Model(name="torch.nn:Linear", kwargs={"in_features": 4, "out_features": 2}), (4,), batch=1)
