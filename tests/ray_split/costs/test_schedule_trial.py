"""A schedule of one's own with a mistake in it: the line that says so before an actor starts."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ray_split as rs
from actors.client import Client
from actors.fed_server import FedServer
from actors.server import Server
from ray_split.costs.schedule_trial import METHODS
from ray_split.preparation.prepare import prepare
from ray_split.schedules import SCHEDULES
from tests.test_docs import DOCS, blocks
from tests.tiers import thorough

RIGHT = blocks(DOCS / "algorithm.md")[0]
MISTAKES = {
    "client.backward.remote(now": ("client.backwards.remote(now", r"client\.backwards, .* Did you mean backward\?"),
    "at._replace(step=step)": ("at", r"doesn't say which step it is for\. .*turn\._replace\(step=\.\.\.\)"),
    "turn._replace(phones=(phone,))": ("turn", r"client\.load with a turn that .* which phones .*turn\._replace"),
    "client.forward.remote(now)": ("client.forward.remote()", r"without a turn\. .* client\.forward\.remote\(turn"),
    "left.append(client.close": ("(client.close", "with 10 groups of phones but 0 results of client.close"),
    "yield roles.fed_server.collect.remote(turn, finished, *left)": ("pass", "but never called fed_server.collect"),
    "return None, roles": ("return roles", "returned a ref of server.state. Return two refs, the state of A and C"),
    "range(int(": ("range(2 * int(", r"client\.forward for step 2 of phone \d, counted from 0, of 2\. Take as many as"),
    "yield client.load.remote(at, ends)": ("pass", r"client\.forward for phone \d before client\.load"),
    "(phone,)": ("phone", r"says phones=\d in the turn of client\.load\. Write turn\._replace\(phones=\(phone,\)\)"),
    "client.loss.remote(now, hidden)": ("hidden", "gives server.backward the result of server.forward. Give it that of "
                                        "client.loss"),
    "yield client.backward.remote(now, activation_gradient)": ("yield activation_gradient", "yields the result of "
                                                               "server.backward. Give it to client.backward"),
    "stream.shares(turn.round, at.phones)": ("1.0", "client.close without a share for each phone. Write"),
    "client_state.remote(turn)": ("client_state(turn)", "calls fed_server.client_state itself, .* Write .*remote"),
    "return None, roles.server.state.remote(turn)": ("return None, None", "None for the state of B, which would stay"),
    "None, roles.server.state.remote(turn)": ("roles.server.state.remote(turn), None", "returns the result of "
                                              "server.state for the state of A and C"),
    "hidden = roles.server.forward": ("yield roles.server.open.remote(at); hidden = roles.server.forward",
                                      "calls server.open, which B hasn't with way='in_turn' .* Set way to 'own_c"),
    "stream.phones(turn.round)": ("stream.phones(turn.rounds)", "'Turn' object has no attribute 'rounds'"),
}  # fmt: skip


def prepared(folder: Path, text: str, cuts: list[str] | None = None, **record: Any) -> Any:
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(text, names)
    own = rs.Schedule(names["in_turn"], **record) if record else names["in_turn"]
    settings = rs.Config(
        schedule={"name": own}, phones={"count": 10, "local_steps": 2}, model={"name": "mlp", "cuts": cuts},
        cluster={"backend": "inprocess"}, run={"storage_path": str(folder), "name": "r", "rounds": 1},
    )  # fmt: skip
    return prepare(settings)


@pytest.mark.parametrize("right", MISTAKES)
def test_a_mistake_is_told_in_a_line(tmp_path: Path, right: str) -> None:
    wrong, line = MISTAKES[right]
    assert right in RIGHT
    with pytest.raises(rs.SettingsError, match=rf"^schedule\.name: .*{line}"):
        prepared(tmp_path, RIGHT.replace(right, wrong))


def test_what_is_not_trained_is_told_of_and_what_is_right_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    prepared(tmp_path, RIGHT)
    assert not caplog.records
    prepared(tmp_path, RIGHT.replace("yield client.backward.remote(now, activation_gradient)", "pass"))
    assert "in_turn never calls client.backward: A is not trained" in caplog.text


SINGLE = """
            yield client.backward.remote(now, roles.server.learn.remote(now, client.forward.remote(now)))
