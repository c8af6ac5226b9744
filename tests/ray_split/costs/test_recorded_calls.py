"""What is recorded of a schedule is what it submits in a real run."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

import ray_split as rs
from actors.inprocess import LocalHandle, LocalRef
from ray_split.costs.recorded_calls import Call, Merged, replay
from ray_split.costs.virtual_timeline import ARRIVES
from ray_split.preparation.prepare import prepare
from ray_split.schedules import schedule_of
from tests.tiers import thorough

SCHEDULES = ("sequential", "splitfed_v1", "splitfed_v2", "splitfed_v3", "parallel", "fedavg", "unsplit")
OF_A_SCHEDULE = {
    "client": ("load", "forward", "loss", "backward", "train_alone", "close", "state"),
    "server": (*ARRIVES, "open", "close", "step", "take", "pass_on"),
    "fed server": ("collect",),
}  # the round loop calls others


def settings_of(schedule: str, folder: Any, **more: Any) -> rs.Config:
    sections = {"phones": {"count": 5, **more.pop("phones", {})}, "cluster": {"backend": "inprocess"}}
    run = {"rounds": 1, "storage_path": str(folder), "name": "x", "eval_every": 1}
    data = {"name": "synthetic", "kwargs": {"samples": 150}, "partition": {"name": "dirichlet"}}
    return rs.Config(schedule={"name": schedule}, data=data, run=run, **{**sections, **more})


def called(settings: rs.Config, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What actors are called with in a real run, by role, number, method, turn and the count of further arguments."""
    calls: list[tuple[Any, ...]] = []
    real = LocalHandle.call

    def noting(self: LocalHandle, name: str, arguments: list[Any]) -> Any:
        role, number = _role(self.name)
        if name in OF_A_SCHEDULE[role] and not (name == "load" and _of_the_loop(role, arguments[0])):
            calls.append(told(role, number, name, tuple(arguments)))
        return real(self, name, arguments)

    monkeypatch.setattr(LocalHandle, "call", noting)
    rs.fit(settings, callbacks=[])
    return calls


def _of_the_loop(role: str, turn: Any) -> bool:
    """Whether a load restores the round's start, or is an evaluation's."""
    return role == "server" or not turn.phones or turn.round > 0


def _role(name: str) -> tuple[str, int]:
    role, _, number = name.rpartition(" ")
    return (role, int(number)) if number.isdecimal() else (name, 0)


def told(role: str, number: int, method: str, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    turn = arguments[0]._replace(attempt=0)
    return role, number, method, turn, len(arguments)


def recorded(settings: rs.Config) -> list[tuple[Any, ...]]:
    prepared, calls = prepare(settings), list[Call]()
    settings, servers = prepared.settings, prepared.settings.server.replicas

    def note(call: Call) -> Any:
        calls.append(call)
        return [LocalRef()] * call.num_returns if call.num_returns > 1 else LocalRef()

    single = len(settings.model.cuts or ()) == 1
    submit = schedule_of(settings.schedule).bind(settings.schedule.kwargs)
    replay(submit, Merged(prepared.stream, servers), 0, note, servers, single)
    calls = [call for call in calls if call.method in OF_A_SCHEDULE[call.role]]
    return [told(call.role, call.number, call.method, call.arguments) for call in calls]


def whole_cohorts(schedule: str) -> dict[str, Any]:
    one_by_one = schedule in ("sequential", "splitfed_v2", "unsplit")
    return {"phones": {} if one_by_one else {"cohort": 5}}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("cuts", [None, *thorough(["block1"])])
@pytest.mark.few(2)
def test_what_is_recorded_is_what_a_real_run_submits(
    schedule: str, cuts: list[str] | None, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(schedule, tmp_path, model={"cuts": cuts}, **whole_cohorts(schedule))
    found = called(settings, monkeypatch)
    assert len(found) >= 4
    assert recorded(settings) == found


def test_with_a_joint_batch_too(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of("parallel", tmp_path, phones={"cohort": 5})
    settings = settings.with_values(schedule={"kwargs": {"batch": "joint"}})
    found = called(settings, monkeypatch)
    served = [(method, turn) for role, _, method, turn, _ in found if role == "server"]
    assert {method for method, _ in served} == {"forward", "backward", "step"}
    # All phones that have a batch in one call.
    assert all(turn.joint.sizes == (len(turn.phones),) for method, turn in served if method != "step")
    assert sorted(served[0][1].phones) == [0, 1, 2, 3, 4]
    assert recorded(settings) == found


ONCE = ("load", "close", "train_alone")  # at whichever step a cohort does


def by_phone(calls: list[tuple[Any, ...]], steps: dict[int, int]) -> Counter[tuple[Any, ...]]:
    """Each phone's calls: method, step, phone; without those of its cohort at which it has no batch any more."""
    found: Counter[tuple[Any, ...]] = Counter()
    for role, _, method, turn, _ in calls:
        for phone in turn.phones if role == "client" else ():
            if method in ONCE:
                found[method, None, phone] += 1
            elif turn.step < steps[phone]:
                found[method, turn.step, phone] += 1
    return found


@pytest.mark.parametrize("schedule", ["splitfed_v1", *thorough("splitfed_v3", "parallel", "fedavg")])
@pytest.mark.parametrize("cohort", [1, 2])
def test_smaller_cohorts_are_the_same_calls_of_each_phone(
    schedule: str, cohort: int, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = {"backend": "inprocess", "client_actors": 2}
    settings = settings_of(schedule, tmp_path, phones={"cohort": cohort}, cluster=cluster)
    steps = dict(enumerate(prepare(settings).stream.steps(range(5)).tolist()))
    real = by_phone(called(settings, monkeypatch), steps)
    assert len({phone for _, _, phone in real}) == 5
    assert by_phone(recorded(settings), steps) == real


def test_each_replica_serves_the_phones_that_parallel_deals_it(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of("parallel", tmp_path, phones={"cohort": 1}, server={"replicas": 2})

    def served(calls: list[tuple[Any, ...]]) -> set[tuple[int, int]]:
        forwards = [(number, turn) for role, number, name, turn, _ in calls if (role, name) == ("server", "forward")]
        return {(number, phone) for number, turn in forwards for phone in turn.phones}

    found = served(called(settings, monkeypatch))
    assert len(found) == 5
    assert served(recorded(settings)) == found
