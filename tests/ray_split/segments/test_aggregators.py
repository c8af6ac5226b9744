"""Each aggregator against numbers worked out by hand, and what it promises, for any weights."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ray_split.config import Aggregator
from ray_split.errors import SettingsError
from ray_split.messages.state import Rows
from ray_split.segments.aggregators import (
    AGGREGATORS,
    check,
    combined,
    mean,
    median,
    norm_clipping,
    trimmed,
    trimmed_mean,
)

ROBUST = ["median", "trimmed_mean", "norm_clipping"]
X = "weights/x"


def of(aggregate, rows, shares=None, start=None, **kwargs):
    """What an aggregator makes of phones' values of one tensor, in double precision."""
    rows = np.array(rows, np.float64)
    shares = np.full(len(rows), 1 / len(rows)) if shares is None else np.array(shares)
    start = np.zeros(rows.shape[1:]) if start is None else np.array(start, np.float64)
    return aggregate({X: rows}, shares, {X: start}, **kwargs)[X]


def rows_of(*values, dtype=np.float32):
    """Phones' states (P, ...) as `combined` has them, the share of each phone as large as its number."""
    each = np.array(values, dtype)
    numbers = np.arange(1, len(each) + 1)
    states = {X: each, "buffers/y": each[:, 0], "weights/n.num_batches_tracked": numbers}
    return Rows({"a": states}, numbers / numbers.sum())


def start_of(rows):
    return {name: {key: np.zeros_like(array[0]) for key, array in s.items()} for name, s in rows.states.items()}


def test_the_mean_is_weighted_by_shares():
    assert of(mean, [[4, 8], [0, 4]], [0.75, 0.25]).tolist() == [3, 7]


def test_the_median_takes_each_coordinate_alone_and_no_share():
    assert of(median, [[1, 5], [2, -9], [90, 6]], [0.1, 0.1, 0.8]).tolist() == [2, 5]
    assert of(median, [[1], [2], [4], [90]], [0.1, 0.1, 0.1, 0.7]).tolist() == [3]


def test_the_trimmed_mean_cuts_both_ends_of_each_coordinate():
    rows = [[1, 50], [2, 3], [3, 1], [6, -70], [-80, 5]]
    assert of(trimmed_mean, rows, [0.1, 0.1, 0.1, 0.1, 0.6], trim=0.2).tolist() == [2, 3]
    assert of(trimmed_mean, rows, trim=0.4).tolist() == of(median, rows).tolist()


@pytest.mark.parametrize(
    ("trim", "phones", "cut"),
    [(0.2, 1, 0), (0.2, 2, 0), (0.01, 3, 1), (0.49, 3, 1), (0.49, 4, 1), (0.1, 20, 2), (0.1, 30, 3), (0.07, 100, 7),
     (0.29, 100, 29), (0.1, 25, 3), (0.2, 5, 1), (0.499, 1000, 499)],
)  # fmt: skip
def test_of_three_phones_or_more_at_least_one_is_cut_at_each_end_and_one_is_left(trim, phones, cut):
    assert trimmed(trim, phones) == cut


def test_norm_clipping_shortens_long_updates_and_leaves_short_ones():
    start, rows = [1, 1], [[4, 5], [1, 1.5], [1, 1]]  # updates of length 5, 0.5 and 0
    found = of(norm_clipping, rows, [0.5, 0.25, 0.25], start, max_norm=1.0)
    assert found == pytest.approx([1 + 0.5 * 0.6, 1 + 0.5 * 0.8 + 0.25 * 0.5])
    found = of(norm_clipping, rows, [0.5, 0.25, 0.25], start)  # the median of 5, 0.5, 0
    assert found == pytest.approx([1 + 0.5 * 0.3, 1 + 0.5 * 0.4 + 0.25 * 0.5])


def test_the_norm_is_of_all_of_a_segments_tensors():
    rows, start = {"x": np.array([[3.0]]), "y": np.array([4.0])}, {"x": np.zeros(1), "y": np.zeros(())}
    found = norm_clipping(rows, np.ones(1), start, max_norm=1.0)
    assert (found["x"][0], found["y"]) == (pytest.approx(0.6), pytest.approx(0.8))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_what_is_no_number_does_no_harm(bad):
    rows = [[1.0, 2.0], [bad, bad], [2.0, 1.0], [1.5, 1.5], [1.0, 1.0]]
    for found in (
        of(median, rows),
        of(trimmed_mean, rows),
        of(norm_clipping, rows),
        of(norm_clipping, rows, max_norm=9),
    ):
        assert (found > 0).all() and (found <= 2).all()


