import sys

import numpy as np
import pytest

from ray_split import config
from ray_split.data import load as data
from ray_split.errors import SettingsError

MODULE = """
import numpy as np
from ray_split import DataSet, Part

def pairs(rows=10, path=None):
    return np.arange(rows * 2.0).reshape(rows, 2), np.arange(rows, dtype=np.int32) % 3

def with_path(path):
    return np.full((10, 1), len(list(path.iterdir()))), np.zeros(10)

def data_set():
    part = Part(np.arange(8, dtype=np.uint8).reshape(4, 2), np.zeros(4, np.int64))
    return DataSet(part, part, num_classes=7, scale=0.5, shift=-1.0)

def lists():
    return [[1.0], [2.0], [3.0], [4.0], [5.0]], [0, 1, 0, 1, 0]

def uneven():
    return np.zeros((10, 2)), np.zeros(9)

def of_writers(groups=[[3, 3, 1, 1]]):
    part = Part(np.zeros((4, 2)), np.arange(4))
    return DataSet(part, part, groups={"writer": groups[0]})

def lazy(pair=True):
    from ray_split import LazyInputs
    inputs = LazyInputs(one_hot, np.arange(10), (5,), np.dtype(np.float32))
    return inputs, np.arange(10) % 5

def one_hot(key):
    return np.eye(5, dtype=np.float32)[key % 5]

def typed(dtype):
    part = Part(np.zeros((3, 2)), np.array([0, 4, 2], dtype))
    return DataSet(part, part)

def nothing():
    return None

number = 3
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "their_data.py").write_text(MODULE)
    (tmp_path / "their_broken_data.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    yield "their_data"
    sys.modules.pop("their_data", None)


def settings(**values):
    return config.Config(data=values).data


def refusal(function, *arguments):
    with pytest.raises(SettingsError) as caught:
        function(*arguments)
    assert len(str(caught.value).splitlines()) == 1
    return caught.value


def rows(part):
    return {row.tobytes() for row in part.inputs}


def test_digits_has_fixed_parts():
    parts = data.load(config.Data())
    assert [len(p.inputs) for p in (parts.train, parts.val, parts.test)] == [1294, 144, 359]
    assert [len(p.labels) for p in (parts.train, parts.val, parts.test)] == [1294, 144, 359]
    assert parts.train.inputs.shape[1:] == (1, 8, 8)
    assert (parts.train.inputs.dtype, parts.train.labels.dtype) == (np.float32, np.int64)
    assert (parts.train.inputs.min(), parts.train.inputs.max(), parts.num_classes) == (0, 1, 10)
    assert parts.train.labels[:10].tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 9, 0]
    assert parts.val.labels[:10].tolist() == [1, 3, 5, 6, 1, 6, 0, 2, 2, 1]
    assert parts.test.labels[:10].tolist() == [4, 2, 5, 9, 9, 1, 7, 0, 3, 4]


def test_the_parts_share_no_sample_and_leave_none_out():
    parts = data.load(config.Data())
    train, val, test = rows(parts.train), rows(parts.val), rows(parts.test)
    assert not train & val
    assert not train & test
    assert not val & test
    assert len(train | val | test) == 1797


def test_the_parts_are_those_of_every_seed():
    one = data.load(config.Data())
    np.random.seed(99)
    other = data.load(config.Config(run={"seed": 5}, phones={"count": 3}).data)
    for name in ("train", "val", "test"):
        assert rows(getattr(one, name)) == rows(getattr(other, name))


def test_the_test_part_does_not_depend_on_the_validation_part():
    whole, half = data.load(settings(val_fraction=0)), data.load(settings(val_fraction=0.5))
    assert len(whole.val.inputs) == 0
    assert len(half.val.inputs) == 719
    assert rows(whole.test) == rows(half.test)


@pytest.mark.parametrize(
    ("scale", "shift"),
    [(1 / 255, -0.5), (np.float64(2), 1), (np.array([1, 2], np.float32)[:, None], np.float32(0))],
)
def test_bytes_become_scaled_float32_in_a_batch(scale, shift):
    images = np.random.default_rng(0).integers(0, 256, (5, 2, 3), np.uint8)
    part = data.Part(images, np.arange(5))
    parts = data.Parts(part, part, part, 5, scale, shift)
    inputs, labels = parts.batch("train", np.array([3, 1]))
    expected = images[[3, 1]].astype(np.float64) * scale + shift
    assert (inputs.dtype, inputs.shape) == (np.float32, (2, 2, 3))
    np.testing.assert_allclose(inputs, expected, rtol=1e-6, atol=1e-6)
    assert labels.tolist() == [3, 1]


def test_floats_stay_as_they_are_in_a_batch():
    part = data.Part(np.ones((3, 2), np.float32), np.arange(3))
    inputs, _ = data.Parts(part, part, part, 3, 0.5, 7.0).batch("val", slice(0, 2))
    assert inputs.tolist() == [[1, 1], [1, 1]]


@pytest.mark.parametrize("indices", [slice(0, 2), np.array([0, 1])], ids=["slice", "array"])
def test_a_batch_is_a_copy(indices):
    part = data.Part(np.zeros((3, 2), np.float32), np.zeros(3, np.int64))
    inputs, labels = data.Parts(part, part, part, 3, 1.0, 0.0).batch("test", indices)
    inputs[:], labels[:] = 1, 1
    assert not part.inputs.any()
    assert not part.labels.any()


def test_a_function_of_the_users_is_a_data_set(module):
    parts = data.load(settings(name=f"{module}:pairs", kwargs={"rows": 50}))
    assert [len(p.inputs) for p in (parts.train, parts.val, parts.test)] == [36, 4, 10]
    assert (parts.train.inputs.dtype, parts.train.labels.dtype) == (np.float32, np.int64)
    assert parts.num_classes == 3
    for part in (parts.train, parts.val, parts.test):
        assert (part.inputs[:, 0] // 2 % 3 == part.labels).all()


def test_a_users_data_set_says_its_own_classes_and_scale(module):
    parts = data.load(settings(name=f"{module}:data_set", val_fraction=0))
    assert parts.num_classes == 7
    assert parts.batch("test", slice(0, 2))[0].tolist() == [[-1, -0.5], [0, 0.5]]


def test_a_users_function_is_given_the_path(module, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "one").touch()
    parts = data.load(settings(name=f"{module}:with_path", path=tmp_path / "folder"))
    assert (parts.train.inputs == 1).all()
    assert parts.num_classes is None


def test_a_users_function_may_return_lists(module):
    assert data.load(settings(name=f"{module}:lists", val_fraction=0)).train.inputs.shape == (4, 1)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint16", "int32", "int64", "uint64", ">i4"])
def test_integer_labels_become_classes(module, dtype):
    parts = data.load(settings(name=f"{module}:typed", kwargs={"dtype": dtype}, val_fraction=0))
    assert (parts.train.labels.dtype, parts.num_classes) == (np.int64, 5)
    assert parts.train.labels.tolist() == parts.test.labels.tolist() == [0, 4, 2]


@pytest.mark.parametrize(
    ("values", "field", "allowed"),
    [
        ({"name": "digit"}, "data.name", "Did you mean digits?"),
        ({"name": "no_such_module:f"}, "data.name", "there is no Python module 'no_such_module'"),
        ({"name": "their_data:nope"}, "data.name", "Did you mean their_data:np?"),
        (
            {"name": "their_data:number"},
            "data.name",
            "data.name: 'their_data:number' is a int. Name a function or a class.",
        ),
        ({"name": "their_broken_data:f"}, "data.name", "ZeroDivisionError: division by zero (their_broken_data.py:1)"),
        ({"name": "their_data:nothing"}, "data.name", "(inputs, labels)"),
        ({"name": "their_data:uneven"}, "data.name", "Return one label for each input"),
        (
            {"name": "their_data:pairs", "kwargs": {"columns": 1}},
            "data.kwargs",
            "data.kwargs: their_data:pairs takes no argument 'columns'. their_data:pairs takes rows and path.",
        ),
        ({"name": "their_data:with_path"}, "data.kwargs", "missing a required argument: 'path'"),
        ({"name": "their_data:of_writers", "kwargs": {"groups": [[1, 2, 3]]}}, "data.name", "each of the 4 training"),
        ({"name": "their_data:of_writers", "kwargs": {"groups": [[1.5] * 4]}}, "data.name", "(4,) of float64"),
        (
            {"name": "cifar10", "path": "/no/such/folder"},
            "data.path",
            "data.path: there is no file or folder '/no/such/folder'. Check the path.",
        ),
    ],
)
def test_a_data_set_that_is_not_there_is_one_line(module, values, field, allowed):
    error = refusal(data.load, settings(**values))
    assert error.field == field
    assert allowed in str(error)


def test_groups_follow_their_samples_when_the_validation_part_is_split_off(module):
    whole = data.load(settings(name=f"{module}:of_writers", val_fraction=0))
    assert whole.groups["writer"].tolist() == [3, 3, 1, 1]
    names = data.load(settings(name=f"{module}:of_writers", val_fraction=0, kwargs={"groups": [list("abcd")]}))
    assert names.groups["writer"].tolist() == ["a", "b", "c", "d"]
    half = data.load(settings(name=f"{module}:of_writers", val_fraction=0.5))
    assert half.groups["writer"].tolist() == [[3, 3, 1, 1][label] for label in half.train.labels]


def test_a_users_lazy_inputs_are_read_by_the_batch(module):
    parts = data.load(settings(name=f"{module}:lazy", val_fraction=0.25))
    assert [len(p.inputs) for p in (parts.train, parts.val, parts.test)] == [6, 2, 2]
    for part in ("train", "val", "test"):
        inputs, labels = parts.batch(part, slice(0, None))
        assert inputs.argmax(1).tolist() == labels.tolist()
