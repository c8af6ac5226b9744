"""A phone that sends what it may not is left out, and the run is the one that was told to leave it out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ray_split as rs
from actors.inprocess import InProcessBackend, LocalHandle
from ray_split.driver.round_runner import RoundRunner
from ray_split.driver.training_loop import run
from ray_split.errors import BadPhoneError, RunFailedError
from ray_split.messages.message import Message
from ray_split.messages.state import Closed
from ray_split.preparation.prepare import Prepared
from tests.failures.test_faults import SCHEDULES, Rows, contents, prepared
from tests.tiers import mostly_thorough, thorough

BAD = 1  # the phone
Call = Callable[[str, list[Any], Any], Any]


def spoilt(array: np.ndarray, row: int) -> np.ndarray:
    array = array.copy()
    array[row] = np.nan
    return array


def nan_activation(name: str, given: list[Any], result: Any) -> Any:
    """Of the bad phone alone, wherever it stands in its cohort, from the second round on."""
    if name != "forward" or given[0].round < 1 or BAD not in given[0].phones:
        return result
    place, groups = given[0].phones.index(BAD), []
    for group in result.groups:
        k = len(group)
        groups.append(spoilt(group, place) if 0 <= place < k else group)
        place -= k
    return result._replace(groups=groups)


def no_message(name: str, given: list[Any], result: Any) -> Any:
    """The last thing that a phone on its own sends the server in a round."""
    return {"gradient": None} if name == "loss" and given[0].phones == (BAD,) else result


def lost_weights(name: str, given: list[Any], result: Any) -> Any:
    """At the end of the round."""
    if name == "close" and BAD in given[0].phones and given[0].round == 1:
        sums = {
            segment: {key: array * np.nan for key, array in state.items()} for segment, state in result.sums.items()
        }
        own = {
            segment: {key: spoilt(rows, 0) for key, rows in states.items()} for segment, states in result.own.items()
        }
        if result.rows is not None:
            states = {n: {key: spoilt(rows, 0) for key, rows in s.items()} for n, s in result.rows.states.items()}
            result = result._replace(rows=result.rows._replace(states=states))
        return result._replace(sums=sums, own=own)
    if name == "state" and given[0].phones == (BAD,):
        return {segment: {"weights/something": np.ones(3)} for segment in result}
    return result


def in_words(case: Any) -> str:
    return getattr(case, "__name__", str(case))


def fit(what: Prepared, folder: Path, spoil: Call | None = None, **sections: Any) -> tuple[Any, ...]:
    """The run's rows, as text (of a phone that is left out a figure is no number), what it leaves, and who is out."""
    where = {"storage_path": str(folder.parent), "name": folder.name, "on_bad_phone": "skip"}
    settings = what.settings.with_values(**{"run": {}, **sections} | {"run": where | sections.get("run", {})})
    stream = type(what.stream)(settings, what.stream.partition)
    backend, records, original = InProcessBackend(), Rows(folder), LocalHandle.call
    loop = RoundRunner(settings, stream, backend, [])
    sizes = {"val": len(what.parts.val.inputs), "test": len(what.parts.test.inputs)}
    folder.mkdir()
    backend.start(settings, what.parts, stream, what.contract)

    def call(handle: LocalHandle, name: str, given: list[Any]) -> Any:
        result = original(handle, name, given)
        return spoil(name, given, result) if spoil and handle.name.startswith("client") else result

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(LocalHandle, "call", call)
        run(loop, settings, records, sizes, loop.start())  # type: ignore[arg-type]
    return list(map(repr, records.rows)), dict(contents(folder)), dict(stream.left_out)


CASES = [(schedule, nan_activation, 1) for schedule in SCHEDULES if schedule.split()[0] not in ("fedavg", "unsplit")]
CASES += [(schedule, no_message, 0) for schedule in ("sequential", "splitfed_v2")]
CASES += [(schedule, lost_weights, 1) for schedule in SCHEDULES if schedule.split()[0] not in ("sequential", "unsplit")]
CASES += [(schedule, lost_weights, 0) for schedule in ("sequential", "unsplit")]


