"""Models and data of a user's own, found as 'tests.nets:name' by the driver and by the actors."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from ray_split import Segments
from ray_split.models.unet import UNet


def inplace_first() -> nn.Module:
    """B begins with an in-place ReLU."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(256, 16), nn.Linear(16, 10)
    )


def with_batchnorm() -> nn.Module:
    """A BatchNorm in A and one in B."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Conv2d(4, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(512, 16),
        nn.ReLU(), nn.Linear(16, 10),
    )  # fmt: skip


def with_dropout() -> nn.Module:
    """A Dropout in each of A, B and C."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 32), nn.Dropout(0.2),
        nn.Linear(32, 32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 32),
        nn.Dropout(0.4), nn.Linear(32, 10),
    )  # fmt: skip


class Residual(nn.Module):
    """Nested blocks whose skips cross the cuts 'blocks.0.first' and 'blocks.1.first': two tensors each."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.blocks = nn.Sequential(Block(), Block())
        self.head = nn.Linear(4, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.second(torch.relu(self.first(x)))


def model_of(forward, **attributes):
    """A model of linear layers a, b, c of width 4 (or the attributes given) with this forward."""
    model = type("Model", (nn.Module,), {"forward": forward})()
    for name, value in {**{name: nn.Linear(4, 4) for name in "abc"}, **attributes}.items():
        setattr(model, name, value)
    return model


def chain(self, x):
    return self.c(self.b(self.a(x)))


def blobs(samples: int = 600) -> tuple[np.ndarray, np.ndarray]:
    """Images of 1x8x8 with a bright row that is their class."""
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 8, samples)
    images = draw.normal(0, 0.5, (samples, 1, 8, 8)).astype(np.float32)
    images[np.arange(samples), 0, labels] += 1.5
    return images, labels


def with_batchnorm_and_dropout() -> nn.Module:
    """A BatchNorm and a Dropout in A and in B."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.1),
        nn.Conv2d(4, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.Flatten(), nn.Dropout(0.2), nn.Linear(512, 16),
        nn.ReLU(), nn.Linear(16, 10),
    )  # fmt: skip


def flat_batchnorm() -> nn.Module:
    """A BatchNorm in B that a batch of one can't train."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, 8), nn.Linear(8, 8))


class Branching(nn.Module):
    """A first segment of the user's own: its control flow depends on the data, and two tensors leave it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 16), nn.Linear(64, 16)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = x.flatten(1)
        return (self.first(x), self.second(x)) if x.mean() > 0.1 else (self.second(x), self.first(x))


class Joining(nn.Module):
    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.last = nn.Linear(16, outputs)

    def forward(self, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(one) + other)


def three_of_my_own(num_classes: int = 10) -> Segments:
    return Segments(Branching(), Joining(12), nn.Sequential(nn.ReLU(), nn.Linear(12, num_classes)))


def two_of_my_own(num_classes: int = 10) -> Segments:
    return Segments(Branching(), Joining(num_classes))