"""
ONE_CUT = RIGHT[: RIGHT.index("\n            activation = ")] + SINGLE + RIGHT[RIGHT.index("        left.append") :]


def test_a_schedule_is_for_as_many_cuts_as_the_model_has(tmp_path: Path) -> None:
    prepared(tmp_path, ONE_CUT, ["layers.0"])
    with pytest.raises(
        rs.SettingsError, match=r"server\.forward, which single .* write client\.backward\.remote\(now, s"
    ):
        prepared(tmp_path, RIGHT, ["layers.0"])
    with pytest.raises(
        rs.SettingsError, match=r"calls server\.learn, which is for single split\. Where model\.cuts is two"
    ):
        prepared(tmp_path, ONE_CUT)


@pytest.mark.parametrize(
    ("right", "other", "line"),
    [
        (
            "stream.phones(turn.round)",
            "stream.phones(turn.round)[:8]",
            r"doesn't train phones \d, \d, of 10 in the round",
        ),
        (
            "stream.phones(turn.round)",
            "2 * stream.phones(turn.round)[:1]",
            r"trains phone \d more than once on a batch",
        ),
        ("range(int(", "range(min(1, ", r"trains phone 0 on 1 of its 2 batches, and 9 more phones on too few"),
    ],
)
def test_training_otherwise_than_the_stream_is_told_of_and_done(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, right: str, other: str, line: str
) -> None:
    prepared(tmp_path, RIGHT.replace(right, other))
    assert re.search(line, caplog.text)


@pytest.mark.parametrize(
    ("record", "line"),
    [
        ({"order": "two at a time"}, "order must be abreast, in_turn or interleaved, not 'two at a time'"),
        ({"takes": ["until"]}, r"takes must be a mapping, .*, not \['until'\]"),
        ({"way": "own"}, "way must be in_turn, own_copies, shared_step or joint_batch, not 'own'"),
        ({"personal": 1}, "personal must be True or False, not 1"),
        ({"averages": False}, "calls fed_server.collect, and its ray_split.Schedule says averages=False"),
        ({"on_server": False}, "calls server.backward, and its ray_split.Schedule says on_server=False"),
        ({"way": "own_copies"}, "calls server.forward before server.open"),
    ],
)
def test_a_record_that_is_untrue_is_told_in_a_line(tmp_path: Path, record: dict[str, Any], line: str) -> None:
    with pytest.raises(rs.SettingsError, match=rf"^schedule\.name: .*{line}"):
        prepared(tmp_path, RIGHT, **record)


def test_what_a_schedule_takes_is_told_as_it_is_typed() -> None:
    record = rs.Schedule(print, takes={"until": ("1", 2, "all")})
    assert record.why_not({"until": 1}) == "until: '1' or 2 or all"
    assert record.why_not({"until": "1"}) is None


def test_the_methods_are_those_that_actors_have() -> None:
    def public(role: type) -> list[str]:
        methods: Callable[[Any], bool] = inspect.isfunction
        return sorted(name for name, _ in inspect.getmembers(role, methods) if not name.startswith("_"))

    there = {"client": public(Client), "server": public(Server), "fed server": public(FedServer)}
    assert {role: sorted(names) for role, names in METHODS.items()} == there


@pytest.mark.parametrize(
    "phones",
    [
        {"count": 9, "per_round": 6, "dropout": 0.4, "availability": 0.8},
        *thorough(
            {"count": 7, "local_epochs": 2},
            {"count": 12, "device": "low_end", "link": "wifi", "over_select": 0.5, "per_round": 5},
        ),
    ],
    ids=str,
)
@pytest.mark.parametrize("cuts", [["layers.0", "layers.1"], ["layers.0"]], ids=["double", "single"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_what_ours_submit_would_pass_without_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, cuts: list[str], phones: dict[str, Any]
) -> None:
    ours = SCHEDULES[name]

    def theirs(turn: Any, stream: Any, roles: Any) -> Any:
        return (yield from ours.submit(turn, stream, roles))

    prepare(rs.Config(
        schedule={"name": dataclasses.replace(ours, submit=theirs, takes=None)},
        phones=phones | ({"cohort": 2} if ours.cohorts else {}),
        model={"name": "mlp", "cuts": cuts}, data={"accumulate": 2 if ours.accumulates else 1},
        optimizer={"clip_norm": 1.0} if ours.clips else {}, cluster={"backend": "inprocess"},
        run={"storage_path": str(tmp_path), "name": "r", "rounds": 1},
    ))  # fmt: skip
    assert [record.getMessage() for record in caplog.records if "theirs" in record.getMessage()] == []
