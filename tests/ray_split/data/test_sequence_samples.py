"""Samples of different lengths, however they come, are sequences of one kind; or refused in a line."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

import ray_split as rs
from ray_split.data.sources import datasets as ours
from ray_split.data.types import TEST_FRACTION, split_off

DRAW = np.random.default_rng(0)
LENGTHS = [2, 5, *DRAW.integers(1, 7, 28).tolist()]
X = [DRAW.normal(size=(n, 3)).astype(np.float32) for n in LENGTHS]
WORDS = [DRAW.integers(0, 9, n) for n in LENGTHS]
Y = np.arange(30) % 3


class Pairs(Dataset[Any]):
    """A torch Dataset of sequences."""

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.from_numpy(X[index]), int(Y[index])


def as_objects(items: list[Any]) -> np.ndarray:
    found = np.empty(len(items), object)
    found[:] = items
    return found


def load(given: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setitem(ours.DATA_SETS, "theirs", lambda: given)
    return rs.load_data(rs.Config(data={"name": "theirs", "val_fraction": 0}).data)


SAME: dict[str, Any] = {
    "arrays": (X, Y),
    "doubles": ([x.astype(np.float64) for x in X], Y),
    "halves": ([x.astype(np.float32) for x in X], Y.tolist()),
    "tensors": ([torch.from_numpy(x) for x in X], torch.from_numpy(Y)),
    "objects": (as_objects(X), Y),
    "sequences": (rs.Sequences.of(X), Y),
    "lists, told to be sequences": (rs.Sequences.of([x.tolist() for x in X]), Y),
    "a torch Dataset": Pairs(),
    "parts": rs.DataSet(*(rs.Part([X[i] for i in own], Y[own]) for own in split_off(30, TEST_FRACTION, "test_part"))),
}  # fmt: skip


@pytest.mark.parametrize("kind", SAME)
def test_the_same_sequences_however_they_come(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found, (rest, test) = load(SAME[kind], monkeypatch), split_off(30, TEST_FRACTION, "test_part")
    for part, rows in ((found.train.inputs, rest), (found.test.inputs, test)):
        assert isinstance(part, rs.Sequences) and part.shape == (len(rows), None, 3) and part.dtype == np.float32
        assert [part.sample(i).tolist() for i in range(len(rows))] == [X[row].tolist() for row in rows]
    values, mask = found.inputs("train", slice(0, 4))
    assert mask.sum(1).tolist() == [len(X[row]) for row in rest[:4]]
    assert values.shape == (4, mask.shape[1], 3) and mask.any(0).all()


def test_they_may_have_their_steps_last_or_be_words(monkeypatch: pytest.MonkeyPatch) -> None:
    turned = load(([x.T for x in X], Y), monkeypatch).train.inputs
    assert turned.shape == (24, 3, None) and turned[np.array([0])].values.shape[:2] == (1, 3)
    words = load((WORDS, Y), monkeypatch).train.inputs
    assert words.shape == (24, None) and words.dtype == np.int64
    assert load(([each.astype(np.uint8) for each in WORDS], Y), monkeypatch).train.inputs.dtype == np.int64


def test_a_part_whose_samples_happen_to_be_of_one_length_is_one_of_sequences_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = rs.Part(np.stack([X[1]] * 4), Y[:4])
    for parts in ((rs.Part(X, Y), whole), (whole, rs.Part(X, Y))):
        found = load(rs.DataSet(*parts, num_classes=3), monkeypatch)
        assert found.train.inputs.shape[1:] == found.test.inputs.shape[1:] == (None, 3)


def test_arrays_of_one_length_are_an_array(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(load(([X[1]] * 30, Y), monkeypatch).train.inputs, np.ndarray)


def test_a_list_column_of_hugging_faces_is_sequences(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = pytest.importorskip("datasets", reason="datasets, Hugging Face's package, isn't installed")
    rest, _ = split_off(30, TEST_FRACTION, "test_part")
    found = load(theirs.Dataset.from_dict({"tokens": [each.tolist() for each in WORDS], "label": Y}), monkeypatch)
    assert [found.train.inputs.sample(i).tolist() for i in range(24)] == [WORDS[row].tolist() for row in rest]
    found = load(theirs.Dataset.from_dict({"series": [each.tolist() for each in X], "label": Y}), monkeypatch)
    assert found.train.inputs.shape == (24, None, 3)


REFUSED: dict[str, tuple[Any, str]] = {
    "another width": (([*X[:-1], X[-1][:, :2]], Y), r"must be of one shape, but are \(2, 3\) in row 0 and"),
    "an empty one": (([*X[:-1], X[-1][:0]], Y), r"must be sequences of one kind, but are empty in row 29"),
    "lists that may be a mistake": (([x.tolist() for x in X], Y), r"rows of 2 and of 5\. .*\(rs\.Sequences\.of\)"),
    "text": (([np.array(["a"] * n) for n in LENGTHS], Y), r"must be numbers, but are sequences of <U1\."),
    "labels of other lengths": ((X, WORDS), "labels"),
    "fewer labels": ((X, Y[:5]), "theirs returned 30 inputs but 5 labels"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_are_none_is_refused(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given, line = REFUSED[case]
    with pytest.raises(rs.SettingsError, match=line):
        load(given, monkeypatch)


def test_a_dataset_of_sequences_beyond_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray_split.data.sources.torch_datasets.IN_MEMORY", 300)
    with pytest.raises(rs.SettingsError, match=r"the samples of theirs differ in length, and only"):
        load(Pairs(), monkeypatch)