VALUES = arrays(np.float64, st.tuples(st.integers(3, 9), st.integers(1, 4)), elements=st.floats(-100, 100))


@given(honest=VALUES, data=st.data())
def test_median_and_trimmed_mean_stay_among_the_honest_values(honest, data):
    most = (len(honest) - 1) // 2
    bad = np.array(data.draw(st.lists(st.floats(-1e30, 1e30), min_size=most, max_size=most))).reshape(most, 1)
    rows = np.concatenate([honest, np.broadcast_to(bad, (most, honest.shape[1]))])
    low, high = honest.min(0), honest.max(0)
    for found in (of(median, rows), of(trimmed_mean, rows, trim=(most + 0.5) / len(rows))):
        assert (low - 1e-9 <= found).all() and (found <= high + 1e-9).all()


@pytest.mark.parametrize("name", ROBUST)
@given(rows=VALUES, data=st.data())
def test_the_order_of_the_phones_does_not_matter(name, rows, data):
    shares = np.arange(1.0, 1 + len(rows))
    order = np.array(data.draw(st.permutations(range(len(rows)))))
    one = of(AGGREGATORS[name].combine, rows, shares / shares.sum())
    other = of(AGGREGATORS[name].combine, rows[order], shares[order] / shares.sum())
    assert np.allclose(one, other, rtol=1e-12, atol=1e-9)
    assert name == "norm_clipping" or (one == other).all()


@given(rows=VALUES, limit=st.floats(1e-3, 1e3))
def test_norm_clipping_moves_no_further_than_the_limit(rows, limit):
    start = np.full(rows.shape[1], 7.0)
    assert np.linalg.norm(of(norm_clipping, rows, None, start, max_norm=limit) - start) <= limit + 1e-9
    longest = np.median(np.linalg.norm(rows - start, axis=1))
    assert np.linalg.norm(of(norm_clipping, rows, None, start) - start) <= longest + 1e-9


