"""The same bytes whatever the backend, and whatever interrupted the run."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

import ray_split as rs
from tests.conftest import alive_actors
from tests.tiers import on_ray


def config(path: Path, name: str, backend: str = "inprocess", **run: Any) -> rs.Config:
    return rs.Config(
        phones={"count": 4},
        data={"batch_size": 64},
        optimizer={"lr": 0.1, "momentum": 0.5},
        cluster={"backend": backend, "client_actors": 2},
        run={"storage_path": str(path), "name": name, "rounds": 4, **run},
    )


def model_bytes(path: Path | str) -> bytes:
    return (Path(path) / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> rs.Result:
    """The run in one process that nothing happens to."""
    return rs.fit(config(tmp_path_factory.mktemp("undisturbed"), "whole"), callbacks=[])


class StopAfter(rs.Callback):
    """Stops the run as Ctrl-C would, after a round."""

    def __init__(self, round: int) -> None:
        self.round = round

    def on_round_end(self, row: dict[str, Any]) -> None:
        if row["round"] == self.round:
            raise KeyboardInterrupt


def test_both_backends_give_the_same_bytes(tmp_path: Path, ray_session: object, whole: rs.Result) -> None:
    remote = rs.fit(config(tmp_path, "remote", "ray"), callbacks=[])
    assert model_bytes(whole.path) == model_bytes(remote.path)
    for a, b in zip(rows(whole.path), rows(remote.path), strict=True):
        assert list(a) == list(b)
        assert timeless(a) == timeless(b)


def timeless(row: dict[str, Any]) -> dict[str, Any]:
    """A round's figures but for those that measure time."""
    return {name: value for name, value in row.items() if not name.endswith("_seconds")}


def rows(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(path) / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.thorough
def test_the_number_of_client_actors_changes_nothing(tmp_path: Path) -> None:
    one = rs.fit(config(tmp_path, "one").with_values(cluster={"client_actors": 1}), callbacks=[])
    three = rs.fit(config(tmp_path, "three").with_values(cluster={"client_actors": 3}), callbacks=[])
    assert model_bytes(one.path) == model_bytes(three.path)


@pytest.mark.parametrize("backend", ["inprocess", on_ray("ray")])
def test_a_run_stopped_after_a_round_and_resumed_gives_the_same_bytes(
    tmp_path: Path, backend: str, whole: rs.Result, request: pytest.FixtureRequest
) -> None:
    if backend == "ray":
        request.getfixturevalue("ray_session")
    with pytest.raises(KeyboardInterrupt):
        rs.fit(config(tmp_path, "stopped", backend), callbacks=[StopAfter(1)])
    stopped = rs.Result.from_path(tmp_path / "stopped")
    assert stopped.metrics["status"] == "stopped"
    assert stopped.checkpoint is not None and stopped.checkpoint.endswith("round_000002")
    resumed = rs.fit(config(tmp_path, "stopped", backend, resume="auto"), callbacks=[])
    assert model_bytes(resumed.path) == model_bytes(whole.path)
    assert [row["round"] for row in rows(resumed.path)] == [0, 1, 2, 3]
    assert resumed.metrics["best_val_accuracy"] == whole.metrics["best_val_accuracy"]
    assert resumed.metrics["test_accuracy_at_best_val"] == whole.metrics["test_accuracy_at_best_val"]


def test_resuming_cuts_what_lies_beyond_the_checkpoint(tmp_path: Path) -> None:
    import pandas

    settings = config(tmp_path, "sparse").with_values(checkpoint={"every": 2})
    with pytest.raises(KeyboardInterrupt):
        rs.fit(settings, callbacks=[StopAfter(2)])
    assert [row["round"] for row in rows(str(tmp_path / "sparse"))] == [0, 1, 2]
    resumed = rs.fit(settings.with_values(run={"resume": "auto"}), callbacks=[])
    assert [row["round"] for row in rows(resumed.path)] == [0, 1, 2, 3]
    phones = pandas.read_parquet(Path(resumed.path) / "phones.parquet")
    assert sorted(zip(phones["round"], phones["phone"], strict=True)) == [(r, p) for r in range(4) for p in range(4)]


@pytest.mark.thorough
def test_a_run_resumed_by_its_path_may_have_more_rounds(tmp_path: Path, whole: rs.Result) -> None:
    first = rs.fit(config(tmp_path, "first", rounds=2), callbacks=[])
    more = config(tmp_path / "elsewhere", "ignored", rounds=4, resume=first.path)
    resumed = rs.fit(more, callbacks=[])
    assert resumed.path == first.path
    assert model_bytes(resumed.path) == model_bytes(whole.path)


def test_resuming_with_another_setting_is_refused_and_named(tmp_path: Path) -> None:
    first = rs.fit(config(tmp_path, "first", rounds=1), callbacks=[])
    before = model_bytes(first.path)
    with pytest.raises(rs.SettingsError, match=r"optimizer\.lr.*was 0\.1"):
        rs.fit(config(tmp_path, "first", resume="auto").with_values(optimizer={"lr": 0.2}), callbacks=[])
    with pytest.raises(rs.SettingsError, match="holds a run"):
        rs.fit(config(tmp_path, "first"), callbacks=[])
    assert model_bytes(first.path) == before


@pytest.mark.thorough
def test_any_actor_that_dies_is_replaced_and_the_bytes_are_the_same(
    tmp_path: Path, ray_session: object, whole: rs.Result
) -> None:
    import ray

    class Kill(rs.Callback):
        recovered: list[str] = []  # noqa: RUF012

        def on_round_end(self, row: dict[str, Any]) -> None:
            if row["round"] < 3:
                role = ("Server", "Client", "FedServer")[row["round"]]
                os.kill(next(actor.pid for actor in alive_actors() if actor.class_name == role), signal.SIGKILL)

        def on_recovery(self, round: int, lost: list[str]) -> None:
            self.recovered += lost

    assert ray.is_initialized()
    killed = Kill()
    # There is no checkpoint yet when the fed server dies: from the first weights all rounds are run again.
    settings = config(tmp_path, "killed", "ray").with_values(checkpoint={"every": 10})
    result = rs.fit(settings, callbacks=[killed])
    assert model_bytes(result.path) == model_bytes(whole.path)
    assert [name.partition(" ")[0] for name in killed.recovered] == ["server", "client", "fed"]
    assert result.metrics["recoveries"] == 3