def smaller_images(size):
    """An augmentation that doesn't keep the images' shape."""
    from torchvision.transforms import v2

    return v2.Resize([side // 2 for side in size])


def unreadable():
    """Samples that can't be read."""
    from ray_split import LazyInputs

    return LazyInputs(_refuse, np.arange(100), (1, 8, 8)), np.arange(100) % 10


def _refuse(key):
    raise OSError("no such sample")


def coloured(num_classes: int) -> nn.Module:
    """For colour images of any size."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, num_classes),
    )  # fmt: skip


def per_pixel(num_classes: int) -> nn.Module:
    """A class for each pixel."""
    return nn.Sequential(nn.Conv2d(1, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, num_classes, 1))


def rows_and_columns() -> tuple[np.ndarray, np.ndarray]:
    """Images of 1x8x8 whose labels are maps of them: bright or dark."""
    images = np.random.default_rng(0).normal(size=(80, 1, 8, 8)).astype(np.float32)
    return images, (images[:, 0] > 0).astype(np.int64)


def rows(samples: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """The blobs, and as their label a value: where the bright row is."""
    images, labels = blobs(samples)
    return images, (labels / 4).astype(np.float32)


class Heads(NamedTuple):
    logits: torch.Tensor
    aux_logits: torch.Tensor | None


class Auxiliary(nn.Module):
    """As Inception v3: in train mode there is a second head's output too, made in B at the cuts stem and body."""

    def __init__(self, as_dict: bool = False, with_aux: bool = True) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Flatten(), nn.Linear(64, 16))
        self.aux = nn.Linear(16, 10)
        self.body = nn.Sequential(nn.ReLU(), nn.Linear(16, 16), nn.ReLU())
        self.head = nn.Linear(16, 10)
        self.as_dict, self.with_aux = as_dict, with_aux

    def forward(self, x: torch.Tensor) -> object:
        early = self.stem(x)
        aux = self.aux(early) if self.training and self.with_aux else None
        main = self.head(self.body(early))
        if self.as_dict:
            return {"out": main, "aux": aux} if self.training else {"out": main}
        return Heads(main, aux) if self.training else main


class RawSkip(UNet):
    """A U-Net that looks at the image once more at its end."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(9, 3, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        whole = self.stem(images)
        half = self.down1(whole)
        decoded = self.up1(self.up2(self.down2(half), half), whole)
        return self.head(torch.cat([decoded, images], 1))


def squared_error(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """A loss, or a metric, of a user's own."""
    return ((outputs.squeeze(-1) - labels) ** 2).mean()


def top2(outputs: torch.Tensor, labels: torch.Tensor) -> float:
    """A metric of a user's own: whether the label is one of the two highest scores."""
    return float((outputs.topk(2, dim=1).indices == labels[:, None]).any(1).float().mean())


class SequenceFirst(nn.Module):
    """What crosses has its samples in the second dimension, as transformers have it by default."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix, self.head = nn.Linear(8, 6), nn.Linear(6, 6), nn.Linear(6, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        rows = self.embed(images[:, 0].transpose(0, 1))  # (8, N, 6)
        return self.head(torch.relu(self.mix(rows)).mean(0))


def partly_fixed(num_classes: int = 10) -> nn.Module:
    """The model's own function keeps two of its layers as they are."""
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 16), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16), nn.Linear(16, num_classes)
    )
    model[2].requires_grad_(False)
    model[4].weight.requires_grad_(False)
    return model


def three_linear(num_classes: int = 3) -> Segments:
    """As small as can be, and made without tracing: for thousands of runs."""
    return Segments(nn.Linear(4, 3), nn.Sequential(nn.ReLU(), nn.Linear(3, 3)), nn.Linear(3, num_classes))


def two_linear(num_classes: int = 3) -> Segments:
    return Segments(nn.Linear(4, 3), nn.Sequential(nn.ReLU(), nn.Linear(3, num_classes)))


class Masked(nn.Module):
    """Constants that are honestly -inf: buffers in each segment, and one that crosses to the last."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 3), nn.Linear(3, 3), nn.Linear(3, num_classes)
        self.register_buffer("mask", torch.tensor([0.0, -math.inf, 0.0]))
        self.register_buffer("large", torch.tensor([0.0, -1e12, 0.0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mask = self.mask + 0 * self.a.bias.detach()
        hidden = torch.relu(self.a(x)) + self.large.exp() - 1
        hidden = self.b(hidden) + self.large.exp()
        return self.c(torch.softmax(hidden + mask, 1))


def masked(num_classes: int = 3) -> nn.Module:
    return Masked(num_classes)


class Shared(nn.Module):
    """A number that depends on the batch size crosses."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 3), nn.Linear(3, 3), nn.Linear(3, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        share = 1 / x.shape[0]
        return self.c(self.b(self.a(x)) * share)


def wide(width: int = 2048, num_classes: int = 10) -> nn.Module:
    """What crosses the cuts 1 and 3 is `width` numbers a sample; the weights are small beside it."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, width), nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, num_classes)
    )


def three_with_batchnorm(num_classes: int = 3) -> Segments:
    """As small, with a BatchNorm in B."""
    middle = nn.Sequential(nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 3))
    return Segments(nn.Linear(4, 3), middle, nn.Linear(3, num_classes))


class Hardy(nn.Module):
    """For 8x8 images, with a layer that devices don't have."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Flatten(), nn.Hardswish(), nn.Linear(64, 16))
        self.middle, self.head = nn.Linear(16, 16), nn.Linear(16, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(self.middle(self.first(x)))
        return found