@pytest.mark.parametrize(
    ("schedule", "spoil", "round"), mostly_thorough(CASES, *CASES[::3]), ids=lambda x: getattr(x, "__name__", str(x))
)
@pytest.mark.few(6, thorough=4)
def test_the_run_goes_on_as_one_that_leaves_it_out(tmp_path: Path, schedule: str, spoil: Call, round: int) -> None:
    what = prepared(tmp_path, schedule, "three")
    rows, left, out = fit(what, tmp_path / "spoilt", spoil)
    # What a cohort leaves is a sum: if it is wrong, all of its phones are left out.
    assert BAD in out and set(out.values()) == {round}
    assert len(out) == 1 or spoil is lost_weights
    told = fit(what, tmp_path / "told", phones={"left_out": out})
    assert told == (rows, left, out)
    assert all(f"'left_out': {len(out) if number >= round else 0}," in row for number, row in enumerate(rows[::2]))


@pytest.mark.parametrize("schedule", ["splitfed_v1", "splitfed_v3"])
def test_in_single_split_too(tmp_path: Path, schedule: str) -> None:
    what = prepared(tmp_path, schedule, "two")
    rows, left, out = fit(what, tmp_path / "spoilt", nan_activation)
    assert out == {BAD: 1}
    assert fit(what, tmp_path / "told", phones={"left_out": out}) == (rows, left, out)


def test_by_default_the_run_stops_and_names_the_phone(tmp_path: Path) -> None:
    what = prepared(tmp_path, "splitfed_v1", "three")
    with pytest.raises(BadPhoneError, match="phone 1: its activation is not finite"):
        fit(what, tmp_path / "stopped", nan_activation, run={"on_bad_phone": "stop"})
    assert [path.name for path in (tmp_path / "stopped").iterdir()] == []  # a checkpoint was due after round 2


def test_a_run_without_any_phone_left_ends_and_says_so(tmp_path: Path) -> None:
    what = prepared(tmp_path, "splitfed_v1", "three")

    def all_bad(name: str, given: list[Any], result: Any) -> Any:
        return result._replace(groups=[]) if name == "forward" else result

    with pytest.raises(RunFailedError, match="no phone is left for round 1"):
        fit(what, tmp_path / "run", all_bad)


def rings(bad: int | None = None, label: int = 1) -> rs.DataSet:
    """Six people's samples; of one, all that are not a number, or have a label that is no class."""
    draw = np.random.default_rng(0)
    inputs, labels = draw.normal(size=(72, 4)).astype(np.float32), draw.integers(0, 3, 72)
    people = np.repeat(np.arange(6), 12)
    if bad is not None:
        inputs[people == bad] = np.nan if label == 1 else 0.0
        labels[people == bad] = label
    part = rs.Part(inputs, labels)
    return rs.DataSet(part, rs.Part(*(x[:6] for x in rings_test())), 3, groups={"who": people})


def rings_test() -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(1)
    return draw.normal(size=(12, 4)).astype(np.float32), draw.integers(0, 3, 12)


def broken_images(bad: int) -> rs.DataSet:
    """Six people's samples, of which one's can't be read."""
    whole = rings()
    keys = np.column_stack([np.arange(72), whole.groups["who"] == bad])
    lazy = rs.LazyInputs(_read, keys, (4,), np.dtype(np.float32))
    return rs.DataSet(rs.Part(lazy, whole.train.labels), whole.test, 3, groups=whole.groups)


def _read(key: np.ndarray) -> np.ndarray:
    if key[1]:
        raise OSError("a broken image")
    return rings().train.inputs[key[0]]


