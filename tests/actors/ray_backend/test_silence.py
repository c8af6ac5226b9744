"""Actors that hang: told of, replaced, and outlived by run.max_hours."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

import ray_split as rs
from actors.ray_backend import silence
from actors.ray_backend.silence import Silence, too_long, waits
from tests.failures.test_faults import contents
from tests.failures.test_kills import config, processes
from tests.runs.equality.test_same_bytes import rows, timeless


def test_silence_is_the_time_in_which_an_actors_sign_did_not_change() -> None:
    heard = Silence(most=10.0)
    assert heard.look({"a": b"1", "b": None}, 100.0) == {"a": 0.0, "b": 0.0}
    assert heard.look({"a": b"1", "b": None}, 105.0) == {"a": 5.0, "b": 5.0}
    assert heard.look({"a": b"2", "b": None}, 110.0) == {"a": 0.0, "b": 10.0}
    assert heard.look({"a": b"2", "b": b"1"}, 115.0) == {"a": 5.0, "b": 0.0}


def test_time_in_which_this_process_was_stopped_or_waited_for_nobody_is_no_silence() -> None:
    heard = Silence(most=10.0)
    heard.look({"a": b"1"}, 0.0)
    assert heard.look({"a": b"1"}, 3600.0) == {"a": 10.0}
    heard.rest()
    assert heard.look({"a": b"1"}, 7200.0) == {"a": 10.0}
    assert heard.look({"a": b"1"}, 7205.0) == {"a": 15.0}


def test_an_actor_that_has_not_yet_given_a_sign_has_more_time() -> None:
    signs: dict[str, object] = {"a": b"1", "b": None, "c": b"1"}
    seconds = {"a": 31.0, "b": 31.0, "c": 30.0}
    assert too_long(seconds, signs, 30.0) == ["a"]
    assert too_long({"b": silence.FIRST_SECONDS + 1}, signs, 30.0) == ["b"]
    assert too_long({"a": 1e9}, signs, None) == []
    assert [silence.period(s) for s in (None, 600.0, 8.0)] == [5.0, 5.0, 2.0]


def test_what_is_waited_for_is_said_in_words() -> None:
    assert waits(120.4, ["client 0", "client 1"], {}) == (
        "waits for client 0, client 1 since 120 s; all give signs of life"
    )
    assert waits(240, ["client 1"], {"server": 118.0}) == (
        "waits for client 1 since 240 s; no sign of life from server for 118 s"
    )


class Stopper(rs.Callback):
    """Stops an actor's process, as `kill -STOP` does, in the midst of a round; each once."""

    def __init__(self, *roles: str) -> None:
        self.plan = dict(enumerate(roles))
        self.stopped: list[int] = []
        self.lost: list[str] = []

    def on_progress(self, round: int, done: int, total: int, samples_per_second: float) -> None:
        if role := self.plan.pop(round, None):
            self.stopped.append(dict(processes("ALIVE"))[role])
            os.kill(self.stopped[-1], signal.SIGSTOP)

    def on_recovery(self, round: int, lost: list[str]) -> None:
        self.lost += lost


def still_there(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(processes: list[int]) -> bool:
    """Whether they end; Ray kills them, in its own time."""
    deadline = time.monotonic() + 300
    while any(map(still_there, processes)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not any(map(still_there, processes))


@pytest.mark.thorough
@pytest.mark.parametrize(
    "roles",
    [("Client", "FedServer"), pytest.param(("Server", "Client", "FedServer", "Server"), marks=pytest.mark.slow)],
)
def test_an_actor_that_hangs_is_told_of_and_replaced_and_the_bytes_are_the_same(
    tmp_path: Path, ray_session: object, roles: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr(silence, "TELL_SECONDS", 0.5)
    stopper = Stopper(*roles)
    settings = config(tmp_path, "hung", "splitfed_v1", client_actors=1, silent_seconds=8.0)
    result = rs.fit(settings.with_values(run={"rounds": 5}), callbacks=[stopper])
    named = {"Client": "client 0", "FedServer": "fed server", "Server": "server"}
    assert stopper.lost == [named[role] for role in roles]
    assert result.metrics["recoveries"] == len(roles)
    for role in roles:
        assert f"{named[role]} gave no sign of life for" in caplog.text
    assert "waits for client 0 since" in caplog.text and "; no sign of life from " in caplog.text
    whole = rs.fit(
        settings.with_values(run={"name": "whole", "rounds": 5}, cluster={"backend": "inprocess"}), callbacks=[]
    )
    assert dict(contents(Path(result.path))) == dict(contents(Path(whole.path)))
    assert [timeless(row) for row in rows(result.path)] == [timeless(row) for row in rows(whole.path)]
    assert gone(stopper.stopped)


@pytest.mark.slow
@pytest.mark.slow
def test_max_hours_ends_a_run_that_waits_for_an_actor_that_hangs(tmp_path: Path, ray_session: object) -> None:
    stopper = Stopper("Server")
    settings = config(tmp_path, "hung", "splitfed_v1", client_actors=1, silent_seconds=None)
    with pytest.raises(rs.OutOfTimeError):
        rs.fit(settings.with_values(run={"rounds": 100_000, "max_hours": 40 / 3600}), callbacks=[stopper])
    assert rs.Result.from_path(tmp_path / "hung").metrics["status"] == "stopped"
    assert stopper.lost == []
