import pickle

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets
from torchvision.transforms import v2

from ray_split import config
from ray_split.data import load as data
from ray_split.errors import SettingsError

DRAW = np.random.default_rng(0)


def write(file, size=(40, 30), mode="RGB"):
    """An image of random pixels; lossless but for .jpg."""
    file.parent.mkdir(parents=True, exist_ok=True)
    channels = {"RGB": 3, "RGBA": 4, "CMYK": 4, "L": 1, "LA": 2, "P": 3, "1": 1}[mode]
    pixels = DRAW.integers(0, 256, (size[1], size[0], channels), np.uint8).squeeze()
    made = "RGB" if mode == "P" else "L" if mode == "1" else mode
    Image.fromarray(pixels, made).convert(mode).save(file)


@pytest.fixture
def folder(tmp_path):
    """ImageNet's layout: 3 classes, 5 training and 2 test images each."""
    for part, count in (("train", 5), ("val", 2)):
        for name in ("n01", "n02", "n10"):
            for i in range(count):
                write(tmp_path / part / name / f"{name}_{i}.png", size=(40 + i, 30 + 5 * i))
    return tmp_path


def load(path, val_fraction=0.0, size=14, **kwargs):
    settings = {"name": "image_folder", "path": path, "val_fraction": val_fraction, "kwargs": {"size": size, **kwargs}}
    return data.load(config.Config(data=settings).data)


def refusal(*arguments, **kwargs):
    with pytest.raises(SettingsError) as caught:
        load(*arguments, **kwargs)
    assert len(str(caught.value).splitlines()) == 1
    return caught.value


