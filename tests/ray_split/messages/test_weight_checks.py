"""What the fed server takes of phones where the aggregator wants each one's weights."""

import numpy as np
import pytest

from ray_split.errors import BadPhoneError
from ray_split.messages.state import Closed, Rows, Terms
from ray_split.messages.weight_checks import Expected, check_closed, norms

PHONES, X = (4, 7), "weights/x"
START = {"a": {X: np.zeros(3, np.float32)}}
EXPECTED = Expected({"a": frozenset({X})}, frozenset(), 10.0, bounded=frozenset({X}), rows=True)
GOOD, SHARES = np.ones((2, 3), np.float32), np.array([0.5, 0.25])


def closed(rows=GOOD, shares=SHARES, sums=None, states=None):
    return Closed(PHONES, sums or {}, {}, 12, Rows(states or {"a": {X: rows}}, shares))


def test_each_phones_weights_are_taken_and_none_where_nothing_is_averaged():
    check_closed(PHONES, closed(), START, EXPECTED)
    check_closed(PHONES, Closed(PHONES, {}, {}, 0), START, EXPECTED)


@pytest.mark.parametrize(
    "odd",
    [
        closed(GOOD[0]), closed(GOOD[:1]), closed(GOOD.astype(np.float64)), closed(GOOD * np.nan), closed(GOOD * 100),
        closed(shares=SHARES[:1]), closed(shares=SHARES * np.nan), closed(shares=SHARES * 4), closed(shares=-SHARES),
        closed(shares=[0.5, 0.25]), closed(states={"b": {X: GOOD}}), closed(states={"a": {"weights/y": GOOD}}),
        closed(states=[GOOD]), closed(sums={"a": {X: GOOD[0]}}), Closed(PHONES, {"a": {X: GOOD[0]}}, {}, 12),
        closed()._replace(rows=GOOD), closed()._replace(phones=(4, 8)),
    ],
)  # fmt: skip
def test_what_is_not_each_phones_weights_is_the_phones_fault(odd):
    with pytest.raises(BadPhoneError) as caught:
        check_closed(PHONES, odd, START, EXPECTED)
    assert caught.value.phones == PHONES


def test_where_sums_are_wanted_rows_are_not_taken():
    with pytest.raises(BadPhoneError, match="not their sum"):
        check_closed(PHONES, closed(), START, EXPECTED._replace(rows=False))


def test_complex_weights_have_a_norm_and_are_refused_if_they_are_not_finite():
    assert norms([np.array([[3 + 4j], [np.nan * 1j]], np.complex64)], of_each=True)[0] == 5
    rows, start = GOOD.astype(np.complex64), {"a": {X: np.zeros(3, np.complex64)}}
    check_closed(PHONES, closed(rows), start, EXPECTED)
    rows[1, 2] = 1j * np.inf
    with pytest.raises(BadPhoneError, match=r"phone 7.*not finite"):
        check_closed(PHONES, closed(rows), start, EXPECTED)


def remembering(own=None, shared=None, name="a"):
    return Closed(PHONES, {}, {}, 12, remembered={name: Terms({X: GOOD} if own is None else own, shared or {})})


def test_what_an_algorithm_remembers_is_taken_with_or_without_what_is_shared():
    check_closed(PHONES, remembering(), START, EXPECTED)
    check_closed(PHONES, remembering(shared={X: GOOD[0]}), START, EXPECTED)


@pytest.mark.parametrize(
    "odd",
    [
        remembering({X: GOOD[:1]}), remembering({}), remembering({X: GOOD.astype(np.float64)}), remembering(name="b"),
        remembering({"weights/y": GOOD}), remembering(shared={X: GOOD}), remembering(shared={"weights/y": GOOD[0]}),
        remembering({X: [GOOD]}), remembering()._replace(remembered=[GOOD]),
        remembering()._replace(remembered={"a": GOOD}),
    ],
)  # fmt: skip
def test_what_is_none_of_the_weights_terms_is_the_phones_fault(odd):
    with pytest.raises(BadPhoneError) as caught:
        check_closed(PHONES, odd, START, EXPECTED)
    assert caught.value.phones == PHONES


def test_of_terms_that_are_not_finite_the_phone_is_told():
    own = GOOD.copy()
    own[1, 0] = np.nan
    with pytest.raises(BadPhoneError, match=r"phone 7: what it remembers.*not finite"):
        check_closed(PHONES, remembering({X: own}), START, EXPECTED)