@given(rows=VALUES)
def test_without_a_bound_norm_clipping_is_the_mean(rows):
    shares = np.arange(1.0, 1 + len(rows)) / np.arange(1.0, 1 + len(rows)).sum()
    found = of(norm_clipping, rows, shares, np.full(rows.shape[1], 7.0), max_norm=np.inf)
    assert np.allclose(found, np.average(rows, axis=0, weights=shares), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", AGGREGATORS)
def test_one_phone_alone_gives_its_own_weights(name):
    rows = rows_of([0.1, 1e-30, -3e38])
    found = combined(Aggregator(name=name), [rows], start_of(rows))["a"]
    assert all((found[key] == array[0]).all() for key, array in rows.states["a"].items())


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("name", AGGREGATORS)
def test_kinds_and_shapes_stay_and_integers_are_the_largest(name, dtype):
    rows = rows_of([1, 2], [3, 4], [9, 9], dtype=dtype)
    for array in rows.states["a"].values():
        array.flags.writeable = False
    start = start_of(rows)
    found = combined(Aggregator(name=name), [rows], start)["a"]
    for key, array in start["a"].items():
        assert isinstance(found[key], np.ndarray)
        assert (found[key].dtype, found[key].shape) == (array.dtype, array.shape)
    assert found["weights/n.num_batches_tracked"] == 3


@pytest.mark.parametrize("name", AGGREGATORS)
def test_cohorts_are_put_together_in_their_order(name):
    whole = rows_of([1, 2], [3, -4], [9, 9], [0, 7], [5, 5])
    parts = [
        Rows({"a": {k: v[at] for k, v in whole.states["a"].items()}}, whole.shares[at])
        for at in (slice(0, 2), slice(2, 5))
    ]
    one, other = (combined(Aggregator(name=name), rows, start_of(whole))["a"] for rows in ([whole], parts))
    assert all(one[key].tobytes() == other[key].tobytes() for key in one)


def test_what_has_nothing_to_aggregate_gives_nothing():
    assert combined(Aggregator(name="median"), [], {}) == {}
    assert combined(Aggregator(name="median"), [Rows({"a": {}}, np.ones(2))], {"a": {}}) == {"a": {}}


def without_shares(rows, shares, start):
    return {key: array[0] for key, array in rows.items()}


def of_another_shape(rows, shares, start, **anything):
    return rows


def failing(rows, shares, start):
    raise ValueError("no")


HERE = "tests.ray_split.segments.test_aggregators"


@pytest.mark.parametrize(
    ("settings", "averages", "field", "allowed"),
    [
        ({"name": "meadian"}, True, "aggregator.name", "Did you mean median?"),
        (
            {"name": "median"},
            False,
            "aggregator.name",
            "can't be used with schedule.name sequential, where nothing is averaged",
        ),
        (
            {"name": "mean", "kwargs": {"trim": 0.1}},
            True,
            "aggregator.kwargs",
            "mean takes no argument 'trim'. mean takes nothing.",
        ),
        ({"name": "trimmed_mean", "kwargs": {"trimm": 0.1}}, True, "aggregator.kwargs", "Did you mean trim?"),
        ({"name": "trimmed_mean", "kwargs": {"rows": 0.1}}, True, "aggregator.kwargs", "trim"),
        ({"name": "trimmed_mean", "kwargs": {"trim": 0.5}}, True, "aggregator.kwargs", "less than 0.5"),
        ({"name": "trimmed_mean", "kwargs": {"trim": 0}}, True, "aggregator.kwargs", "greater than 0"),
        ({"name": "trimmed_mean", "kwargs": {"trim": "some"}}, True, "aggregator.kwargs", "less than 0.5"),
        ({"name": "norm_clipping", "kwargs": {"max_norm": 0}}, True, "aggregator.kwargs", "greater than 0, or none"),
        ({"name": "norm_clipping", "kwargs": {"max_norm": float("nan")}}, True, "aggregator.kwargs", "greater than 0"),
        ({"name": f"{HERE}:nothing"}, True, "aggregator.name", "has no function 'nothing'"),
        (
            {"name": f"{HERE}:of_another_shape"},
            True,
            "aggregator.name",
            "Return a dict with the keys and shapes of start",
        ),
        ({"name": f"{HERE}:failing"}, True, "aggregator.name", "with ValueError: no"),
        (
            {"name": f"{HERE}:without_shares", "kwargs": {"x": 1}},
            True,
            "aggregator.kwargs",
            "takes no argument 'x'. without_shares takes nothing.",
        ),
    ],
)
def test_what_can_not_be_is_one_clear_line(settings, averages, field, allowed):
    with pytest.raises(SettingsError) as caught:
        check(Aggregator(**settings), averages, "sequential")
    assert caught.value.field == field
    assert allowed in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_what_may_be():
    for name in AGGREGATORS:
        check(Aggregator(name=name), True, "fedavg")
    check(Aggregator(), False, "sequential")
    check(Aggregator(name="norm_clipping", kwargs={"max_norm": None}), True, "fedavg")
    check(Aggregator(name=f"{HERE}:without_shares"), True, "fedavg")
    assert [name for name, aggregator in AGGREGATORS.items() if aggregator.by_sums] == ["mean"]


@pytest.mark.parametrize(("name", "expected"), [("median", [1 + 5j]), ("trimmed_mean", [1 + 5j]), ("mean", [4 + 5j])])
def test_complex_weights_are_pairs_of_coordinates(name, expected):
    rows = Rows({"a": {X: np.array([[0 + 1j], [1 + 9j], [11 + 5j]], np.complex64)}}, np.full(3, 1 / 3))
    found = combined(Aggregator(name=name), [rows], start_of(rows))["a"][X]
    assert found.dtype == np.complex64
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_the_norm_of_a_complex_update_is_that_of_both_parts():
    rows = Rows({"a": {X: np.array([[3 + 4j], [0.6 - 0.8j]], np.complex64)}}, np.array([0.5, 0.5]))
    clipped = combined(Aggregator(name="norm_clipping", kwargs={"max_norm": 1.0}), [rows], start_of(rows))["a"][X]
    np.testing.assert_allclose(clipped, [0.6 + 0j], atol=1e-6)
