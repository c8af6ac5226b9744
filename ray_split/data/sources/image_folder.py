"""Images in folders, one for each class, as ImageNet lies. They are read when a batch is made."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ray_split.arrays import Array
from ray_split.data.types import DataSet, LazyInputs, Part, by_mean_and_std, without_test_part
from ray_split.errors import SettingsError, shown, told
from ray_split.memory_limit import check_fits

if TYPE_CHECKING:
    from PIL.Image import Image

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")  # those of torchvision
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's
NOT_SET = "is not set, and image_folder needs it"
LAYOUT = "train/CLASS/IMAGE and, for the test part, test/CLASS/IMAGE or val/CLASS/IMAGE"


def image_folder(
    path: Path | None = None, size: int = 224, mean: Sequence[float] = MEAN, std: Sequence[float] = STD
) -> DataSet:
    """Images of `data.path`, as RGB bytes (3, size, size): the shorter side becomes size * 256 / 224, centre crop.

    The test part is the folder `test`, or if there is none `val`, as ImageNet has it, or else a fifth of the images;
    validation samples are split off the training images. Without `train` the path itself holds the classes, which are
    numbered by name. The nodes of all clients must have the images at this path. Raises SettingsError.
    """
    if path is None:
        raise SettingsError("data.path", None, f"Add --data.path FOLDER, where FOLDER has {LAYOUT}", NOT_SET)
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise SettingsError("data.kwargs", {"size": size}, "a size in pixels of 1 or more")
    check_fits("data.kwargs", {"size": size}, 3 * size**2)
    scale, shift = _scale_and_shift(mean, std)
    root = path.absolute()
    train = root / "train" if (root / "train").is_dir() else root
    classes = _classes(train)
    data = _part(root, train, classes, size)
    tests = [root / name for name in ("test", "val") if train != root and (root / name).is_dir()]
    if tests:
        test = _part(root, tests[0], classes, size)
        return DataSet(data, test, len(classes), scale, shift, classes=classes)
    split = without_test_part(*data)
    return DataSet(split.train, split.test, len(classes), scale, shift, classes=classes)


def _scale_and_shift(mean: Sequence[float], std: Sequence[float]) -> tuple[Array, Array]:
    threes = all(
        isinstance(values, (list, tuple)) and len(values) == 3 and all(isinstance(v, (int, float)) for v in values)
        for values in (mean, std)
    )
    if not threes or min(std) <= 0:
        raise SettingsError(
            "data.kwargs", {"mean": mean, "std": std}, "a mean and a std of three numbers each, with std greater than 0"
        )
    return by_mean_and_std(mean, std)


def _classes(folder: Path) -> list[str]:
    """The names of the classes, in order."""
    names = sorted(e.name for e in os.scandir(folder) if e.is_dir() and not e.name.startswith("."))
    if not names:
        raise SettingsError(
            "data.path",
            str(folder),
            f"Give a folder that has {LAYOUT}",
            f"there is no folder of a class in {shown(str(folder))}",
        )
    return names


def _part(root: Path, folder: Path, classes: list[str], size: int) -> Part:
    """The images of a folder, as their paths from the root: bytes, the most compact that numpy has."""
    numbers = {name: number for number, name in enumerate(classes)}
    names, labels = list[bytes](), list[int]()
    for name in _classes(folder):
        if name not in numbers:
            wrong = f"the folder {shown(str(folder / name))} is a class, but there is no such class in train"
            some = f"{', '.join(classes[:3])}{', ...' if classes[3:] else ''}"
            allowed = f"Rename or remove that folder. The classes in train are {some}"
            raise SettingsError("data.path", str(folder / name), allowed, wrong)
        found = [os.fsencode(file.removeprefix(f"{root}/")) for file in _images(folder / name)]
        names += found
        labels += [numbers[name]] * len(found)
    inputs = LazyInputs(ImageFile(str(root), size), np.array(names), (3, size, size), thread_safe=True)
    return Part(inputs, np.array(labels))


def _images(folder: Path) -> list[str]:
    """The image files of a class, in all folders below it."""
    files = list(_files(folder))
    others = [file for file in files if not file.lower().endswith(EXTENSIONS)]
    if others or not files:
        what = others[0] if others else str(folder)
        wrong = f"{shown(what)} is not an image" if others else f"there is no image in {shown(what)}"
        allowed = f"The folder of a class may have only images ({', '.join(EXTENSIONS)}), and must have at least one"
        raise SettingsError("data.path", what, allowed, wrong)
    return files


def _files(folder: Path) -> Iterator[str]:
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (f"{place}/{name}" for name in sorted(names) if not name.startswith("."))


@dataclass(frozen=True)
class ImageFile:
    """Reads an image file: RGB bytes (3, size, size), as torchvision's Resize and CenterCrop make them of it."""

    root: str
    size: int

    def __call__(self, name: bytes) -> Array:
        """Raises OSError, which names the file, if it is no image that can be read."""
        from PIL import Image

        path = f"{self.root}/{os.fsdecode(name)}"
        try:
            with Image.open(path) as image:
                pixels = np.asarray(_cropped(_rgb(image), self.size))
        except (OSError, ValueError, SyntaxError, EOFError, IndexError, Image.DecompressionBombError) as error:
            raise OSError(f"{path} can't be read as an image: {told(error)}") from error
        return pixels.transpose(2, 0, 1)


def _rgb(image: Image) -> Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        raise ValueError(f"it has more than 8 bits a channel (mode {image.mode})")  # PIL would clip them
    return image.convert("RGB")


def _cropped(image: Image, size: int) -> Image:
    from PIL.Image import Resampling

    shorter = size * 256 // 224
    width, height = (shorter * side // min(image.size) for side in image.size)
    resized = image.resize((width, height), Resampling.BILINEAR)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return resized.crop((left, top, left + size, top + size))
