"""Hugging Face Datasets as data sets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

import ray_split as rs
from ray_split.data.sources import datasets as ours
from ray_split.data.types import TEST_FRACTION, split_off

theirs = pytest.importorskip("datasets", reason="datasets, Hugging Face's package, isn't installed")
IMAGES = np.random.default_rng(0).integers(0, 256, (30, 5, 4, 3), np.uint8)
CLASSES = ["sheep", "cow", "ant", "goat"]  # in their order; no sample is a goat
NUMBERS = [i % 3 for i in range(30)]


def of(images: Any = IMAGES, numbers: list[int] = NUMBERS, target: str = "label", **more: Any) -> Any:
    kinds = {"image": theirs.Image(), target: theirs.ClassLabel(names=CLASSES)}
    columns = {"image": [Image.fromarray(image) for image in images], target: numbers}
    features = theirs.Features(kinds | {name: theirs.Value("int64") for name in more})
    return theirs.Dataset.from_dict(columns | more, features=features)


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    def loaded(found: Any) -> Any:
        monkeypatch.setitem(ours.DATA_SETS, "theirs", lambda: found)
        return rs.load_data(rs.Config(data={"name": "theirs", "val_fraction": 0}).data)

    return loaded


def test_images_have_their_channels_first_and_classes_their_names_and_order(load: Any) -> None:
    parts, (rest, test) = load(of()), split_off(30, TEST_FRACTION, "test_part")
    for part, rows in ((parts.train, rest), (parts.test, test)):
        assert np.array_equal(part.inputs, IMAGES.transpose(0, 3, 1, 2)[rows])
        assert part.labels.tolist() == [NUMBERS[row] for row in rows]
    assert parts.classes == tuple(CLASSES) and parts.num_classes == 4
    grey = load(of(IMAGES[..., 0])).train.inputs
    assert np.array_equal(grey, IMAGES[..., 0][:, None][rest])


@pytest.mark.parametrize("split", ["test", "validation"])
def test_splits_are_the_parts(load: Any, split: str) -> None:
    parts = load(theirs.DatasetDict({"train": of(), split: of(IMAGES[:6], NUMBERS[:6])}))
    assert len(parts.train.inputs) == 30 and np.array_equal(parts.test.inputs, IMAGES[:6].transpose(0, 3, 1, 2))
    assert parts.test.labels.tolist() == NUMBERS[:6] and parts.classes == tuple(CLASSES)
    assert len(load(theirs.DatasetDict({"train": of()})).train.inputs) == 24


def test_lists_of_numbers_and_text_labels_under_another_name(load: Any) -> None:
    series = np.arange(30 * 6, dtype=np.float32).reshape(30, 2, 3)
    found = load((theirs.Dataset.from_dict({"x": series.tolist(), "kind": ["b", "a"] * 15}), "kind"))
    rest, _ = split_off(30, TEST_FRACTION, "test_part")
    assert np.array_equal(found.train.inputs, series[rest]) and found.train.inputs.dtype == np.float32
    assert [found.classes[label] for label in found.train.labels] == [["b", "a"][row % 2] for row in rest]


def test_columns_of_numbers_and_text_are_a_table(load: Any) -> None:
    columns = {"age": list(range(30)), "city": ["Rome", "Bern", "Oslo"] * 10, "label": NUMBERS}
    kinds = {"age": theirs.Value("int64"), "city": theirs.Value("string"), "label": theirs.ClassLabel(names=CLASSES)}
    found = load(theirs.Dataset.from_dict(columns, features=theirs.Features(kinds)))
    assert found.train.inputs.shape == (24, 4) and found.train.inputs[:, 0].mean() == pytest.approx(0, abs=1e-6)
    rest, _ = split_off(30, TEST_FRACTION, "test_part")
    assert [found.classes[label] for label in found.train.labels] == [CLASSES[NUMBERS[row]] for row in rest]


def test_one_column_of_numbers_is_a_table_too(load: Any) -> None:
    assert load(
        theirs.Dataset.from_dict({"x": [float(i) for i in range(30)], "label": NUMBERS})
    ).train.inputs.shape == (24, 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: of(target="animal"),
            (
                "data.name: in the Hugging Face dataset of theirs, no column is called label or labels. Return "
                "(dataset, 'COLUMN'), where COLUMN is image or animal."
            ),
        ),
        (
            lambda: (of(), "animal"),
            (
                "data.name: in the Hugging Face dataset of theirs, there is no column 'animal'. Return (dataset, "
                "'COLUMN'), where COLUMN is image or label."
            ),
        ),
        (
            lambda: of(age=NUMBERS).add_column("rows", [[1]] * 30),
            (
                "data.name: in the Hugging Face dataset of theirs, beside the labels 'label' there must be one "
                "column, but found image, age and rows. Keep the labels and one column of inputs, with "
                "dataset.select_columns."
            ),
        ),
        (
            lambda: of(age=NUMBERS),
            (
                "data.name: in the Hugging Face dataset of theirs, beside the labels 'label' there must be one "
                "column, but found image and age. Keep the labels and one column of inputs, with "
                "dataset.select_columns."
            ),
        ),
        (lambda: of(numbers=[0, -1, *NUMBERS[2:]]), "its label in row 1, -1, is none of the 4 classes"),
        (
            lambda: theirs.DatasetDict({"test": of()}),
            (
                "data.name: in the Hugging Face dataset of theirs, there is no split train, but only test. Return "
                "one with a split train, or a Dataset."
            ),
        ),
        (
            lambda: of().to_iterable_dataset(),
            "in the Hugging Face dataset of theirs, an IterableDataset can't give a sample by its index",
        ),
        (
            lambda: theirs.Dataset.from_dict({"text": ["a"] * 9, "label": [0] * 9}),
            (
                "data.name: in the Hugging Face dataset of theirs, the column 'text' is text. Turn it into numbers, "
                "such as tokens, with dataset.map."
            ),
        ),
    ],
)
def test_what_is_no_pair_is_refused(load: Any, make: Any, message: str) -> None:
    with pytest.raises(rs.SettingsError) as caught:
        load(make())
    assert message in str(caught.value) and len(str(caught.value).splitlines()) == 1
