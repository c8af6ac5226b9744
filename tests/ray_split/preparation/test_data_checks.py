"""Rows that can't be trained or evaluated on are refused before a run starts, and named as the user has them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ray_split as rs
from ray_split.data import load as data
from ray_split.preparation import data_checks
from ray_split.preparation.data_checks import row_of
from ray_split.preparation.prepare import prepare

HERE = "tests.ray_split.preparation.test_data_checks"
X = np.random.default_rng(0).normal(size=(120, 4)).astype(np.float32)
Y = np.arange(120) % 3
VALUES: dict[str, Any] = {"loss": "mse"}


def hole(row: int, value: float = np.nan, of: str = "labels", parts: bool = False, part: str = "train") -> Any:
    """One number is none, of all samples or of a part that the function itself makes."""
    inputs, labels = X.copy(), X[:, :1].copy()
    (inputs if of == "inputs" else labels)[row] = value
    if not parts:
        return inputs, labels
    whole = rs.Part(X, X[:, :1])
    return rs.DataSet(**{"train": whole, "test": whole, part: rs.Part(inputs, labels)})


def classes(add: int = 0, row: int | None = None, value: int = 0, said: int | None = None, shape: Any = (120,)) -> Any:
    """Labels of three classes."""
    labels = (Y + add).reshape(shape)
    if row is not None:
        labels[row] = value
    return rs.DataSet(rs.Part(X, labels), rs.Part(X, labels), said)


def same(label: int) -> Any:
    return X, np.full(120, label)


def truths() -> Any:
    return X, Y > 0


def gap() -> Any:
    return X, np.where(np.arange(120) == 7, np.nan, Y)


def whole_values() -> Any:
    return X, Y


def ones(columns: int = 3) -> Any:
    return X, np.eye(columns, dtype=np.float32)[Y]


def fewer_columns() -> rs.DataSet:
    return rs.DataSet(rs.Part(X, Y), rs.Part(X[:, :3], Y))


def larger_images() -> rs.DataSet:
    """To train on crops and test on whole images is possible where the model takes both."""
    draw = np.random.default_rng(0)
    return rs.DataSet(
        rs.Part(draw.normal(size=(40, 1, 8, 8)).astype(np.float32), draw.integers(0, 2, (40, 8, 8))),
        rs.Part(draw.normal(size=(10, 1, 12, 12)).astype(np.float32), draw.integers(0, 2, (10, 12, 12))),
    )


def prepared(name: str, task: Any = None, **sections: Any) -> rs.Config:
    own = {"name": f"{HERE}:{name}", "kwargs": sections.pop("kwargs", {}), **sections.pop("data", {})}
    base: dict[str, Any] = {"model": {"name": "tests.nets:three_linear"}, "phones": {"count": 4}, "run": {"name": "x"}}
    return prepare(rs.Config(data=own, task=task or {}).with_values(**base).with_values(**sections)).settings


def refusal(name: str, task: Any = None, **sections: Any) -> str:
    with pytest.raises(rs.SettingsError) as caught:
        prepared(name, task, **sections)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("of", ["inputs", "labels"])
def test_a_number_that_is_none_is_refused_in_every_part_and_its_row_named(of: str) -> None:
    parts, found = data.load(rs.Config(data={"name": f"{HERE}:hole", "kwargs": {"row": 0, "value": 0.0}}).data), set()
    for part in ("train", "val", "test"):
        row = int(np.flatnonzero((getattr(parts, part).inputs[-1] == X).all(1))[0])
        line = refusal("hole", VALUES, kwargs={"row": row, "of": of})
        assert "hole returned nan in the " in line and f" {of}, at row {row}, column 0 (counting from 0)" in line
        assert "Fill in missing values" in line
        found.add(line.partition("in the ")[2].partition(f" {of}")[0])
    assert found == {"training", "validation", "test"}


@pytest.mark.parametrize("part", ["train", "test"])
def test_rows_are_counted_in_the_part_that_the_function_made(part: str) -> None:
    for row in (0, 7, 119):
        line = refusal("hole", VALUES, kwargs={"row": row, "value": -np.inf, "parts": True, "part": part})
        assert "returned -inf (as float32) in the " in line and f" labels, at row {row}, column 0 " in line


def test_every_row_has_its_place() -> None:
    for name, kwargs in (("hole", {"row": 0}), ("hole", {"row": 0, "parts": True}), ("classes", {})):
        settings = rs.Config(data={"name": f"{HERE}:{name}", "kwargs": kwargs, "val_fraction": 0.3}).data
        parts = data.load(settings)
        for part in ("train", "val", "test"):
            inputs = getattr(parts, part).inputs
            assert [X[row_of(settings, parts, part, i)].tolist() for i in range(len(inputs))] == inputs.tolist()


def test_a_large_array_is_looked_at_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = list[int]()
    monkeypatch.setattr(data_checks, "AT_ONCE", 3 * X[:1].nbytes)

    def is_bad(values: np.ndarray) -> np.ndarray:
        seen.append(len(values))
        return values > 2.5

    assert data_checks._bad_rows(X, is_bad).tolist() == np.flatnonzero((X > 2.5).any(1)).tolist()
    assert seen == [3] * 40


def test_phones_that_are_left_out_or_will_be_may_have_such_rows() -> None:
    kwargs = {"row": 0, "of": "inputs", "parts": True}
    line = refusal("hole", VALUES, kwargs=kwargs)
    phone = int(line.partition("of phone ")[2].partition(".")[0])
    assert "Or set run.on_bad_phone to skip, to train without the phones that have such rows" in line
    assert prepared("hole", VALUES, kwargs=kwargs, phones={"left_out": {phone: 0}})
    assert f"of phone {phone}. Fill in" in refusal("hole", VALUES, kwargs=kwargs, phones={"left_out": {phone: 1}})
    assert prepared("hole", VALUES, kwargs=kwargs, run={"on_bad_phone": "skip"})
    test = {**kwargs, "part": "test"}  # is no phone's
    assert "returned nan in the test inputs" in refusal("hole", VALUES, kwargs=test, run={"on_bad_phone": "skip"})


def test_a_loss_of_the_users_may_have_a_use_for_labels_that_are_not_finite() -> None:
    own = {"loss": "tests.nets:squared_error"}
    assert prepared("hole", own, kwargs={"row": 3}, model={"num_classes": 1})
    assert "in the validation inputs, at row 3," in refusal(
        "hole", own, kwargs={"row": 3, "of": "inputs"}, model={"num_classes": 1}
    )


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (
            {"add": 1},
            (
                "data.name: the labels of theirs go from 1 to 3, but must start at 0. Return labels - 1. If class 0 "
                "exists but has no samples here, set model.num_classes to 4 instead."
            ),
        ),
        (
            {"row": 5, "value": -1},
            (
                "data.name: theirs returned -1 in the training labels, at row 5 (counting from 0), of phone 2, but "
                "must be from 0 to 2. Number the classes from 0: np.unique(labels, return_inverse=True)[1] (-100 "
                "stands for no label). Or set run.on_bad_phone to skip, to train wi"
            ),
        ),
        (
            {"row": 5, "value": 3, "said": 3},
            (
                "data.name: theirs returned 3 in the training labels, at row 5 (counting from 0), of phone 2, but "
                "must be from 0 to 2. Number the classes from 0: np.unique(labels, return_inverse=True)[1] (-100 "
                "stands for no label). Or set run.on_bad_phone to skip, to train wit"
            ),
        ),
        (
            {"add": -1},
            "Number the classes from 0: np.unique(labels, return_inverse=True)[1] (-100 stands for no label)",
        ),
        (
            {"row": 5, "value": 10**12},
            "the labels of theirs go up to 1000000000000, which would make 1000000000001 classes",
        ),
        ({"add": -100, "row": slice(None), "value": -100}, "all labels of theirs are -100, which no loss counts"),
    ],
    ids=str,
)
def test_labels_that_are_no_classes_are_refused(kwargs: dict[str, Any], message: str) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(data.DATA_SETS, "theirs", lambda: classes(**kwargs))
        line = refusal("classes", data={"name": "theirs", "kwargs": {}})
    assert line.startswith("data.name: ") and message in line


def test_labels_from_1_are_taken_where_somebody_says_how_many_classes_there_are() -> None:
    assert prepared("classes", kwargs={"add": 1}, model={"num_classes": 4}).model.num_classes == 4
    assert prepared("classes", kwargs={"add": 1, "said": 5}).model.num_classes == 5
    assert "but must be from 0 to 2" in refusal("classes", kwargs={"add": 1}, model={"num_classes": 3})
    assert prepared("classes", kwargs={"row": 5, "value": -100}).model.num_classes == 3
    assert prepared("truths").model.num_classes == 2


def test_values_are_no_classes() -> None:
    line = refusal("hole", kwargs={"row": 0, "value": 0.0})
    assert (
        line.startswith("task.loss: cross_entropy needs labels that are classes")
        and "or return labels.astype(int) for classes" in line
    )
    assert (
        "ones returned one-hot labels (N, 3), but cross_entropy needs classes (N,). Return labels.argmax(1)"
        in refusal("ones")
    )
    assert "Return labels.ravel()" in refusal("classes", kwargs={"shape": [120, 1]})


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("same", {"label": 0}, "all labels are of one class: there is nothing to learn"),
        ("classes", {"row": 5, "value": 6}, "of 7 classes 3 have no sample: 3, 4, 5"),
        ("classes", {}, ""),
        ("truths", {}, ""),
        ("classes", {"said": 9}, ""),
    ],
    ids=str,
)
def test_classes_that_are_too_many_or_too_few_are_told_of(
    caplog: pytest.LogCaptureFixture, name: str, kwargs: dict[str, Any], message: str
) -> None:
    prepared(name, kwargs=kwargs)
    assert [record.getMessage() for record in caplog.records] == ([f"{HERE}:{name}: {message}"] if message else [])


def test_classes_that_only_the_test_part_has_are_told_of(caplog: pytest.LogCaptureFixture) -> None:
    test = rs.DataSet(rs.Part(X, np.array(["a", "b"])[Y % 2]), rs.Part(X, np.array(["a", "b", "c"])[Y]))
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(data.DATA_SETS, "theirs", lambda: test)
        assert prepared("classes", data={"name": "theirs"}).model.num_classes == 3
    assert "theirs: in the test part alone, so nobody can learn them: classes c" in caplog.text


def test_a_test_part_of_another_shape_is_tried_with_the_model() -> None:
    line = refusal("fewer_columns")
    assert line.startswith(f"data.name: the test samples of {HERE}:fewer_columns are (3,) of float32 with ")
    assert "but the training samples (4,) of float32" in line and line.endswith(
        "Return the same shapes and types in both."
    )
    assert prepared("larger_images", model={"name": "tests.nets:per_pixel", "cuts": "0,2"})


def read(key: int) -> np.ndarray:
    sample = X[int(key)].copy()
    return np.full_like(sample, np.nan) if key == 110 else sample


def late(held_out: bool = False) -> rs.DataSet:
    """The last ten samples, of which one is none, are tested on, or a phone's."""
    keys = np.arange(120)
    rest, test = (keys, keys[:10]) if held_out else (keys[:100], keys[100:])
    parts = [rs.Part(rs.LazyInputs(read, k, (4,), np.dtype(np.float32)), Y[k]) for k in (rest, test)]
    return rs.DataSet(*parts, 3, groups={"who": rest // 30})


@pytest.mark.parametrize(("held_out", "message"), [
    (False, r"the test part of .*:late can't be read: ValueError: sample 110 is not finite: it has nan"),
    (True, r"phone 3: its data can't be read: ValueError: sample 110 is not finite: it has nan"),
])  # fmt: skip
def test_a_sample_that_is_read_when_needed_is_looked_at_then(tmp_path: Path, held_out: bool, message: str) -> None:
    settings = rs.Config(
        model={"name": "tests.nets:three_linear"}, cluster={"backend": "inprocess"}, phones={"count": 4},
        data={"name": f"{HERE}:late", "kwargs": {"held_out": held_out}, "val_fraction": 0,
              "partition": {"name": "natural"}},
        run={"storage_path": str(tmp_path), "name": "run", "rounds": 1},
    )  # fmt: skip
    with pytest.raises(rs.RunFailedError, match=message):
        rs.fit(settings, callbacks=[])


def test_a_class_that_is_missing_is_named() -> None:
    assert "in the training labels, at row 7 " in refusal("gap")


@pytest.mark.parametrize(("name", "kind"), [("whole_values", "whole numbers"), ("truths", "names")])
def test_classes_are_no_values(name: str, kind: str) -> None:
    line = refusal(name, VALUES)
    assert (
        f"mse needs labels that are real numbers, but those of {HERE}:{name} are {kind}. Set task.loss to cross_entropy"
        in line
    )
    assert line.endswith("or return labels.astype(float) for values.")


def large(by: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    return X * np.array([1, 1, by, 1], np.float32), Y


@pytest.mark.parametrize(
    ("by", "told"), [(1e6, r"inputs of .*:large reach .*e\+06 in column 2, and training is"), (1e3, "")]
)
def test_inputs_that_are_far_too_large_are_told_of(by: float, told: str, caplog: pytest.LogCaptureFixture) -> None:
    prepare(
        rs.Config(
            model={"name": "mlp"},
            data={"name": f"{HERE}:large", "kwargs": {"by": by}},
            phones={"count": 2},
            run={"name": "r"},
        )
    )
    assert bool(re.search(told, caplog.text)) and bool(caplog.records) == bool(told)