def torchvisions(folder, size):
    """The same images as torchvision reads them."""
    resize = v2.Compose([v2.Resize(size * 256 // 224), v2.CenterCrop(size), v2.PILToTensor()])
    found = datasets.ImageFolder(folder, resize)
    return np.stack([image.numpy() for image, _ in found]), [label for _, label in found]


@pytest.mark.parametrize("size", [7, 14, 23, 64])
def test_images_are_those_that_torchvision_reads(folder, size):
    parts = load(folder, size=size)
    for part, name in (("train", "train"), ("test", "val")):
        images, labels = torchvisions(folder / name, size)
        found, classes = parts.inputs(part, slice(None)), parts.labels(part, slice(None))
        assert (found.dtype, found.shape) == (np.uint8, (len(labels), 3, size, size))
        assert (found == images).all()
        assert classes.tolist() == labels


def test_a_batch_is_normalised_by_imagenets_mean_and_std_or_others(folder):
    images = torchvisions(folder / "train", 14)[0] / 255
    found, _ = load(folder).batch("train", np.array([[0, 4]]))
    expected = images[[0, 4]] - np.array([0.485, 0.456, 0.406])[:, None, None]
    np.testing.assert_allclose(found[0], expected / np.array([0.229, 0.224, 0.225])[:, None, None], atol=1e-5)
    found, _ = load(folder, mean=[0.5, 0.5, 0.5], std=[0.5, 0.5, 0.5]).batch("train", np.array([3]))
    np.testing.assert_allclose(found[0], images[3] * 2 - 1, atol=1e-5)


def test_the_parts_are_train_val_split_off_train_and_the_folder_test_or_val(folder):
    parts = load(folder, val_fraction=0.2)
    assert [len(p.inputs) for p in (parts.train, parts.val, parts.test)] == [12, 3, 6]
    assert parts.num_classes == 3
    write(folder / "test" / "n02" / "one.png")
    parts = load(folder)
    assert (len(parts.test.inputs), parts.test.labels.tolist()) == (1, [1])


@pytest.mark.parametrize("below", ["train", "."])
def test_without_test_images_a_fifth_of_all_become_the_test_part(tmp_path, below):
    for name in ("cat", "dog"):
        for i in range(5):
            write(tmp_path / below / name / "more" / f"{i}.jpg")
    parts = load(tmp_path)
    assert [len(p.inputs) for p in (parts.train, parts.val, parts.test)] == [8, 0, 2]
    assert sorted([*parts.train.labels, *parts.test.labels]) == [0] * 5 + [1] * 5
    assert parts.batch("test", slice(0, 2))[0].shape == (2, 3, 14, 14)


def test_images_are_read_only_when_a_batch_is_made(folder):
    (folder / "train" / "n01" / "n01_0.png").write_bytes(b"nothing")
    (folder / "train" / "n02" / "n02_0.png").unlink()
    write(folder / "train" / "n02" / "added.png")
    parts = load(folder, val_fraction=0.2)
    assert len(pickle.dumps(parts)) < 5000
    with pytest.raises(OSError, match=r"n01_0\.png can't be read"):
        for part in ("train", "val"):
            parts.batch(part, slice(None))


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1"])
def test_images_of_any_mode_become_rgb(tmp_path, mode):
    for i in range(5):
        write(tmp_path / "train" / "a" / f"{i}.png", mode=mode)
    expected = torchvisions(tmp_path / "train", 14)[0]
    parts = load(tmp_path)
    assert sorted(map(bytes, [*parts.train.inputs[:], *parts.test.inputs[:]])) == sorted(map(bytes, expected))


def test_a_cmyk_jpeg_becomes_rgb(tmp_path):
    for i in range(5):
        write(tmp_path / "train" / "a" / f"{i}.jpg", mode="CMYK")
    assert load(tmp_path).inputs("train", slice(None)).shape == (4, 3, 14, 14)


def truncated(file):
    write(file, size=(200, 200))
    file.write_bytes(file.read_bytes()[:-2000])


def deep(file):
    Image.fromarray(DRAW.integers(0, 60_000, (30, 30)).astype(np.uint16)).save(file)


@pytest.mark.parametrize(
    ("damage", "name"),
    [
        (truncated, "x.png"), (truncated, "x.jpg"), (lambda file: file.write_bytes(b""), "x.jpg"),
        (lambda file: file.write_text("not an image"), "x.png"), (lambda file: file.unlink(), "x.png"),
        (deep, "x.png"),
    ],
    ids=["truncated png", "truncated jpg", "empty", "text", "gone", "16 bits"],
)  # fmt: skip
def test_an_image_that_cannot_be_read_is_an_error_that_names_it(tmp_path, damage, name):
    file = tmp_path / "train" / "a" / name
    write(file)
    write(tmp_path / "test" / "a" / "y.png")
    parts = load(tmp_path)
    damage(file)
    with pytest.raises(OSError, match="can't be read as an image") as caught:
        parts.batch("train", np.array([0]))
    assert str(file) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_hidden_files_and_folders_are_no_images(folder):
    (folder / "train" / ".cache").mkdir()
    (folder / "train" / "n01" / ".DS_Store").touch()
    assert len(load(folder).train.inputs) == 15


def test_a_folder_that_is_none_of_images_is_one_line(folder):
    assert "train/CLASS/IMAGE" in str(refusal(None))
    (folder / "empty").mkdir()
    error = refusal(folder / "empty")
    assert (error.field, error.value) == ("data.path", str(folder / "empty"))
    assert "there is no folder of a class in" in str(error)
    (folder / "train" / "n03").mkdir()
    error = refusal(folder)
    assert (error.field, error.value) == ("data.path", str(folder / "train" / "n03"))
    assert ".jpg" in str(error)
    (folder / "train" / "n03" / "labels.csv").touch()
    assert refusal(folder).value == str(folder / "train" / "n03" / "labels.csv")


def test_a_test_class_that_is_not_in_train_is_refused(folder):
    write(folder / "val" / "n05" / "one.png")
    error = refusal(folder)
    assert (error.field, error.value) == ("data.path", str(folder / "val" / "n05"))
    assert "n01, n02, n10" in str(error)


@pytest.mark.parametrize(
    ("kwargs", "allowed"),
    [
        ({"size": 0}, "a size in pixels"), ({"size": 2.5}, "a size in pixels"),
        ({"mean": [0.5]}, "a mean and a std of three numbers"),
        ({"std": [1, 1, 0]}, ("must be a mean and a std of three numbers each, with std greater than 0, not "
        "{'mean': (0.485, "
"0.456, 0.406), 'std': [1, 1, 0]}")),
        ({"mean": 0.5}, "three numbers"), ({"std": ["a", "b", "c"]}, "three numbers"),
    ],
    ids=str,
)  # fmt: skip
def test_a_size_or_mean_of_no_sense_is_refused(folder, kwargs, allowed):
    error = refusal(folder, **kwargs)
    assert error.field == "data.kwargs"
    assert allowed in str(error)
