"""A run that is stopped, wherever it is: what it has completed is written, and it goes on to the same bytes."""

from __future__ import annotations

import json
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pandas
import pytest

import ray_split as rs
from actors.fed_server import FedServer
from actors.inprocess import LocalHandle
from ray_split import cli
from ray_split.driver import stopping
from tests.runs.storage.test_storage_runs import Starts, config, model_bytes, timeless

ROUNDS = {"rounds": 4}
EVERY = 5  # no checkpoint is due before the last round's
SCHEDULES = ["sequential", "splitfed_v1", "splitfed_v2", "splitfed_v3", "parallel"]


def settings(path: Path, name: str, schedule: str = "splitfed_v3", **run: Any) -> rs.Config:
    return config(path, name, schedule, **ROUNDS, **run).with_values(checkpoint={"every": EVERY})


def summary(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


@pytest.fixture
def at_call(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[str]]]:
    """Does something before one of a run's calls of actors, given by its number; returns the calls so far."""
    original = LocalHandle.call

    def patch(do: Callable[[], None], when: Callable[[list[str]], bool]) -> list[str]:
        calls: list[str] = []

        def call(handle: LocalHandle, name: str, arguments: list[Any]) -> Any:
            calls.append(name)
            if when(calls):
                do()
            return original(handle, name, arguments)

        monkeypatch.setattr(LocalHandle, "call", call)
        return calls

    yield patch


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def resumed(what: rs.Config) -> tuple[rs.Result, int]:
    """The result, and the round that it went on from."""
    starts = Starts()
    result = rs.fit(what.with_values(run={"resume": "auto"}), callbacks=[starts])
    return result, starts.first[0]


def check_stopped_at(path: Path, schedule: str, whole: rs.Result, at_call: Any, number: int) -> None:
    """Stopped before that call of the run, it has written all rows that it made, and goes on from there."""
    what = settings(path, f"run{number}", schedule)
    calls = at_call(terminate, lambda calls: len(calls) - 1 == number)
    with pytest.raises(rs.RunStoppedError):
        rs.fit(what, callbacks=[])
    at_call(terminate, lambda calls: False)
    folder = path / f"run{number}"
    done = summary(folder)["rounds"]
    assert summary(folder)["status"] == "stopped"
    # The commits that were called: but for the first, which is of the first weights, each ends a round.
    assert done == max(0, calls.count("commit") - 1)
    result, first = resumed(what)
    assert first == done
    assert model_bytes(result) == model_bytes(whole)
    assert timeless(result) == timeless(whole)
    phones = [pandas.read_parquet(r.path + "/phones.parquet").sort_values(["round", "phone"]) for r in (result, whole)]
    assert phones[0].reset_index(drop=True).equals(phones[1].reset_index(drop=True))


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("schedule", "step"),
    [("splitfed_v3", 17), *[pytest.param(name, 3, marks=pytest.mark.slow) for name in SCHEDULES]],
)
def test_stopped_at_whichever_call_it_goes_on_from_its_last_completed_round(
    tmp_path: Path, at_call: Any, schedule: str, step: int
) -> None:
    calls = at_call(terminate, lambda calls: False)
    whole = rs.fit(settings(tmp_path, "whole", schedule), callbacks=[])
    ends = [number for number, name in enumerate(calls) if name == "commit"]
    # Of the third round all kinds of calls, with its evaluation; the commit itself, and what is next to it.
    for number in sorted({*range(ends[2], ends[3], step), *(ends[2] + i for i in (-1, 0, 1)), 0, ends[0]}):
        check_stopped_at(tmp_path, schedule, whole, at_call, number)


