"""Rounds of two phones with two steps each, computed by hand.

A forward takes a second, A backward two, C one; B forward one, B backward two; each of the four messages one; A's and
C's weights two, down and up. So an exchange of one phone alone takes 1 + 1 + 1 + 1 + 1 + 1 + 2 + 1 + 2 = 11 seconds.
"""

from __future__ import annotations

import numpy as np
import pytest

from ray_split.costs.virtual_clock import Clock
from tests.clocks import GFLOP, HALF, SINGLE, WORK, in_order, parts, settings_of, stream_of

MIXED = [{"of": GFLOP, "weight": 1}, {"of": HALF, "weight": 1}]


def test_sequential_is_one_phone_after_the_other() -> None:
    assert parts("sequential") == [[26, 8, 6, 12, 0], [52, 8, 6, 12, 26]]  # 2 + 2 x 11 + 2 each


def test_splitfed_v1_serves_the_copies_one_at_a_time() -> None:
    # Phone 1 waits a second for the server at its first forward (5 for 4), and one at its first backward (10 for 9).
    assert parts("splitfed_v1") == [[26, 8, 6, 12, 0], [28, 8, 6, 12, 2]]


def test_splitfed_v3_sends_no_weights() -> None:
    assert parts("splitfed_v3") == [[22, 8, 6, 8, 0], [24, 8, 6, 8, 2]]


def test_splitfed_v2_begins_no_forward_before_the_other_phones_backward() -> None:
    # Phone 1's activation is there at 4, and phone 0's backward is done at 10. Then phone 0's is there at 15, and the
    # server free at 16; phone 1's at 21, and the server free at 22.
    assert parts("splitfed_v2") == [[27, 8, 6, 12, 1], [33, 8, 6, 12, 7]]


def test_parallel_with_accumulated_batches_serves_all_forwards_and_then_all_backwards() -> None:
    assert parts("parallel", batch="accumulated") == [[26, 8, 6, 12, 0], [28, 8, 6, 12, 2]]


def test_parallel_with_a_joint_batch_computes_both_together() -> None:
    # Both are there at 4, 9, 18 and 23; forwards take 2, backwards 4, of which half is each phone's own.
    assert parts("parallel", batch="joint") == [[32, 8, 6, 12, 6], [32, 8, 6, 12, 6]]


def test_fedavg_sends_the_whole_model_and_needs_no_server() -> None:
    assert parts("fedavg") == [[26, 14, 0, 12, 0], [26, 14, 0, 12, 0]]  # 6 + 2 x 7 + 6


def test_unsplit_sends_nothing() -> None:
    assert parts("unsplit") == [[14, 14, 0, 0, 0], [28, 14, 0, 0, 14]]


def test_single_split_has_one_message_each_way() -> None:
    # 1 + 1 + 3 + 1 + 2 a step.
    assert parts("sequential", SINGLE, cuts="a") == [[20, 6, 6, 8, 0], [40, 6, 6, 8, 20]]
    # Phone 1 is there at 4, and the server free at 7; then it is there at 15, when the server is free again.
    assert parts("splitfed_v1", SINGLE, cuts="a") == [[20, 6, 6, 8, 0], [23, 6, 6, 8, 3]]


def test_each_replica_of_the_server_serves_its_own_phones() -> None:
    for schedule in ("splitfed_v1", "parallel", "splitfed_v2"):
        assert parts(schedule, server={"replicas": 2}) == [[26, 8, 6, 12, 0]] * 2
    assert parts("splitfed_v3", server={"replicas": 2}) == [[22, 8, 6, 8, 0]] * 2


def test_the_server_waits_for_who_is_next() -> None:
    """Phone 1 computes half as fast; phone 0 is held up by it, as it is served after phone 1's step before."""
    # Phone 0 has 26 seconds to itself. Forwards: 4-5, then phone 1's 5-6 (it is there at 5). Backwards: phone 0's 8-10,
    # phone 1's (down 7, C 9, up 10) 10-12. Phone 0's second forward 15-16; phone 1: down 13, A 17, A 19, up 20, 20-21.
    # Phone 0's second backward is there at 19, but phone 1's forward comes first: 21-23, down 24, A 26, weights 28.
    # Phone 1: down 22, C 24, up 25, 25-27, down 28, A 32, weights 34.
    assert parts("splitfed_v1", device=MIXED) == [[28, 8, 6, 12, 2], [34, 16, 6, 12, 0]]


