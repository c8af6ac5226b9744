"""Random changes of training images on the phone, by name, with torchvision.transforms.v2.

To add one: a function that returns a transform, and a line in AUGMENTATIONS. It is given `size`, an image's (height,
width), if it has a place for it. A transform must draw from torch, and keep the image's shape and type.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from ray_split.arrays import Array
from ray_split.config.user_code.by_value import spoken
from ray_split.config.user_code.plugins import blamed, call, find
from ray_split.data.own_draws import seeded
from ray_split.errors import MISFITS, SettingsError, shown, told

# torchvision is imported where it is used: it costs a process 0.1 GB, and a run without augmentation needs none of it.

TRIED = 8  # samples of a batch


def flip() -> Any:
    """Mirrored left to right, or not."""
    from torchvision.transforms import v2

    return v2.RandomHorizontalFlip()


def crop_flip(size: tuple[int, int]) -> Any:
    """Shifted by up to 4 pixels, with zeros where nothing is, and flip: the usual for CIFAR.

    Source: He et al. 2015, section 4.2, https://arxiv.org/abs/1512.03385.
    """
    from torchvision.transforms import v2

    return v2.Compose([v2.RandomCrop(size, padding=4), v2.RandomHorizontalFlip()])


def random_resized_crop(size: tuple[int, int]) -> Any:
    """A piece of 8 to 100 % of the image, resized to the whole, and flip: the usual for ImageNet.

    Source: Szegedy et al. 2014, section 6, https://arxiv.org/abs/1409.4842.
    """
    from torchvision.transforms import v2

    return v2.Compose([v2.RandomResizedCrop(size, antialias=True), v2.RandomHorizontalFlip()])


def trivial_augment() -> Any:
    """One of 14 changes of place or colour, of any strength. Not for labels that are pixel maps.

    Source: Mueller and Hutter 2021, https://arxiv.org/abs/2103.10158.
    """
    from torchvision.transforms import v2

    return v2.TrivialAugmentWide()


AUGMENTATIONS: dict[str, Callable[..., Any]] = {
    "flip": flip,
    "crop_flip": crop_flip,
    "random_resized_crop": random_resized_crop,
    "trivial_augment": trivial_augment,
}


class Augmentation:
    """Changes images (channels, height, width), bytes or float32, one by one, each drawn from its own seed.

    Labels that are pixel maps (height, width) of the images are changed with them.
    """

    def __init__(self, name: str, sample_shape: tuple[int, ...]) -> None:
        """Raises SettingsError."""
        if len(sample_shape) != 3:
            wrong = (
                f"can't be used here, because samples of shape {sample_shape} aren't images (channels, height, width)"
            )
            raise SettingsError("data.augment", name, "Remove data.augment", wrong)
        self._name, self._size = name, sample_shape[1:]
        found = find("data.augment", name, AUGMENTATIONS)
        with blamed("data.augment", name):
            self._transform = found if _is_transform(found) else call("data.augment", found, {}, size=self._size)
        if not callable(self._transform):
            wrong = f"{spoken(name)} returned {shown(self._transform)}, which isn't a function of an image"
            raise SettingsError("data.augment", name, "Return a transform of torchvision.transforms.v2", wrong)

    @property
    def may_be_beside(self) -> bool:
        """Whether a thread may compute it while others draw from torch: it is known of ours alone how they draw."""
        return self._name in AUGMENTATIONS

    def __call__(self, inputs: Array, labels: Array, seeds: Array, beside: bool = False) -> tuple[Array, Array]:
        """Inputs (k, n, channels, height, width) and labels (k, n, ...), changed by seeds (k, n); leaves what arrived.

        torch's own generator is afterwards as it was; `beside`: other threads use it. Raises SettingsError.
        """
        if labels.shape[2:] != self._size:
            return self._all([inputs], seeds, beside)[0], labels
        images, maps = self._all([inputs, labels], seeds, beside)
        return images, maps

    def _all(self, arrays: list[Array], seeds: Array, beside: bool) -> list[Array]:
        """New arrays (k, n, ...); those given are changed together."""
        changed = [np.empty_like(array) for array in arrays]
        with seeded(beside) as seed, torch.no_grad():
            for at in np.ndindex(seeds.shape):
                seed(int(seeds[at]))
                for after, tensor in zip(changed, self._one([array[at] for array in arrays]), strict=True):
                    after[at] = tensor.numpy()
        return changed

    def _one(self, sample: list[Array]) -> Sequence[torch.Tensor]:
        given = _tensors(*sample)
        try:
            changed = self._transform(*given)
        except MISFITS as error:
            raise self._refusal("Fix it", f"{self._name} doesn't take {_shapes(given)}: {told(error)}") from error
        found = changed if isinstance(changed, (tuple, list)) else [changed]
        if _shapes(found) != _shapes(given):
            wrong = f"{self._name} makes {_shapes(found)} of {_shapes(given)}"
            raise self._refusal("Return a transform that keeps shape and type", wrong)
        return found

    def check(self, inputs: Array, labels: Array, seeds: Array) -> None:
        """Raises SettingsError if the same seeds don't give the same images; tries a few."""
        inputs, labels, seeds = (array[:, :TRIED] for array in (inputs, labels, seeds))
        once, again = (self(inputs, labels, seeds) for _ in range(2))
        if not all(np.array_equal(*pair) for pair in zip(once, again, strict=True)):
            raise self._refusal("Draw with torch's functions alone", "with the same seed it gave different images")

    def _refusal(self, allowed: str, wrong: str) -> SettingsError:
        return SettingsError("data.augment", self._name, allowed, wrong)


def _is_transform(found: Any) -> bool:
    """Whether it is one of torchvision's already, as may be given itself, and no function that returns one."""
    return isinstance(found, torch.nn.Module)


def _tensors(image: Array, pixel_map: Array | None = None) -> list[torch.Tensor]:
    """Copies, as transforms take them: a lone tensor is an image to them, which saves a fifth of their time."""
    if pixel_map is None:
        return [torch.tensor(image)]
    from torchvision import tv_tensors

    return [tv_tensors.Image(torch.tensor(image)), tv_tensors.Mask(torch.tensor(pixel_map))]


def _shapes(values: Sequence[Any]) -> str:
    """Shapes and types, as in '(3, 32, 32) of torch.uint8'."""
    return " and ".join(
        f"{tuple(v.shape)} of {v.dtype}" if isinstance(v, torch.Tensor) else type(v).__name__ for v in values
    )