def test_a_second_signal_gives_up_the_checkpoint_and_the_one_before_stands(
    tmp_path: Path, at_call: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def twice(calls: list[str]) -> bool:
        return calls[-1] == "save_checkpoint" or (calls.count("commit"), calls[-1]) == (4, "forward")

    at_call(terminate, twice)
    with pytest.raises(rs.RunStoppedError):
        rs.fit(settings(tmp_path, "run"), callbacks=[])
    assert "the checkpoint before them stands" in caplog.text
    assert (summary(tmp_path / "run")["status"], summary(tmp_path / "run")["rounds"]) == ("stopped", 3)
    assert not list((tmp_path / "run" / "checkpoints").glob("round_*"))


def test_what_takes_too_long_is_given_up(
    tmp_path: Path, at_call: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def hang(*_: object) -> None:
        time.sleep(60)

    monkeypatch.setattr(stopping, "LAST_SECONDS", 1.0)
    monkeypatch.setattr(FedServer, "save_checkpoint", hang)
    at_call(terminate, lambda calls: calls.count("commit") == 3 and calls[-1] == "begin")
    with pytest.raises(rs.RunStoppedError):
        rs.fit(settings(tmp_path, "run"), callbacks=[])
    assert "stopped before the last rounds were written" in caplog.text
    assert summary(tmp_path / "run")["status"] == "stopped"


def test_an_evaluation_that_takes_too_long_is_given_up_and_its_round_run_again(
    tmp_path: Path, at_call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = rs.fit(settings(tmp_path, "whole", "splitfed_v2"), callbacks=[])
    what = settings(tmp_path, "run", "splitfed_v2").with_values(checkpoint={"every": 1})

    def terminate_and_hang() -> None:
        terminate()
        time.sleep(60)

    monkeypatch.setattr(stopping, "LAST_SECONDS", 1.0)
    at_call(terminate_and_hang, lambda calls: calls.count("commit") == 3 and calls[-1] == "evaluate_forward")
    with pytest.raises(rs.RunStoppedError):
        rs.fit(what, callbacks=[])
    at_call(terminate, lambda calls: False)
    result, first = resumed(what)
    assert first == 1  # the second round was committed, and has no row
    assert model_bytes(result) == model_bytes(whole)
    assert timeless(result) == timeless(whole)


def test_handlers_and_alarms_are_as_before(tmp_path: Path, at_call: Any) -> None:
    def mine(*_: object) -> None:
        pass

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
    before = [signal.signal(number, mine) for number in numbers]
    try:
        at_call(terminate, lambda calls: calls.count("commit") == 3)
        with pytest.raises(rs.RunStoppedError):
            rs.fit(settings(tmp_path, "run"), callbacks=[])
        assert [signal.getsignal(number) for number in numbers] == [mine] * 3
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


class Clock(rs.Callback):
    """Stands for the module `time`: by it the second round takes two hours."""

    def __init__(self) -> None:
        self._beyond = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self._beyond

    def on_round_end(self, row: dict[str, Any]) -> None:
        self._beyond += 7200 * (row["round"] == 1)


def test_when_max_hours_is_over_the_run_ends_in_order_and_goes_on_with_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(stopping, "time", clock)
    whole = rs.fit(settings(tmp_path, "whole"), callbacks=[])
    what = settings(tmp_path, "run", max_hours=1.5)
    message = r"^run\.max_hours, 1\.5, is over; --run\.resume goes on, for as many hours again$"
    with pytest.raises(rs.OutOfTimeError, match=message) as stopped:
        rs.fit(what, callbacks=[clock])
    found = summary(tmp_path / "run")
    assert (found["status"], found["error"]) == ("stopped", str(stopped.value))
    assert 2 <= found["rounds"] < 4
    result, first = resumed(what.with_values(run={"max_hours": 1.0}))
    assert first == found["rounds"]
    assert model_bytes(result) == model_bytes(whole)


def test_max_hours_ends_a_run_within_a_round_too(tmp_path: Path, at_call: Any, capsys: Any) -> None:
    calls = at_call(lambda: time.sleep(0.01), lambda calls: calls[-1] == "backward")
    what = settings(tmp_path, "run", "splitfed_v2").with_values(phones={"local_steps": 100})
    (tmp_path / "run.yaml").write_text(what.to_yaml())
    flags = ["--config", str(tmp_path / "run.yaml"), "--run.max_hours", str(0.8 / 3600)]
    assert cli.main(["train", *flags]) == 1
    assert "stopped: run.max_hours, 0.000222222, is over" in capsys.readouterr().err
    assert calls.count("commit") < 5 and calls[-1] != "commit"
    assert summary(tmp_path / "run")["status"] == "stopped"


def test_max_hours_holds_in_a_thread_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    errors: list[BaseException] = []
    clock = Clock()
    monkeypatch.setattr(stopping, "time", clock)

    def fit() -> None:
        try:
            rs.fit(settings(tmp_path, "run", max_hours=1.5), callbacks=[clock])
        except rs.RunFailedError as error:
            errors.append(error)

    thread = Thread(target=fit)
    thread.start()
    thread.join()
    assert isinstance(errors[0], rs.OutOfTimeError)
    done = summary(tmp_path / "run")["rounds"]
    assert [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()] == [f"round_{done:06d}"]


@pytest.mark.parametrize(
    ("hours", "said"),
    [
        ("0", "greater than 0, not 0"),
        ("-1", "greater than 0, not -1"),
        ("inf", "a finite number, not 'inf'"),
        ("soon", "a number, not 'soon'"),
    ],
)
def test_hours_that_are_none_are_refused(hours: str, said: str, capsys: Any) -> None:
    assert cli.main(["train", "--run.max_hours", hours]) == 2
    assert capsys.readouterr().err == f"error: run.max_hours: must be {said}.\n"


def test_no_warning_is_given_when_all_is_written(tmp_path: Path, at_call: Any, caplog: Any) -> None:
    at_call(terminate, lambda calls: calls.count("commit") == 3 and calls[-1] == "begin")
    with caplog.at_level(logging.WARNING), pytest.raises(rs.RunStoppedError):
        rs.fit(settings(tmp_path, "run"), callbacks=[])
    assert caplog.records == []
