"""Who is off, drops out or comes late, and how far each comes: drawn before the round, from the settings alone."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_split import config
from ray_split.data import partitions
from ray_split.data.participation import Ends, Fate, cut_off, drawn, equal_steps
from ray_split.data.stream import Stream, Times
from ray_split.errors import SettingsError
from ray_split.schedules import schedule_of


def stream_of(
    samples: int = 240,
    count: int = 8,
    schedule: str = "splitfed_v1",
    seed: int = 0,
    times: Times | None = None,
    **phones: Any,
) -> Stream:
    settings = config.Config(
        phones={"count": count, **phones},
        data={"batch_size": 4},
        schedule={"name": schedule},
    )
    partition = partitions.deal(settings, np.zeros(samples))
    return Stream(settings, partition, schedule_of(settings.schedule).order, times)


def fate_of(steps: list[int], dropped: tuple[int, ...] = ()) -> Fate:
    each = np.arange(len(steps))
    return Fate(each, np.array(steps), np.isin(each, dropped), np.zeros(len(steps), bool))


def test_nothing_fails_unless_it_is_asked_for() -> None:
    stream = stream_of()
    fate = stream.fate(3)
    assert fate.finished.all() and fate.row() == {
        "phones": 8, "phones_offline": 0, "phones_dropped": 0, "phones_late": 0,
    }  # fmt: skip
    assert stream.taken(3, stream.phones(3)).tolist() == stream.steps(stream.phones(3)).tolist()
    assert stream.cut_short(3, stream.phones(3)) is None


def test_phones_are_off_and_drop_out_as_often_as_the_settings_say() -> None:
    stream = stream_of(samples=40_000, count=1000, availability=0.8, dropout=0.3)
    offline, dropped, on = 0, 0, 0
    places = np.zeros(10)
    for round in range(20):
        fate = stream.fate(round)
        offline, dropped, on = offline + fate.offline, dropped + fate.dropped.sum(), on + len(fate.phones)
        places += np.bincount(fate.steps[fate.dropped], minlength=10)
    assert offline + on == 20_000
    assert offline / 20_000 == pytest.approx(0.2, abs=0.01)
    assert dropped / on == pytest.approx(0.3, abs=0.012)
    assert places / dropped == pytest.approx(np.full(10, 0.1), abs=0.015)  # of ten steps each is as likely


def test_fates_do_not_depend_on_the_other_phones_or_on_what_was_asked_before() -> None:
    stream, again = (stream_of(count=50, samples=2000, availability=0.7, dropout=0.5) for _ in range(2))
    found = [stream.fate(round).column(np.arange(50)).tolist() for round in range(4)]
    assert [again.fate(round).column(np.arange(50)).tolist() for round in (3, 2, 1, 0)] == found[::-1]
    assert len({tuple(fates) for fates in found}) == 4
    phone = next(phone for phone, fate in enumerate(found[0]) if fate == "dropped")
    steps = stream.taken(0, [phone])
    again.leave_out((phone + 1) % 50, 0)
    assert again.fate(0).column(np.array([phone])).tolist() == ["dropped"]
    assert again.taken(0, [phone]) == steps


def test_who_is_drawn_and_off_is_passed_over() -> None:
    everybody, some = stream_of(count=40, per_round=10), stream_of(count=40, per_round=10, availability=0.5)
    for round in range(5):
        on = some.phones(round)
        assert on == tuple(phone for phone in everybody.phones(round) if phone in on)
        assert len(on) + some.fate(round).offline == 10


def test_more_are_drawn_by_over_select_as_far_as_there_are_more() -> None:
    phones = config.Config(phones={"count": 100, "per_round": 10, "over_select": 0.3}).phones
    assert drawn(phones, 100) == 13
    assert drawn(phones, 12) == 12
    assert len(stream_of(count=100, samples=800, per_round=10, over_select=0.25).phones(0)) == 13  # rounded up


@pytest.mark.parametrize(
    ("phones", "message"),
    [
        ({"over_select": 0.3}, "phones.over_select"),
        ({"per_round": 5, "over_select": -0.1}, "phones.over_select"),
        ({"availability": 0}, "phones.availability"),
        ({"availability": 1.1}, "phones.availability"),
        ({"dropout": -0.1}, "phones.dropout"),
        ({"dropout": 2}, "phones.dropout"),
        ({"deadline": 0}, "phones.deadline"),
        ({"deadline": float("nan")}, "phones.deadline"),
    ],
)
def test_settings_that_make_no_sense_are_refused(phones: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        config.Config(phones=phones)


def test_the_round_ends_when_as_many_as_wanted_have_finished() -> None:
    ends = Ends(np.array([4.0, 2, 6, 3]), np.array([[2.0, 4], [1, 2], [3, 6], [1.5, 3]]))
    fate = cut_off(fate_of([2, 2, 2, 2]), ends, np.inf, wanted=2)
    assert fate.finished.tolist() == [False, True, False, True]
    assert fate.late.tolist() == [True, False, True, False]
    assert fate.steps.tolist() == [1, 2, 0, 2]  # those that ended before 3 seconds
    assert fate.over == 3


def test_the_round_ends_at_the_deadline() -> None:
    ends = Ends(np.array([4.0, 2, 6, 3]), np.array([[2.0, 4], [1, 2], [3, 6], [1.5, 3]]))
    fate = cut_off(fate_of([2, 2, 2, 2]), ends, 4.0, wanted=4)
    assert fate.late.tolist() == [False, False, True, False]
    assert fate.steps.tolist() == [2, 2, 1, 2]
    assert fate.over == 4
    assert cut_off(fate_of([2, 2, 2, 2]), ends, 100.0, wanted=4).over == 6


def test_who_drops_out_after_the_rounds_end_is_late() -> None:
    ends = Ends(np.array([1.0, 2, 8, 0]), np.array([[1.0, np.inf], [2, np.inf], [5, 8], [np.inf, np.inf]]))
    fate = cut_off(fate_of([1, 1, 2, 0], dropped=(0, 2, 3)), ends, 6.0, wanted=4)
    assert fate.dropped.tolist() == [True, False, False, True]
    assert fate.late.tolist() == [False, False, True, False]
    assert fate.steps.tolist() == [1, 1, 1, 0]
    assert fate.over == 6


def test_without_a_clock_who_has_fewer_steps_finishes_first_and_then_who_was_drawn_first() -> None:
    fate = cut_off(fate_of([3, 2, 2, 5]), equal_steps(np.array([3, 2, 2, 5]), in_turn=False), np.inf, wanted=2)
    assert fate.finished.tolist() == [False, True, True, False]
    assert fate.steps.tolist() == [1, 2, 2, 1]
    fate = cut_off(fate_of([3, 2, 2, 5]), equal_steps(np.array([3, 2, 2, 5]), in_turn=True), np.inf, wanted=2)
    assert fate.finished.tolist() == [True, True, False, False]
    assert fate.steps.tolist() == [3, 2, 0, 0]
    assert fate.reached.tolist() == [0, 1]


TIMES = st.lists(st.tuples(st.integers(0, 4), st.booleans(), st.floats(0.1, 9)), min_size=1, max_size=12)


@given(TIMES, st.one_of(st.just(np.inf), st.floats(0.5, 30)), st.integers(1, 12))
def test_every_phone_finishes_drops_or_is_late_and_none_does_more_than_it_would(
    phones: list[tuple[int, bool, float]], deadline: float, wanted: int
) -> None:
    steps = np.array([count if drops else count + 1 for count, drops, _ in phones])
    each = np.array([pace for *_, pace in phones])[:, None] * np.arange(1, 6)
    finish = np.where(steps > 0, np.take_along_axis(each, np.maximum(steps - 1, 0)[:, None], 1)[:, 0], 0.0)
    before = fate_of(steps.tolist(), tuple(i for i, (_, drops, _) in enumerate(phones) if drops))
    fate = cut_off(before, Ends(finish, each), deadline, wanted)
    assert fate.over is not None and fate.over <= min(deadline, finish.max())
    assert (fate.finished.astype(int) + fate.dropped + fate.late == 1).all()
    assert fate.finished.sum() <= wanted
    assert (fate.steps <= steps).all() and (fate.steps[fate.finished] == steps[fate.finished]).all()
    assert (finish[fate.finished] <= fate.over).all()
    assert not (fate.dropped & ~before.dropped).any() and not (fate.finished & before.dropped).any()
    if fate.finished.sum() < wanted:  # nobody in time is left out
        assert (fate.finished == ~before.dropped & (finish <= deadline)).all()


def test_made_up_times_decide_who_is_late() -> None:
    def times(stream: Stream, round: int) -> Ends:
        taken = stream.taken(round, stream.phones(round))
        pace = 1.0 + np.array(stream.phones(round))
        return Ends(pace * taken, pace[:, None] * np.arange(1, taken.max() + 1))

    stream = stream_of(count=6, samples=96, deadline=14.0, times=times)  # four steps each
    phones = np.array(stream.phones(0))
    assert dict(zip(phones.tolist(), stream.taken(0, phones).tolist(), strict=True)) == {
        0: 4, 1: 4, 2: 4, 3: 3, 4: 2, 5: 2,
    }  # fmt: skip
    assert sorted(stream.finishing(0)) == [0, 1, 2]
    assert stream.fate(0).over == 14
    assert stream.fate(0).column(np.array([0, 5, 99])).tolist() == ["finished", "late", None]


def test_cohorts_have_those_with_a_batch_at_a_step_first_and_shares_are_the_finishing_phones() -> None:
    stream = stream_of(samples=203, count=9, cohort=4, dropout=0.5)
    for round in range(6):
        cohorts, finishing = stream.cohorts(round), stream.finishing(round)
        assert sorted(sum(cohorts, ())) == sorted(stream.phones(round))
        for phones in cohorts:
            taken = stream.taken(round, phones)
            assert (np.diff(taken) <= 0).all()
            groups = stream.cohort_batches(round, phones, stream.cut_short(round, phones))
            assert [sum(len(g) for g in at_step) for at_step in groups] == [
                int((taken > step).sum()) for step in range(int(taken.max(initial=0)))
            ]
            for place, phone in enumerate(phones):
                own = [row.tolist() for at_step in groups for row in [r for g in at_step for r in g][place : place + 1]]
                assert own == [batch.tolist() for batch in stream.batches(round, phone)[: taken[place]]]
        shares = np.concatenate([stream.shares(round, phones) for phones in cohorts])
        assert {p for p, share in zip(sum(cohorts, ()), shares, strict=True) if share} == set(finishing)
        assert shares.sum() == pytest.approx(1)


@pytest.mark.parametrize("schedule", ["splitfed_v1", "splitfed_v2"])
def test_a_rounds_draws_are_the_steps_that_are_taken(schedule: str) -> None:
    stream = stream_of(schedule=schedule, dropout=0.6, availability=0.7)
    for round in range(4):
        draws, phones = list(stream.draws(round)), stream.phones(round)
        for phone, taken in zip(phones, stream.taken(round, phones), strict=True):
            own = [draw for draw in draws if draw.phone == phone]
            assert [draw.step for draw in own] == list(range(taken))
            assert all(draw.finishes == (phone in stream.finishing(round)) for draw in own)
        assert stream.trained(round) == sum(len(draw.indices) for draw in draws)


def test_a_round_may_have_nobody_and_one_in_which_all_drop_out_has_no_shares() -> None:
    nobody = stream_of(count=2, samples=16, availability=1e-9)
    assert nobody.phones(0) == () and nobody.finishing(0) == ()
    assert nobody.fate(0).row() == {"phones": 0, "phones_offline": 2, "phones_dropped": 0, "phones_late": 0}
    assert list(nobody.draws(0)) == [] and nobody.trained(0) == 0
    dropped = stream_of(count=3, dropout=1.0)
    assert dropped.finishing(0) == () and dropped.shares(0, dropped.phones(0)).tolist() == [0, 0, 0]
    assert (dropped.taken(0, dropped.phones(0)) < dropped.steps(dropped.phones(0))).all()


def test_actors_get_the_stream_without_what_decides_lateness() -> None:
    stream = stream_of(dropout=0.3, times=lambda stream, round: Ends(np.zeros(8), np.zeros((8, 1))))
    assert (
        pickle.loads(pickle.dumps(stream)).taken(1, stream.phones(1)).tolist()
        == stream.taken(1, stream.phones(1)).tolist()
    )
