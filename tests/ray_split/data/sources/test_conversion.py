"""Data as people have it: the same training arrays come of it, or one line that names data.name and what was found."""

from __future__ import annotations

import datetime
import decimal
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas
import pytest
import scipy.sparse
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset, random_split

import ray_split as rs
from ray_split.data import load as data
from ray_split.data.sources import datasets

DRAW = np.random.default_rng(0)
X = DRAW.normal(size=(60, 4)).astype(np.float32)
Y = DRAW.permutation(np.arange(60) % 3)
NAMES = np.array(["cat", "dog", "owl"])
PLAIN = np.round(X * 4).astype(np.int64)  # the same in every type of numbers


def load(found: Any, monkeypatch: pytest.MonkeyPatch) -> data.Parts:
    monkeypatch.setitem(datasets.DATA_SETS, "theirs", (lambda: found) if not callable(found) else found)
    return data.load(rs.Config(data={"name": "theirs", "val_fraction": 0}).data)


def refusal(found: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    with pytest.raises(rs.SettingsError) as caught:
        load(found, monkeypatch)
    line = str(caught.value)
    assert "\n" not in line and line.startswith("data.name: ") and line.endswith(".")
    return line


def as_objects(rows: Any) -> np.ndarray:
    array = np.empty(len(rows), object)
    for i, row in enumerate(rows):
        array[i] = row
    return array


class Pairs(Dataset[Any]):
    def __init__(self, item: Callable[[int], Any]) -> None:
        self.item = item

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, index: int) -> Any:
        return self.item(index)


