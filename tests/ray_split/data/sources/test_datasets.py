"""The data sets that have a name, read from small files in their own formats."""

import pickle
import struct

import numpy as np
import pytest
import torch
from torch.nn import functional
from torchvision.datasets import cifar
from torchvision.transforms import v2

from ray_split import config
from ray_split.data import load as data
from ray_split.data.sources import datasets
from ray_split.errors import SettingsError

FOLDERS = {
    "cifar10": "cifar-10-batches-py",
    "cifar100": "cifar-100-python",
    "mnist": "MNIST/raw",
    "fashion_mnist": "FashionMNIST/raw",
}


def load(name, path=None, **kwargs):
    return data.load(config.Config(data={"name": name, "path": path, "val_fraction": 0, "kwargs": kwargs}).data)


def refusal(*arguments, **kwargs):
    with pytest.raises(SettingsError) as caught:
        load(*arguments, **kwargs)
    assert len(str(caught.value).splitlines()) == 1
    return caught.value


def write_cifar(path, name, count=4):
    """CIFAR's files with tiny batches; the pixels that were written."""
    folder = path / FOLDERS[name]
    folder.mkdir(parents=True)
    files = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"] if name == "cifar10" else ["train", "test"]
    draw, images = np.random.default_rng(0), []
    for file in files:
        images.append(draw.integers(0, 256, (count, 3072), np.uint8))
        fine = {"fine_labels": [96 + i for i in range(count)], "coarse_labels": [0] * count}
        labels = {"labels": list(range(count))} if name == "cifar10" else fine
        (folder / file).write_bytes(pickle.dumps({"data": images[-1], **labels}))
    meta = {"label_names": list("abcdefghij"), "fine_label_names": [str(i) for i in range(100)]}
    (folder / ("batches.meta" if name == "cifar10" else "meta")).write_bytes(pickle.dumps(meta))
    return [pixels.reshape(count, 3, 32, 32) for pixels in images]


def write_mnist(path, name, count=6):
    """MNIST's idx files, big-endian with a magic number; the pixels that were written."""
    folder = path / FOLDERS[name]
    folder.mkdir(parents=True)
    draw, images = np.random.default_rng(0), []
    for part in ("train", "t10k"):
        images.append(draw.integers(0, 256, (count, 28, 28), np.uint8))
        header = struct.pack(">4i", 0x803, count, 28, 28)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(header + images[-1].tobytes())
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 0x801, count) + bytes(range(count)))
    return [pixels[:, None] for pixels in images]


def write(path, name):
    return write_cifar(path, name) if "cifar" in name else write_mnist(path, name)


@pytest.fixture
def no_sums(monkeypatch):
    monkeypatch.setattr(cifar, "check_integrity", lambda *_: True)


def test_cifar10_is_read_from_its_own_files(tmp_path, no_sums):
    images = write_cifar(tmp_path, "cifar10")
    parts = load("cifar10", tmp_path)
    assert (parts.train.inputs == np.concatenate(images[:5])).all()
    assert (parts.test.inputs == images[-1]).all()
    assert parts.train.labels.tolist() == [0, 1, 2, 3] * 5
    assert (parts.train.inputs.dtype, parts.train.labels.dtype, parts.num_classes) == (np.uint8, np.int64, 10)
    batch, _ = parts.batch("train", np.array([0]))
    np.testing.assert_allclose(batch[0, 1], (images[0][0, 1] / 255 - 0.4822) / 0.2435, rtol=1e-4, atol=1e-5)


def test_cifar100_has_its_fine_classes(tmp_path, no_sums):
    images = write_cifar(tmp_path, "cifar100")
    parts = load("cifar100", tmp_path)
    assert (parts.train.inputs == images[0]).all() and (parts.test.inputs == images[1]).all()
    assert (parts.train.labels.tolist(), parts.num_classes) == ([96, 97, 98, 99], 100)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_mnist_and_fashion_mnist_are_grey_images_of_28x28(tmp_path, name):
    images = write_mnist(tmp_path, name)
    parts = load(name, tmp_path)
    assert (parts.train.inputs.shape, parts.train.inputs.dtype) == ((6, 1, 28, 28), np.uint8)
    assert (parts.train.inputs == images[0]).all() and (parts.test.inputs == images[1]).all()
    assert (parts.test.labels.tolist(), parts.test.labels.dtype, parts.num_classes) == (list(range(6)), np.int64, 10)


@pytest.mark.parametrize("name", FOLDERS)
def test_a_batch_is_normalised_as_torchvision_does(tmp_path, no_sums, name):
    images = torch.from_numpy(write(tmp_path, name)[0])
    mean, std = {
        "cifar10": ([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]),
        "cifar100": ([0.5071, 0.4865, 0.4409], [0.2673, 0.2564, 0.2762]),
        "mnist": ([0.1307], [0.3081]),
        "fashion_mnist": ([0.2860], [0.3530]),
    }[name]
    expected = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)])(images)
    found, _ = load(name, tmp_path).batch("train", slice(0, len(images)))
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", FOLDERS)
def test_a_set_that_is_not_there_or_damaged_is_one_line_with_the_folder_and_the_download(tmp_path, name):
    no_path = refusal(name)
    write(tmp_path / "damaged", name)
    for file in (tmp_path / "damaged" / FOLDERS[name]).iterdir():
        file.write_bytes(file.read_bytes()[:-1])
    for error in (no_path, refusal(name, tmp_path), refusal(name, tmp_path / "damaged")):
        assert error.field == "data.path"
        assert f"contains {FOLDERS[name]}" in str(error)
        assert "--data.kwargs '{download: true}'" in str(error)


def test_nothing_is_downloaded_unless_it_is_allowed(tmp_path, monkeypatch):
    asked = []

    class Set:
        data, targets = np.zeros((2, 32, 32, 3), np.uint8), [0, 1]

        def __init__(self, path, train, download):
            asked.append(download)

    monkeypatch.setattr("torchvision.datasets.CIFAR10", Set)
    load("cifar10", tmp_path)
    load("cifar10", tmp_path, download=True)
    assert asked == [False, False, True, True]


def test_digits_are_resized_bilinearly_and_their_grey_repeated():
    plain, large = datasets.digits(), datasets.digits(size=20, channels=3)
    assert (large.train.inputs.shape, large.train.inputs.dtype) == ((1438, 3, 20, 20), np.float32)
    assert (large.train.inputs[:, 0] == large.train.inputs[:, 2]).all()
    assert (large.train.labels == plain.train.labels).all()
    expected = functional.interpolate(torch.from_numpy(plain.test.inputs), (20, 20), mode="bilinear")
    assert (large.test.inputs[:, :1] == expected.numpy()).all()


@pytest.mark.parametrize("kwargs", [{"size": 0}, {"channels": 0}, {"size": 2.5}, {"size": "big"}], ids=str)
def test_digits_of_no_size_are_refused(kwargs):
    error = refusal("digits", **kwargs)
    assert (error.field, error.allowed) == ("data.kwargs", "a size and channels of 1 or more")
