"""What must hold of virtual time whatever the numbers are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from ray_split.costs.virtual_clock import Clock, Times
from ray_split.costs.workload import Line, Weights, Work
from tests.clocks import settings_of, stream_of

SCHEDULES = ("sequential", "splitfed_v1", "splitfed_v2", "splitfed_v3", "parallel", "fedavg", "unsplit")
ABREAST = ("splitfed_v1", "splitfed_v2", "splitfed_v3", "parallel")
REPLICATED = ABREAST

numbers = st.floats(0.1, 10)
lines = st.builds(lambda each, fixed: Line(each * 1e6, fixed * 1e6), numbers, numbers)
weights = st.builds(
    lambda down, up, slots: Weights((down + up) * 1e5, up * 1e5, slots * 1e5), numbers, numbers, numbers
)
works = st.builds(Work, **dict.fromkeys(Work._fields[:9], lines), ends=weights, middle=weights)
links = st.fixed_dictionaries({
    "up_mbps": numbers, "down_mbps": numbers, "latency_ms": st.floats(0, 100), "jitter_ms": st.floats(0, 50),
    "loss": st.floats(0, 0.3),
})  # fmt: skip
devices = st.fixed_dictionaries({"gflops": numbers})


@st.composite
def cases(draw: st.DrawFn, schedules: tuple[str, ...] = SCHEDULES) -> dict[str, Any]:
    samples = draw(st.lists(st.integers(1, 12), min_size=1, max_size=5))
    mix = draw(st.lists(st.tuples(links, numbers), min_size=1, max_size=3))
    return {
        "schedule": draw(st.sampled_from(schedules)), "batch": draw(st.sampled_from(["accumulated", "joint"])),
        "samples": samples, "seed": draw(st.integers(0, 99)), "work": draw(works), "server": draw(devices),
        "device": draw(devices), "link": [{"of": link, "weight": weight} for link, weight in mix],
        "replicas": draw(st.integers(1, 3)), "cuts": "a,c",
    }  # fmt: skip


def times_of(case: dict[str, Any], **other: Any) -> Times:
    case = {**case, **other}
    phones = {"count": len(case["samples"]), "local_steps": None, "link": case["link"]}
    replicas = case["replicas"] if case["schedule"] in REPLICATED else 1
    server = {"device": case["server"], "replicas": replicas}
    settings = settings_of(
        case["schedule"], case["cuts"], case["device"], case["seed"], case["batch"], phones=phones, server=server
    )
    return Clock(settings, case["work"]).round(stream_of(settings, case["samples"]), 1)


@limits(max_examples=60, deadline=None)
@given(cases())
def test_the_four_parts_add_up_to_each_phones_round(case: dict[str, Any]) -> None:
    times = times_of(case)
    assert np.allclose(sum(times.parts.values()), times.seconds, rtol=1e-9)
    assert all((part >= 0).all() for part in times.parts.values())


@limits(max_examples=60, deadline=None)
@given(cases())
def test_what_a_phone_computes_and_sends_is_its_own_whatever_the_others_do(case: dict[str, Any]) -> None:
    """Nothing is told twice and nothing is lost: these follow from the work alone, without a timeline."""
    times, work, samples = times_of(case), case["work"], case["samples"]
    batches = [[min(4, samples[phone] - start) for start in range(0, samples[phone], 4)] for phone in times.phones]
    alone = case["schedule"] in ("fedavg", "unsplit")
    server = [sum(work.b_forward.at(n) + work.b_backward.at(n) for n in own) for own in batches]
    phone = [sum(work.a_forward.at(n) + work.a_backward.at(n) + work.c.at(n) for n in own) for own in batches]
    rate, serving = case["device"]["gflops"] * 1e9, case["server"]["gflops"] * 1e9
    assert np.allclose(times.parts["phone"], (np.array(phone) + np.array(server) * alone) / rate)
    assert np.allclose(times.parts["server"], np.array(server) * (not alone) / serving)


@limits(max_examples=100, deadline=None)
@given(cases(), st.sampled_from(["up_mbps", "down_mbps", "latency_ms", "jitter_ms", "loss"]), st.floats(0, 1))
def test_a_better_link_never_makes_a_phone_later(case: dict[str, Any], number: str, share: float) -> None:
    (first, *others), slower = case["link"], 1 - share if number in ("latency_ms", "jitter_ms", "loss") else 1 + share
    better = [{**first, "of": {**first["of"], number: first["of"][number] * slower}}, *others]
    assert (times_of(case, link=better).seconds <= times_of(case).seconds + 1e-9).all()


@limits(max_examples=60, deadline=None)
@given(cases(), st.sampled_from(["device", "server"]), st.floats(1, 3))
def test_a_faster_device_never_makes_a_phone_later(case: dict[str, Any], which: str, factor: float) -> None:
    faster = {"gflops": case[which]["gflops"] * factor}
    assert (times_of(case, **{which: faster}).seconds <= times_of(case).seconds + 1e-9).all()


@pytest.mark.thorough
@limits(max_examples=100, deadline=None)
@given(cases(ABREAST))
def test_phones_abreast_are_never_later_than_one_after_the_other(case: dict[str, Any]) -> None:
    """Any path through a round is of different calls and messages, and `sequential` adds all of them up.

    It holds of the round, not of each phone: the first one of `sequential` has the server to itself.
    """
    assert times_of(case).whole <= times_of(case, schedule="sequential").whole + 1e-9


@limits(max_examples=40, deadline=None)
@given(cases(REPLICATED))
def test_what_is_the_same_twice_takes_the_same_time(case: dict[str, Any]) -> None:
    assert (times_of(case).seconds == times_of(case).seconds).all()


@pytest.mark.parametrize("schedule", [name for name in SCHEDULES if name != "splitfed_v2"])  # it draws an order
def test_a_round_without_jitter_and_loss_does_not_depend_on_the_round(schedule: str) -> None:
    settings = settings_of(schedule, phones={"count": 3})
    clock = Clock(settings, Work(*[Line(1e6)] * 9, Weights(1e5, 1e5), Weights(1e5, 1e5)))
    rounds = [clock.round(stream_of(settings), round).whole for round in (0, 1, 2)]
    assert np.allclose(rounds, rounds[0])