def test_steps_end_with_the_backward_of_a() -> None:
    settings, stream = in_order("splitfed_v1")
    assert Clock(settings, WORK).step_ends(stream, 0).tolist() == [[13, 24], [15, 26]]
    settings, stream = in_order("fedavg")
    assert Clock(settings, WORK).step_ends(stream, 0).tolist() == [[13, 20], [13, 20]]


def test_a_phone_without_a_step_has_no_end_of_it() -> None:
    settings = settings_of("parallel", phones={"local_steps": None, "local_epochs": 1})
    stream = stream_of(settings, [4, 8])
    ends = Clock(settings, WORK).step_ends(stream, 0)
    assert np.isinf(ends[list(stream.phones(0)).index(0)]).tolist() == [False, True]
    times = Clock(settings, WORK).round(stream, 0)
    assert sum(times.parts["communication"]) == 2 * 4 + 3 * 4  # all send their weights in the end


def test_what_the_optimizer_remembers_is_handed_on() -> None:
    work = WORK._replace(ends=WORK.ends._replace(slots=1e6))
    settings, stream = in_order("sequential")
    clock = Clock(settings, work)
    assert clock.round(stream, 0).seconds.tolist() == [2 + 22 + 3, 27 + 3 + 22 + 3]
    later = clock.round(stream, 1)
    assert sorted(later.seconds.tolist()) == [28, 56]


def test_the_same_settings_give_the_same_times_and_other_rounds_others() -> None:
    link = {"up_mbps": 8, "down_mbps": 8, "latency_ms": 50, "jitter_ms": 40, "loss": 0.1}
    settings = settings_of("splitfed_v1", phones={"link": link})
    rounds = [Clock(settings, WORK).round(stream_of(settings), round).whole for round in (0, 0, 1)]
    assert rounds[0] == rounds[1] != rounds[2]


@pytest.mark.parametrize("schedule", ["splitfed_v1", "splitfed_v3", "parallel", "fedavg"])
def test_cohorts_make_no_difference_to_phones(schedule: str) -> None:
    def times(cohort: int) -> list[float]:
        phones = {"count": 7, "cohort": cohort, "local_steps": None}
        settings = settings_of(schedule, phones=phones, device=MIXED)
        found: list[float] = (
            Clock(settings, WORK).round(stream_of(settings, [4, 8, 3, 12, 5, 9, 4]), 0).seconds.tolist()
        )
        return found

    assert times(1) == times(2) == times(7)


def test_columns_are_in_the_order_of_the_phones_asked_for() -> None:
    settings, stream = in_order("splitfed_v1")
    columns = Clock(settings, WORK).round(stream, 0).columns(np.array([5, 1, 0]))
    assert columns["virtual_seconds"].tolist()[1:] == [28, 26]
    assert np.isnan(columns["virtual_waiting_seconds"][0])
    assert list(columns) == [
        "virtual_seconds", "virtual_phone_seconds", "virtual_server_seconds", "virtual_communication_seconds",
        "virtual_waiting_seconds",
    ]  # fmt: skip


def test_a_rounds_row_has_the_last_phones_end_and_the_phones_means() -> None:
    settings, stream = in_order("splitfed_v1")
    assert Clock(settings, WORK).round(stream, 0).row() == {
        "virtual_seconds": 28, "virtual_phone_seconds": 8, "virtual_server_seconds": 6,
        "virtual_communication_seconds": 12, "virtual_waiting_seconds": 1,
    }  # fmt: skip


def test_a_call_that_no_time_is_known_of_is_said() -> None:
    def schedule(turn, stream, roles):  # type: ignore[no-untyped-def]
        yield roles.server.dream.remote(turn)

    settings = settings_of("splitfed_v1")
    clock = Clock(settings, WORK)
    clock._schedule = schedule
    with pytest.raises(NotImplementedError, match=r"virtual time of server\.dream"):
        clock.round(stream_of(settings), 0)
