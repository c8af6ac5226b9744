import pickle

import numpy as np
import pytest

from ray_split.data.types import LazyInputs

READ = []


def ramp(key):
    READ.append(int(key))
    return np.full((2, 3), key, np.uint8)


def short(key):
    return np.zeros((2, 1), np.uint8)


def of_floats(key):
    return np.zeros((2, 3))


def joined(key):
    return np.full(1, key.sum(), np.uint8)


@pytest.fixture
def lazy():
    READ.clear()
    return LazyInputs(ramp, np.arange(10, 20), (2, 3))


INDICES = [
    np.array([3, 0, 3]), np.array([[1, 2], [5, 9]]), np.array([[4]]), np.array([], int), slice(2, 5), slice(0, 0),
    slice(None), 7, np.arange(10) > 6,
]  # fmt: skip


@pytest.mark.parametrize("indices", INDICES, ids=str)
def test_lazy_inputs_are_indexed_like_the_array_of_their_samples(lazy, indices):
    array = np.stack([np.full((2, 3), key, np.uint8) for key in range(10, 20)])
    found, expected = lazy[indices], array[indices]
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    assert (found == expected).all()
    assert (len(lazy), lazy.shape, lazy.dtype) == (len(array), array.shape, array.dtype)


def test_only_what_is_asked_for_is_read(lazy):
    lazy.subset(np.arange(8))[np.array([[2, 6]])]
    assert READ == [12, 16]


def test_a_subset_is_lazy_and_reads_nothing(lazy):
    some = lazy.subset(np.array([9, 1])).subset(np.array([1, 0, 1]))
    assert (READ, some.shape) == ([], (3, 2, 3))
    assert some[:][:, 0, 0].tolist() == [11, 19, 11]


def test_a_key_may_be_a_row():
    lazy = LazyInputs(joined, np.array([[1, 2], [3, 4], [5, 6]]), (1,))
    assert lazy[np.array([[2], [0]])].tolist() == [[[11]], [[3]]]
    assert lazy[1].tolist() == [7]


def test_lazy_inputs_are_pickled_without_a_sample(lazy):
    again = pickle.loads(pickle.dumps(lazy))
    assert READ == []
    assert (again[np.array([4])] == 14).all()


@pytest.mark.parametrize(
    ("read", "message"), [(short, r"\(2, 1\) of uint8, not \(2, 3\) of uint8"), (of_floats, "of float64, not")]
)
def test_a_sample_of_another_shape_or_type_is_an_error(read, message):
    with pytest.raises(ValueError, match=message):
        LazyInputs(read, np.arange(3), (2, 3))[np.array([1])]


def big_endian(key):
    return np.full(2, key, ">f4")


def of_lists(key):
    return [int(key), 2]


def hole(key):
    return np.full(2, np.nan if key == 11 else key, np.float32)


def test_a_sample_becomes_an_array_of_this_machines_byte_order():
    lazy = LazyInputs(big_endian, np.arange(10, 13), [2], ">f4")
    assert lazy.dtype.isnative and lazy.shape == (3, 2)
    assert lazy[np.array([2])].tolist() == [[12.0, 12.0]]
    assert LazyInputs(of_lists, np.arange(3), (2,), np.int64)[np.array([1])].tolist() == [[1, 2]]


@pytest.mark.parametrize(("keys", "shown"), [(np.arange(10, 13), "sample 11"), (np.array([[10], [11]]), r"\[11\]")])
def test_a_sample_that_is_not_finite_is_an_error_that_names_its_key(keys, shown):
    lazy = LazyInputs(hole, keys, (2,), np.dtype(np.float32))
    assert lazy[np.array([0])].tolist() == [[10.0, 10.0]]
    with pytest.raises(ValueError, match=f"{shown}.* is not finite: it has nan"):
        lazy[np.array([0, 1])]
