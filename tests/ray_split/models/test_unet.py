from __future__ import annotations

import torch

from ray_split.models.unet import UNet


def test_a_pixel_has_a_score_for_each_class() -> None:
    model = UNet(num_classes=5, channels=2)
    assert model(torch.zeros(3, 2, 8, 16)).shape == (3, 5, 8, 16)


def test_it_has_as_many_parameters_as_it_says() -> None:
    assert f"{sum(p.numel() for p in UNet().parameters()):,}" in str(UNet.__doc__)
