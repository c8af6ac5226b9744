"""What devices do wrong: they vanish, are slow, or send what they may not. The run ends as one that was told so."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ray_split as rs
from actors.inprocess import LocalHandle
from ray_split.devices import client
from ray_split.devices.frames import Frame, frame
from ray_split.devices.phone import DevicePhone
from ray_split.errors import ActorLostError
from tests.conftest import alive_actors
from tests.loopback import FailingPhone, devices, remotely, samples_of
from tests.runs.equality.test_same_bytes import model_bytes, rows

STEPS, ROUNDS = 2, 2
QUESTIONS = 2 + 3 * STEPS  # of a phone's round: load, each step's three, close
LAST = 2  # the phone that is on a device


def config(path: Path, name: str, schedule: str, **phones: Any) -> rs.Config:
    return rs.Config(
        model={"name": "mlp"},
        schedule={"name": schedule},
        data={"batch_size": 16},
        phones={"count": 3, "local_steps": STEPS, "cohort": 1, **phones},
        optimizer={"lr": 0.1, "momentum": 0.5},
        cluster={"backend": "inprocess"},
        run={"storage_path": str(path), "name": name, "rounds": ROUNDS, "eval_every": ROUNDS, "on_bad_phone": "skip"},
    )


def with_devices(path: Path, name: str, schedule: str, **phones: Any) -> tuple[rs.Result, list[Any]]:
    simulated = config(path, name, schedule)
    settings = remotely(simulated, path, name, remote=1, **phones)
    with devices(settings, samples_of(simulated)) as ended:
        return rs.fit(settings, callbacks=[]), ended


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], bytes]:
    """The model of a run that is told in which round the phone is off."""
    path, found = tmp_path_factory.mktemp("told"), dict[tuple[str, int], bytes]()

    def model(schedule: str, round: int) -> bytes:
        if (schedule, round) not in found:
            absent = {round: [LAST]}
            result = rs.fit(config(path, f"{schedule} {round}", schedule, absent=absent), callbacks=[])
            found[schedule, round] = model_bytes(result.path)
        return found[schedule, round]

    return model


@pytest.mark.few(2, thorough=5)
@pytest.mark.parametrize("number", range(QUESTIONS * ROUNDS))
@pytest.mark.parametrize("schedule", ["splitfed_v1", "sequential", "parallel", "splitfed_v2", "splitfed_v3"])
def test_a_device_that_dies_at_any_question_is_off_in_that_round_and_back_in_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: Callable[[str, int], bytes], schedule: str, number: int
) -> None:
    monkeypatch.setattr(client, "DevicePhone", FailingPhone)
    monkeypatch.setattr(client, "AGAIN_SECONDS", (0.05, 0.05))
    monkeypatch.setattr(FailingPhone, "asked", 0)
    monkeypatch.setattr(FailingPhone, "fails_at", number)
    result, ended = with_devices(tmp_path, "died", schedule)
    round = number // QUESTIONS
    assert model_bytes(result.path) == told(schedule, round)
    [absence] = result.metrics["absent"]
    assert (absence["phone"], absence["round"]) == (LAST, round)
    assert [row["phones_offline"] for row in rows(result.path)] == [int(each == round) for each in range(ROUNDS)]
    assert ended == ["the run is over"]


def test_a_device_that_is_too_slow_is_off_in_that_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: Callable[[str, int], bytes]
) -> None:
    """It does not answer one question, however long it takes."""
    asked = list[str]()

    class Silent(DevicePhone):
        def answer(self, question: Frame) -> Frame:
            asked.append(question.kind)
            found = super().answer(question)
            return frame(question.kind, id=0) if len(asked) == 3 else found  # an answer to what was asked long ago

    monkeypatch.setattr(client, "DevicePhone", Silent)
    simulated = config(tmp_path, "slow", "splitfed_v1")
    settings = remotely(simulated, tmp_path, "slow", remote=1).with_values(gateway={"timeout": 1})
    with devices(settings, samples_of(simulated)):
        result = rs.fit(settings, callbacks=[])
    assert model_bytes(result.path) == told("splitfed_v1", 0)
    assert "did not answer within 1 seconds" in result.metrics["absent"][0]["reason"]


WRONG: dict[str, Callable[[Frame], Frame | bytes]] = {
    "another kind": lambda right: frame("load", id=right.header["id"]),
    "no tensor": lambda right: frame(right.kind, id=right.header["id"]),
    "whole numbers": lambda right: Frame(right.header, {n: a.astype(np.int64) for n, a in right.tensors.items()}),
    "another shape": lambda right: Frame(right.header, {n: a[:1] for n, a in right.tensors.items()}),
    "not finite": lambda right: Frame(right.header, {n: a * np.float32("nan") for n, a in right.tensors.items()}),
    "another name": lambda right: Frame(right.header, {f"{n}2": a for n, a in right.tensors.items()}),
    "an id that was never asked": lambda right: Frame({**right.header, "id": 10**6}, right.tensors),
    "no id": lambda right: frame(right.kind),
}


@pytest.mark.few(2)
@pytest.mark.parametrize("at", ["forward", "loss", "close"])
@pytest.mark.parametrize("wrong", WRONG)
def test_a_device_that_sends_what_it_may_not_is_left_out_and_the_others_finish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str, at: str
) -> None:
    class Hostile(DevicePhone):
        def answer(self, question: Frame) -> Any:
            right = super().answer(question)
            return WRONG[wrong](right) if question.kind == at else right

    monkeypatch.setattr(client, "DevicePhone", Hostile)
    result, ended = with_devices(tmp_path, "hostile", "splitfed_v1")
    without = rs.fit(config(tmp_path, "without", "splitfed_v1", left_out={LAST: 0}), callbacks=[])
    assert model_bytes(result.path) == model_bytes(without.path)
    [left_out] = result.metrics["quarantined"]
    assert (left_out["phone"], left_out["round"]) == (LAST, 0)
    assert len(ended) == 1


SCORING = 4  # questions of an evaluation: load, evaluate, evaluate_loss, release


def scored(path: Path, name: str, monkeypatch: pytest.MonkeyPatch, phone: type[DevicePhone]) -> rs.Result:
    """A run of splitfed_v3 that is evaluated after each round, whose last phone is on such a device."""
    monkeypatch.setattr(client, "DevicePhone", phone)
    monkeypatch.setattr(client, "AGAIN_SECONDS", (0.05, 0.05))
    simulated = config(path, name, "splitfed_v3").with_values(run={"eval_every": 1, "test_every": 1})
    settings = remotely(simulated, path, name, remote=1)
    with devices(settings, samples_of(simulated)):
        return rs.fit(settings, callbacks=[])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("undisturbed")
    return model_bytes(rs.fit(config(path, "undisturbed", "splitfed_v3"), callbacks=[]).path)


@pytest.mark.few(3, thorough=8)
@pytest.mark.parametrize("number", range(2 * SCORING * ROUNDS))
def test_a_device_that_dies_at_any_question_of_an_evaluation_is_not_counted_in_it_and_trains_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: bytes, number: int
) -> None:
    round, within = divmod(number, 2 * SCORING)
    monkeypatch.setattr(FailingPhone, "asked", 0)
    monkeypatch.setattr(FailingPhone, "fails_at", (round + 1) * QUESTIONS + number)
    result = scored(tmp_path, "died", monkeypatch, FailingPhone)
    assert model_bytes(result.path) == undisturbed
    assert (result.metrics["absent"], result.metrics["quarantined"]) == ([], [])
    counts = [row[f"phones_scored_{part}"] for row in rows(result.path) for part in ("val", "test")]
    assert counts == [2 if each == 2 * round + within // SCORING else 3 for each in range(2 * ROUNDS)]


NO_SCORE: dict[str, tuple[str, Callable[[Frame], Frame]]] = {
    "another kind": ("evaluate", WRONG["another kind"]),  # type: ignore[dict-item]
    "no tensor": ("evaluate", WRONG["no tensor"]),  # type: ignore[dict-item]
    "another shape": ("evaluate", WRONG["another shape"]),  # type: ignore[dict-item]
    "more correct than there are": ("evaluate_loss", lambda right: Frame({**right.header, "correct": 10**6}, {})),
    "half of one": ("evaluate_loss", lambda right: Frame({**right.header, "correct": 0.5}, {})),
    "less than no loss": ("evaluate_loss", lambda right: Frame({**right.header, "loss": -1.0}, {})),
    "less than none not finite": ("evaluate_loss", lambda right: Frame({**right.header, "nonfinite": -1}, {})),
    "no loss": ("evaluate_loss", lambda right: frame(right.kind, id=right.header["id"])),
}


@pytest.mark.few(2, thorough=6)
@pytest.mark.parametrize("wrong", NO_SCORE)
def test_a_device_whose_score_can_not_be_is_not_scored_any_more_and_trains_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: bytes, wrong: str
) -> None:
    kind, change = NO_SCORE[wrong]

    class Hostile(DevicePhone):
        def answer(self, question: Frame) -> Frame:
            right = super().answer(question)
            return change(right) if question.kind == kind else right

    result = scored(tmp_path, "hostile", monkeypatch, Hostile)
    assert model_bytes(result.path) == undisturbed and result.metrics["quarantined"] == []
    assert {row[f"phones_scored_{part}"] for row in rows(result.path) for part in ("val", "test")} == {2}


def test_a_device_that_is_not_there_for_a_whole_run_is_not_waited_for_in_its_evaluations(tmp_path: Path) -> None:
    simulated = config(tmp_path, "alone", "splitfed_v3")
    settings = remotely(simulated, tmp_path, "alone", remote=1).with_values(run={"wait_for_phones": 0.1})
    result = rs.fit(settings, callbacks=[])
    assert [row["phones_scored_val"] for row in rows(result.path) if "phones_scored_val" in row] == [2]
    assert result.metrics["test_accuracy"] is not None


def test_a_device_that_says_that_it_failed_is_off_in_that_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: Callable[[str, int], bytes]
) -> None:
    failed = list[str]()

    class Failing(DevicePhone):
        def answer(self, question: Frame) -> Frame:
            if question.kind == "loss" and not failed:
                failed.append(question.kind)
                return frame("failed", id=question.header["id"], reason="out of battery")
            return super().answer(question)

    monkeypatch.setattr(client, "DevicePhone", Failing)
    result, _ = with_devices(tmp_path, "failed", "splitfed_v1")
    assert model_bytes(result.path) == told("splitfed_v1", 0)
    assert result.metrics["absent"][0]["reason"] == "its device failed: out of battery"


@pytest.mark.few(3)
@pytest.mark.parametrize("call", [1, 4, 9, 13])
def test_the_gateway_dies_devices_come_back_and_nobody_can_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    """At a call in the middle of a round; devices find the new one at the old address."""
    monkeypatch.setattr(client, "AGAIN_SECONDS", (0.05, 0.05))
    whole = rs.fit(config(tmp_path, "whole", "splitfed_v1"), callbacks=[])
    count, original = [0], LocalHandle.__getattr__

    def counted(handle: LocalHandle, name: str) -> Any:
        if handle.name == "gateway" and name in ("load", "forward", "loss", "backward", "close"):
            count[0] += 1
            if count[0] == call:
                handle.kill()
        return original(handle, name)

    monkeypatch.setattr(LocalHandle, "__getattr__", counted)
    result, _ = with_devices(tmp_path, "gateway", "splitfed_v1")
    assert count[0] > call and result.metrics["recoveries"] == 1 and result.metrics["absent"] == []
    assert model_bytes(result.path) == model_bytes(whole.path)


def test_a_round_begins_without_the_devices_that_do_not_come(tmp_path: Path, told: Callable[[str, int], bytes]) -> None:
    simulated = config(tmp_path, "alone", "splitfed_v1")
    settings = remotely(simulated, tmp_path, "alone", remote=1).with_values(run={"wait_for_phones": 0.1})
    result = rs.fit(settings, callbacks=[])
    both = rs.fit(config(tmp_path, "both", "splitfed_v1", absent={0: [LAST], 1: [LAST]}), callbacks=[])
    assert model_bytes(result.path) == model_bytes(both.path)
    assert [each["round"] for each in result.metrics["absent"]] == [0, 1]


def test_an_actor_that_is_lost_is_told_as_such() -> None:
    """The gateway's handle speaks as every other's."""
    handle = LocalHandle("gateway", object, 1)
    handle.kill()
    with pytest.raises(ActorLostError, match="the gateway is dead"):
        handle.call("load", [])


class KillGateway(rs.Callback):
    """Kills the gateway's process once, in the middle of the second round."""

    killed = 0

    def on_exchanges(self, round: int, exchanges: int, queued: int) -> None:
        if round == 1 and exchanges and not self.killed:
            for actor in alive_actors():
                if actor.class_name == "Gateway":
                    os.kill(actor.pid, signal.SIGKILL)
                    self.killed += 1


@pytest.mark.thorough
def test_on_ray_the_gateways_process_is_killed_and_devices_find_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ray_session: object
) -> None:
    whole = rs.fit(config(tmp_path, "whole", "sequential"), callbacks=[])
    simulated = config(tmp_path, "killed", "sequential")
    settings = remotely(simulated, tmp_path, "killed", remote=2).with_values(cluster={"backend": "ray"})
    killer = KillGateway()
    with devices(settings, samples_of(simulated)) as ended:
        result = rs.fit(settings, callbacks=[killer])
    assert (killer.killed, result.metrics["recoveries"], result.metrics["absent"]) == (1, 1, [])
    assert model_bytes(result.path) == model_bytes(whole.path)
    assert ended == ["the run is over"] * 2