def config(path: Path, name: str, data: dict[str, Any], **sections: Any) -> rs.Config:
    base = {
        "model": {"name": "tests.nets:three_linear"},
        "data": {"batch_size": 6, "val_fraction": 0.0, "partition": {"name": "natural"}, **data},
        "phones": {"count": 6}, "schedule": {"name": "splitfed_v1"}, "cluster": {"backend": "inprocess"},
        "run": {"storage_path": str(path), "name": name, "rounds": 2, "on_bad_phone": "skip"},
    }  # fmt: skip
    return rs.Config(**base).with_values(**sections)


HERE = "tests.runs.phones.test_quarantine"
SPOILT = {
    "not a number": ({"name": f"{HERE}:rings", "kwargs": {"bad": 4}}, "not finite"),
    "no class": ({"name": f"{HERE}:rings", "kwargs": {"bad": 4, "label": -7}}, "labels are not all from 0"),
    "unreadable": ({"name": f"{HERE}:broken_images", "kwargs": {"bad": 4}}, "OSError: a broken image"),
}


class Heard(rs.Callback):
    def __init__(self) -> None:
        self.heard: list[tuple[int, tuple[int, ...], str]] = []

    def on_quarantine(self, round: int, phones: tuple[int, ...], reason: str) -> None:
        self.heard.append((round, phones, reason))


@pytest.mark.parametrize("schedule", ["sequential", "splitfed_v1", *thorough("parallel", "fedavg", "unsplit")])
@pytest.mark.parametrize("kind", SPOILT)
@pytest.mark.few(5)
def test_a_phone_with_broken_data_is_left_out_and_reported(tmp_path: Path, kind: str, schedule: str) -> None:
    data, reason = SPOILT[kind]
    heard, sections = Heard(), {"schedule": {"name": schedule}}
    result = rs.fit(config(tmp_path, "skipped", data, **sections), callbacks=[heard])
    (bad,) = result.metrics["quarantined"]
    assert (bad["phone"], bad["round"]) == (4, 0)
    assert reason in bad["reason"] or (schedule in ("fedavg", "unsplit") and "not finite" in bad["reason"])
    assert heard.heard == [(0, (4,), bad["reason"])]
    assert list(result.metrics_dataframe["left_out"]) == [1, 1] and list(result.metrics_dataframe["phones"]) == [5, 5]
    whole = {"name": f"{HERE}:rings"}
    told = rs.fit(config(tmp_path, "told", whole, **sections).with_values(phones={"left_out": {4: 0}}), callbacks=[])
    assert (Path(told.path) / "model.safetensors").read_bytes() == (
        Path(result.path) / "model.safetensors"
    ).read_bytes()
    assert told.metrics["quarantined"] == [] and told.metrics["left_out"] == 1


def test_a_run_that_left_a_phone_out_is_not_resumed_with_it(tmp_path: Path) -> None:
    settings = config(tmp_path, "run", {"name": f"{HERE}:rings"}).with_values(phones={"left_out": {4: 0}})
    rs.fit(settings, callbacks=[])
    with pytest.raises(rs.SettingsError, match=r"phones\.left_out.* was \{'4': 0\}"):
        rs.fit(settings.with_values(phones={"left_out": {}}, run={"resume": "auto"}), callbacks=[])


def test_with_stop_the_run_fails_in_one_line_and_the_checkpoint_stands(tmp_path: Path) -> None:
    data, _ = SPOILT["unreadable"]
    with pytest.raises(RunFailedError, match="phone 4: its data can't be read: OSError: a broken image"):
        rs.fit(config(tmp_path, "stopped", data, run={"on_bad_phone": "stop"}), callbacks=[])
    assert rs.Result.from_path(tmp_path / "stopped").metrics["status"] == "failed"


