import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_split.messages.state import with_fixed
from ray_split.segments.weighted_mean import added, averaged, scaled


def state(*values, dtype=np.float32, batches=0):
    return {
        "weights/x": np.array(values, dtype),
        "buffers/y": np.array(values[0], dtype),
        "weights/num_batches_tracked": np.array(batches),
        "optimizer/x/momentum_buffer": np.array(values, dtype),
    }


def mean(states, shares):
    total = None
    for each, share in zip(states, shares, strict=True):
        total = added(total, scaled(each, share))
    return total


def test_scaled_takes_a_share_of_weights_and_buffers_and_leaves_the_optimizer_out():
    found = scaled(state(4, 8, batches=3), 0.25)
    assert sorted(found) == ["buffers/y", "weights/num_batches_tracked", "weights/x"]
    assert found["weights/x"].tolist() == [1, 2]
    assert found["buffers/y"] == 1
    assert found["weights/num_batches_tracked"] == 3


def test_added_sums_weights_and_takes_the_larger_of_integers():
    found = mean([state(4, 8, batches=3), state(2, 0, batches=7), state(0, 4, batches=5)], [0.5, 0.25, 0.25])
    assert found["weights/x"].tolist() == [2.5, 5]
    assert found["buffers/y"] == 2.5
    assert found["weights/num_batches_tracked"] == 7


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_mean_keeps_each_arrays_kind_and_shape(dtype):
    states = [state(1, 2, dtype=dtype), state(3, 4, dtype=dtype)]
    summed = mean(states, [1 / 3, 2 / 3])
    assert summed["weights/x"].dtype == max(dtype, np.float32, key=lambda kind: np.dtype(kind).itemsize)
    found = with_fixed(summed, states[0])  # sums of half precision are made in single
    for key, array in found.items():
        assert isinstance(array, np.ndarray)
        assert (array.dtype, array.shape) == (state(1, 2, dtype=dtype)[key].dtype, state(1, 2)[key].shape)


def test_what_is_averaged_stays_as_it_was():
    states = [state(1, 2, batches=1), state(3, 4, batches=2)]
    for each in states:
        for array in each.values():
            array.flags.writeable = False
    mean(states, [0.5, 0.5])
    assert states[0]["weights/x"].tolist() == [1, 2]
    assert states[1]["weights/num_batches_tracked"] == 2


def test_the_mean_of_one_is_itself_bit_for_bit():
    one = state(0.1, 1e-30, -3e38)
    found = mean([one], [1.0])
    assert all(found[key].tobytes() == one[key].tobytes() for key in found)


@given(
    weights=st.lists(st.floats(-100, 100), min_size=2, max_size=6),
    samples=st.lists(st.integers(1, 1000), min_size=6, max_size=6),
)
def test_a_mean_is_weighted_by_samples(weights, samples):
    samples = np.array(samples[: len(weights)])
    found = mean([state(w, dtype=np.float64) for w in weights], samples / samples.sum())
    assert found["weights/x"][0] == pytest.approx(np.average(weights, weights=samples), abs=1e-9)


def test_averaged_is_the_mean_of_weights_and_optimizers_and_the_largest_counter():
    one, two = (
        {**state(*values, batches=n), "optimizer/x/step": np.array(float(n), np.float32)}
        for values, n in (((4, 8), 3), ((8, 8), 7))
    )
    found = averaged([one, two], [0.25, 0.75])
    assert found["weights/x"].tolist() == found["optimizer/x/momentum_buffer"].tolist() == [7, 8]
    assert found["weights/num_batches_tracked"] == found["optimizer/x/step"] == 7
    assert {key: array.dtype for key, array in found.items()} == {key: array.dtype for key, array in one.items()}


def test_averaged_keeps_what_is_the_same_in_all_and_takes_a_missing_slot_as_zeros():
    same, shares = state(0.1, 0.7), [1 / 3, 1 / 3, 1 / 3]
    found = averaged([same, same, same], shares)
    assert all(np.array_equal(found[key], same[key]) for key in same)
    new = {key: array for key, array in same.items() if not key.startswith("optimizer/")}
    assert averaged([new, same], [0.5, 0.5])["optimizer/x/momentum_buffer"].tolist() == pytest.approx([0.05, 0.35])
    assert averaged([same], [1.0]).keys() == same.keys()


def test_complex_weights_have_a_mean_too():
    states = [state(1 + 2j, 4j, dtype=np.complex64, batches=1), state(3, 8, dtype=np.complex64, batches=2)]
    for found in (mean(states, [0.25, 0.75]), averaged(states, [0.25, 0.75])):
        assert found["weights/x"].dtype == np.complex64
        assert found["weights/x"].tolist() == [2.5 + 0.5j, 6 + 1j]
        assert found["weights/num_batches_tracked"] == 2


def test_a_number_of_a_whole_weight_is_that_of_the_state_that_stepped_most() -> None:
    product, step = "optimizer/w/mu_product", "optimizer/w/step"
    weight = {"weights/w": np.ones(2, np.float32)}
    few, many = ({**weight, product: np.float32(p), step: np.float32(s)} for p, s in ((0.9, 2), (0.5, 7)))
    for states in ([few, many], [many, few], [weight, many]):
        found = averaged(states, [0.5, 0.5])
        assert (found[product], found[step]) == (np.float32(0.5), 7)