class Endless(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter([])


TENSORS = TensorDataset(torch.tensor(X), torch.tensor(Y))
SAME: dict[str, Any] = {
    "big-endian": (X.astype(">f4"), Y.astype(">i8")),
    "doubles": (X.astype(np.float64), Y.astype(np.uint16)),
    "long doubles": (X.astype(np.longdouble), Y.astype(">u8")),
    "read-only": (np.frombuffer(X.tobytes(), np.float32).reshape(X.shape), np.frombuffer(Y.tobytes(), Y.dtype)),
    "another order": (np.asfortranarray(X), np.stack([Y, Y], 1)[:, 0]),
    "objects": (X.astype(object), Y.astype(object)),
    "objects of rows": (as_objects(list(X)), as_objects(Y.tolist())),
    "objects of lists": (as_objects(X.tolist()), Y),
    "lists": (X.tolist(), Y.tolist()),
    "lists of arrays": (list(X), list(Y)),
    "lists of tensors": ([torch.tensor(x) for x in X], [torch.tensor(y) for y in Y]),
    "decimals": ([[decimal.Decimal(float(v)) for v in x] for x in X], Y),
    "a list of two": [X, Y],
    "a part": rs.Part(X, Y),
    "a matrix": (np.matrix(X), Y),
    "a masked array without a gap": (np.ma.masked_array(X), Y),
    "tensors": (torch.tensor(X, requires_grad=True), torch.tensor(Y)),
    "a table": (pandas.DataFrame(X), pandas.Series(Y)),
    "a table of labels": (pandas.DataFrame(X), pandas.DataFrame({"y": Y})),
    "a table of extension types": (pandas.DataFrame(X).convert_dtypes(), pandas.Series(Y).convert_dtypes()),
    "a TensorDataset": TENSORS,
    "a Dataset": Pairs(lambda i: (torch.tensor(X[i]), int(Y[i]))),
    "a Dataset of doubles": Pairs(lambda i: (X[i].astype(float), torch.tensor(Y[i]))),
    "a Subset": Subset(TENSORS, range(60)),
}


@pytest.mark.parametrize("kind", SAME)
def test_the_same_samples_are_the_same_arrays_however_they_come(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found, plain = load(SAME[kind], monkeypatch), load((X, Y), monkeypatch)
    for part in ("train", "test"):
        (inputs, labels), (wanted, classes) = getattr(found, part), getattr(plain, part)
        assert (inputs.dtype, labels.dtype) == (np.float32, np.int64) and inputs.dtype.isnative
        assert inputs.tobytes() == wanted.tobytes() and labels.tolist() == classes.tolist()
    assert (found.num_classes, found.classes) == (3, None)


def test_rows_are_those_of_the_users_array() -> None:
    parts = load_of((X, Y))
    rows = {row.tobytes(): label for row, label in zip(X, Y, strict=True)}
    for part in (parts.train, parts.test):
        assert all(rows[row.tobytes()] == label for row, label in zip(part.inputs, part.labels, strict=True))


def load_of(found: Any) -> data.Parts:
    with pytest.MonkeyPatch.context() as patched:
        return load(found, patched)


TEXT: dict[str, Any] = {
    "text": NAMES[Y],
    "bytes": NAMES[Y].astype("S"),
    "objects": NAMES[Y].astype(object),
    "lists": NAMES[Y].tolist(),
    "numpy's strings": NAMES[Y].astype(np.dtypes.StringDType()),
    "a series": pandas.Series(NAMES[Y]),
    "categories": pandas.Series(NAMES[Y], dtype="category"),
}


@pytest.mark.parametrize("kind", TEXT)
def test_text_labels_are_numbered_in_sorted_order_and_the_names_kept(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, plain = load((X, TEXT[kind]), monkeypatch), load((X, Y), monkeypatch)
    assert found.train.labels.tolist() == plain.train.labels.tolist()
    assert found.test.labels.tolist() == plain.test.labels.tolist()
    assert (found.train.labels.dtype, found.num_classes, found.classes) == (np.int64, 3, ("cat", "dog", "owl"))


def test_other_labels_have_names_where_somebody_gave_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def parts(train: Any, test: Any, **said: Any) -> data.Parts:
        return load(rs.DataSet(rs.Part(X, train), rs.Part(X, test), **said), monkeypatch)

    truth = parts(Y > 0, Y > 1)
    assert (truth.classes, truth.num_classes, truth.train.labels.tolist()) == (("False", "True"), 2, (Y > 0).tolist())
    ordered = parts(NAMES[Y], NAMES[Y], classes=["owl", "dog", "cat", "elk"])
    assert (ordered.num_classes, ordered.train.labels.tolist()) == (4, (2 - Y).tolist())
    assert parts(Y, Y, classes=["a", "b", "c"]).num_classes == 3
    # A class that the test part alone has is one; what one part has doesn't change the other's numbers.
    some = parts(NAMES[1 + Y % 2], NAMES[Y])
    assert (some.train.labels.tolist(), some.test.labels.tolist()) == ((1 + Y % 2).tolist(), Y.tolist())


def test_ids_of_any_library_make_phones(monkeypatch: pytest.MonkeyPatch) -> None:
    part, names = rs.Part(X, Y), NAMES[Y]
    for ids in (names.tolist(), names.astype(object), pandas.Series(names), names):
        found = load(rs.DataSet(part, part, groups={"writer": ids}), monkeypatch)
        assert found.groups["writer"].tolist() == names.tolist()


def test_whole_numbers_stay_whole_and_half_precision_becomes_single(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, kept in (("u1", "u1"), ("u2", "i4"), ("u4", "i8"), ("u8", "i8"), ("i2", "i2"), (">i4", "i4"), ("?", "?")):
        found = load((np.abs(PLAIN).astype(kind), Y), monkeypatch).train.inputs
        assert found.dtype == np.dtype(kept)
        assert found.tolist() == load((np.abs(PLAIN).astype(kind).astype(kept), Y), monkeypatch).train.inputs.tolist()
    half = load((X.astype(np.float16), Y), monkeypatch)
    inputs, _ = half.batch("train", slice(0, 3))
    assert (half.train.inputs.dtype, inputs.dtype) == (np.float16, np.float32)
    assert inputs.tolist() == half.train.inputs[:3].tolist()


def test_what_lies_in_a_file_is_read_from_there(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "x.npy", X)
    found = load((np.load(tmp_path / "x.npy", mmap_mode="r"), Y), monkeypatch)
    assert found.train.inputs.tobytes() == load((X, Y), monkeypatch).train.inputs.tobytes()


def test_two_datasets_of_torch_are_train_and_test(monkeypatch: pytest.MonkeyPatch) -> None:
    two = random_split(TENSORS, [45, 15], torch.Generator().manual_seed(0))
    for given in (two, tuple(two), rs.DataSet(*two)):
        found = load(given, monkeypatch)
        assert found.train.inputs.tolist() == X[two[0].indices].tolist()
        assert found.test.labels.tolist() == Y[two[1].indices].tolist()


def test_a_large_dataset_is_read_when_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray_split.data.sources.torch_datasets.IN_MEMORY", X.nbytes - 1)
    found = load(SAME["a Dataset of doubles"], monkeypatch)
    assert isinstance(found.train.inputs, rs.LazyInputs)
    plain = load((X, Y), monkeypatch)
    inputs, labels = found.batch("test", slice(0, None))
    assert (inputs.tolist(), labels.tolist()) == (plain.test.inputs.tolist(), plain.test.labels.tolist())


def hollow(value: Any, kind: Any = object) -> np.ndarray:
    array = NAMES[Y].astype(object) if kind is str else X.astype(object) if kind is object else Y.astype(object)
    array[(9, 1) if array.ndim == 2 else 9] = value
    return array


def coloured(**columns: Any) -> pandas.DataFrame:
    return pandas.DataFrame(X, columns=list("abcd")).assign(**columns)


IMAGES = [np.zeros((1, 8, 8 + (i == 5)), np.float32) for i in range(60)]
REFUSED: dict[str, tuple[Any, str]] = {
    "text among numbers": (
        (hollow("red"), Y),
        r"the inputs of theirs must be numbers, but are mixed, with 'red' \(str\) in ro",
    ),
    "a gap among numbers": (
        (hollow(None), Y),
        r"the inputs of theirs must be numbers, but are mixed, with None \(NoneType\) i",
    ),
    "text inputs": ((NAMES[Y], Y), r"the inputs of theirs must be numbers, but are text \('dog'\)"),
    "a column of text": ((coloured(c="red"), Y),
     r"the inputs of theirs must be numbers, but are text \('red'\) in column 'c'"),
    "a column of dates": ((coloured(when=pandas.Timestamp(2026, 1, 1)), Y),
     r"the inputs, column 'when', of theirs must be numbers, but are ndarray \(60,\)"),
    "a dict": (({"x": X}, Y), r"the inputs of theirs must be an array \(N, \.\.\.\), but are a dict of 'x'"),
    "a dict of both": (
        {"x": X, "y": Y},
        r"returned a dict of 'x', 'y'.*\. Return \(inputs, labels\), or a ray_split.DataSet",
    ),
    "nothing": (None, "returned None"),
    "three things": ((X, Y, Y), "returned a tuple of 3"),
    "a table alone": (pandas.DataFrame(X), r"a frame alone: which column .* Return \(frame, \"COLUMN\"\)"),
    "no inputs": ((None, Y), r"the inputs of theirs must be an array \(N, \.\.\.\), but are None"),
    "a number": ((X, 3), r"the labels of theirs must be an array \(N, \.\.\.\), but are int 3"),
    "a generator": (((x for x in X), Y), r"the inputs of theirs must be an array \(N, \.\.\.\), but are a generator"),
    "labels of two kinds": (
        (X, ["cat", *Y[1:].tolist()]),
        r"the labels of theirs must be all numbers, or all text, but are mixed, with ",
    ),
    "a label that is not there": (
        (X, hollow(float("nan"), str)),
        r"the labels of theirs must be all numbers, or all text, but are mixed, with ",
    ),
    "others in test": (
        rs.DataSet(rs.Part(X, NAMES[Y]), rs.Part(X, Y)),
        r"the labels of theirs are ndarray \(60,\) of <U3 in train but ndarray \(60,\) of",
    ),
    "classes without a name": (
        rs.DataSet(rs.Part(X, NAMES[Y]), rs.Part(X, NAMES[Y]), classes=["cat", "dog"]),
        r"theirs has the label 'owl', which is not among its classes",
    ),
    "names that are none": (rs.DataSet(rs.Part(X, Y), rs.Part(X, Y), classes="abc"), "list of different names"),
    "fewer classes than names": (
        rs.DataSet(rs.Part(X, NAMES[Y]), rs.Part(X, NAMES[Y]), 2),
        r"the num_classes of theirs is 2, but there are 3 names of classes",
    ),
    "a number of classes as text": (
        rs.DataSet(rs.Part(X, Y), rs.Part(X, Y), "3"),
        r"the num_classes of theirs must be a whole number greater than 0, not '3'",
    ),
    "a scale that is none": (
        rs.DataSet(rs.Part(X, Y), rs.Part(X, Y), 3, float("nan")),
        r"the scale and shift of theirs are nan and 0\.0",
    ),
    "ids that are none": (rs.DataSet(rs.Part(X, Y), rs.Part(X, Y), groups=[1] * 60), "a dict such as"),
    "an id that is none": (
        rs.DataSet(rs.Part(X, Y), rs.Part(X, Y), groups={"who": [None] * 60}), r"groups 'who'.*None \(NoneType\)",
    ),
    "no test part": (rs.DataSet(rs.Part(X, Y), None), r"the test part of theirs is None"),
    "images of different sizes": (
        (IMAGES, Y),
        r"the inputs of theirs must be of one shape, but are \(1, 8, 8\) in row 0 and \(",
    ),
    "objects of different sizes": (
        (as_objects(IMAGES), Y),
        r"the inputs of theirs must be of one shape, but are \(1, 8, 8\) in row 0 and \(",
    ),
    "pictures of different sizes": (
        ([Image.new("L", (8, 8 + (i == 3))) for i in range(60)], Y), r"\(8, 8\) in row 0 and \(9, 8\) in row 3",
    ),
    "uneven lists": (([[1.0] * (2 + (i == 4)) for i in range(60)], Y),
     r"the inputs of theirs must be an array \(N, \.\.\.\), but are rows of 2 and of 3"),
    "uneven objects": ((as_objects([[1.0] * (2 + (i == 4)) for i in range(60)]), Y), r"\(2,\) in row 0 and \(3,\) in"),
    "dates": ((np.arange(60).astype("M8[D]"), Y),
     r"the inputs of theirs must be numbers, but are ndarray \(60,\) of datetime64\[D"),
    "durations": ((X, [datetime.timedelta(1)] * 60), r"with datetime.timedelta\(days=1\)"),
    "fields": ((np.zeros(60, "f4,f4"), Y), "np.column_stack"),
    "a mask": ((np.ma.masked_array(X, X[7, 2] == X), Y), "masked in row 7"),
    "scipy's sparse": ((scipy.sparse.csr_matrix(X), Y), r"sparse, csr_matrix \(60, 4\).*x.toarray\(\)"),
    "torch's sparse": (
        (torch.tensor(X).to_sparse(), Y),
        r"the inputs of theirs must be an array, but are a sparse tensor \(60, 4\)",
    ),
    "numbers beyond int64": (
        (np.full((60, 4), 2**63, np.uint64), Y),
        r"the inputs of theirs must be below 2\*\*63, but are up to 9223372036854775808",
    ),
    "labels that are read later": (
        (X, rs.LazyInputs(int, np.arange(60), ())),
        r"the labels of theirs must be an array \(N, \.\.\.\), but are LazyInputs \(60,\) of",
    ),
    "fewer labels": ((X, Y[:50]), r"theirs returned 60 inputs but 50 labels"),
    "no samples": ((X[:0], Y[:0]), r"theirs returned no inputs"),
    "one sample": ((X[:1], Y[:1]), r"theirs returned 1 samples, of which a fifth is too few for a test part"),
    "a loader": (DataLoader(TENSORS),
     r"theirs returned a DataLoader, but must return its dataset \(loader\.dataset\):"),
    "two loaders": ((DataLoader(TENSORS), DataLoader(TENSORS)),
     r"the training part of theirs is a DataLoader, but must return its dataset \(l"),
    "a stream": (Endless(), r"theirs returned a Endless, but must return arrays or a dataset with __getit"),
    "three tensors": (
        TensorDataset(*[torch.tensor(X)] * 3),
        r"samples of theirs must be pairs, but found 3 tensors",
    ),
    "samples that are dicts": (
        Pairs(lambda i: {"x": X[i]}),
        r"samples of theirs must be pairs, but found a dict of 'x'",
    ),
    "samples of different sizes": (Pairs(lambda i: (IMAGES[i], 0)), r"\(1, 8, 8\) in row 0 and \(1, 8, 9\) in row 5"),
    "samples that are pictures": (Pairs(lambda i: (Image.new("L", (8, 8)), 0)), "PILToTensor"),
    "samples that change": (Pairs(lambda i: (torch.rand(4), 0)),
     r"sample 0 of theirs is different when read a second time"),
    "samples that can't be read": (Pairs(lambda i: {}[i]),
     r"sample 0 of theirs can't be read: KeyError: 0 \(test_conversion"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_can_be_no_samples_is_one_line(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found, message = REFUSED[kind]
    line = refusal(lambda: found, monkeypatch)
    assert re.search(message, line), line


def test_a_function_that_raises_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Any:
        raise KeyError("no such\nfile")

    assert "with KeyError: 'no such\\nfile'" in refusal(broken, monkeypatch)


PART = rs.Part(X, Y)
BYTES = rs.Part(np.zeros((60, 4), np.uint8), Y)
SAID: dict[str, tuple[Callable[[], Any], str]] = {
    "bytes to test on": (
        lambda: rs.DataSet(PART, BYTES),
        "the inputs of theirs are float32 in train but uint8 in test",
    ),
    "scaled floats": (
        lambda: rs.DataSet(PART, PART, scale=1 / 255),
        "theirs has scale and shift, which are for uint8 inputs, but its inputs are ",
    ),
    "a scale of nothing": (lambda: rs.DataSet(BYTES, BYTES, scale=0), "the scale of theirs is 0"),
    "a ragged scale": (
        lambda: rs.DataSet(BYTES, BYTES, scale=[[1.0], [1.0, 2.0]]),
        "the scale and shift of theirs are [[1.0], [1.0, 2.0]] and 0.0",
    ),
    "a set of classes": (
        lambda: rs.DataSet(PART, PART, classes={"a", "b", "c"}),
        "the classes of theirs must be a list of different names",
    ),
    "a number of classes": (
        lambda: rs.DataSet(PART, PART, classes=3),
        "the classes of theirs must be a list of different names, not 3",
    ),
    "a generator of classes": (
        lambda: rs.DataSet(PART, PART, classes=iter("abc")),
        "the classes of theirs must be a list of different names, not",
    ),
    "groups with a number for a name": (
        lambda: rs.DataSet(PART, PART, groups={1: Y}),
        "the groups of theirs have the key 1, which is not text",
    ),
    "a tensor of shapes alone": (lambda: (torch.zeros(60, 4, device="meta"), Y), "on meta"),
    "a tensor of eight bits": (lambda: (torch.zeros(60, 4).to(torch.float8_e4m3fn), Y), "torch.float8_e4m3fn"),
    "complex labels": (
        lambda: (X, Y + 1j),
        "the labels of theirs are ndarray (48,) of complex128",
    ),
    "a torch type": (
        lambda: (rs.LazyInputs(int, Y, (4,), torch.float32), Y),
        "the dtype of LazyInputs is one of numpy's, not torch.float32",
    ),
}


@pytest.mark.parametrize("kind", SAID)
def test_what_a_data_set_says_wrongly_is_one_line(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, said = SAID[kind]
    assert said in refusal(make, monkeypatch)


def test_a_scale_may_be_a_tensor_and_a_lazy_shape_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    part = rs.Part(np.full((60, 4), 51, np.uint8), Y)
    parts = load(rs.DataSet(part, part, scale=torch.tensor([1 / 255] * 4)), monkeypatch)
    assert parts.batch("train", slice(0, 1))[0].tolist() == [pytest.approx([0.2] * 4)]
    assert rs.LazyInputs(int, Y, 4).shape == (60, 4)


def test_half_precision_labels_become_single(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load((X, X[:, 0].astype(np.float16)), monkeypatch).train.labels.dtype == np.float32