@pytest.mark.thorough
def test_on_ray_it_is_the_same(tmp_path: Path, ray_session: object) -> None:
    data, _ = SPOILT["unreadable"]
    cluster = {"backend": "ray", "client_actors": 2}
    result = rs.fit(config(tmp_path, "ray", data, cluster=cluster), callbacks=[])
    assert [each["phone"] for each in result.metrics["quarantined"]] == [4]
    told = rs.fit(config(tmp_path, "told", data).with_values(phones={"left_out": {4: 0}}), callbacks=[])
    assert (Path(told.path) / "model.safetensors").read_bytes() == (
        Path(result.path) / "model.safetensors"
    ).read_bytes()


def test_a_run_that_is_resumed_goes_on_without_the_phone(tmp_path: Path) -> None:
    what = prepared(tmp_path, "splitfed_v1", "three")
    settings = what.settings.with_values(
        run={"on_bad_phone": "skip", "name": "resumed", "rounds": 3}, checkpoint={"every": 1}
    )
    original = LocalHandle.call

    def call(handle: LocalHandle, name: str, given: list[Any]) -> Any:
        result = original(handle, name, given)
        return nan_activation(name, given, result) if handle.name.startswith("client") else result

    class Stop(rs.Callback):
        def on_quarantine(self, round: int, phones: tuple[int, ...], reason: str) -> None:
            self.told = (round, phones)

        def on_progress(self, round: int, *_: object) -> None:
            if round == 1 and hasattr(self, "told"):
                raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(LocalHandle, "call", call)
        with pytest.raises(KeyboardInterrupt):
            rs.fit(settings, callbacks=[Stop()])
    # Nobody spoils anything any more: it is left out because that was written down.
    resumed = rs.fit(settings.with_values(run={"resume": "auto"}), callbacks=[])
    assert [(each["phone"], each["round"]) for each in resumed.metrics["quarantined"]] == [(BAD, 1)]
    told = settings.with_values(run={"name": "told"}, phones={"left_out": {BAD: 1}})
    assert dict(contents(Path(rs.fit(told, callbacks=[]).path))) == dict(contents(Path(resumed.path)))


def test_a_phone_left_out_takes_part_in_no_round_from_there_on(tmp_path: Path) -> None:
    what = prepared(tmp_path, "splitfed_v1", "three")
    whole, stream = [what.stream.phones(round) for round in range(4)], what.stream
    stream.leave_out(2, 2)
    assert [stream.phones(round) for round in range(2)] == whole[:2]
    assert all(sorted(stream.phones(round)) == [0, 1] for round in (2, 3))
    assert [stream.count_left_out(round) for round in range(4)] == [0, 0, 1, 1]
    assert stream.shares(3, (0, 1)).sum() == pytest.approx(1)


def test_messages_survive_a_pickle_with_their_phones() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(BadPhoneError((3, 4), "its activation is late")))
    assert (str(error), error.phones) == ("phones 3, 4: its activation is late", (3, 4))
    assert isinstance(Message([], 0.0), tuple) and isinstance(Closed((), {}, {}, 0), tuple)


@pytest.mark.parametrize("way", ["own_copies", "shared_step", "joint_batch"])
def test_of_phones_that_vanish_between_forward_and_backward_nothing_stays(tmp_path: Path, way: str) -> None:
    from actors.client import Client
    from actors.server import Server
    from ray_split.messages.turn import Turn

    what = prepared(tmp_path, "splitfed_v1", "three")
    server, client = Server(what.settings, what.contract), Client(*what[:4])
    ends, middle = client.initial_state(), server.initial_state()
    for attempt in range(5):
        at = Turn(0, attempt, (0, 1), 0)
        client.load(at, ends)
        server.load(at, middle, way)
        if way == "own_copies":
            server.open(at)
        server.forward(at, client.forward(at))
    own = server._ways["own_copies"]
    assert len(own._copies) + len(server._shared._passes) == len(server._checks._sent) == 1
    server.load(at._replace(attempt=9), middle, way)
    assert len(own._copies) + len(server._shared._passes) == len(server._checks._sent) == 0
    assert sum(map(len, own._spare.values())) == (way == "own_copies")  # one set of copies, that is used again
