"""What MLflow and Weights & Biases have of a run, in stores of this machine; skipped where they are not installed."""

from __future__ import annotations

import importlib.util
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ray_split as rs
from ray_split import cli
from ray_split.results.tags import tag
from ray_split.tracking.tracker import Tracker, numbers
from tests.ray_split.driver.test_ending_early import After, config


def needs(library: str) -> pytest.MarkDecorator:
    missing = importlib.util.find_spec(library) is None
    return pytest.mark.skipif(missing, reason=f"needs {library}: pip install 'ray-split[track]'")


def rows_of(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(path) / "metrics.jsonl").read_text().splitlines()]


def told_of(path: str) -> dict[tuple[str, int], float]:
    """What a tracker should have of a run: figures by tag and round."""
    rows = rows_of(path)
    return {(tag(k), row["round"]): v for row in rows for k, v in numbers(row).items() if k != "round"}


@pytest.fixture
def mlflow_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "phones")
    monkeypatch.chdir(tmp_path)
    return uri


@pytest.mark.thorough
@needs("mlflow")
def test_mlflow_has_settings_rounds_and_summary_and_a_resumed_run_goes_on_in_its_own(
    tmp_path: Path, mlflow_store: str
) -> None:
    from mlflow import MlflowClient

    settings = config(tmp_path, rounds=4, optimizer={"lr": 0.25}, run={"callbacks": ["mlflow"]})
    rs.fit(settings, callbacks=[After(2)])
    result = rs.fit(settings.with_values(run={"resume": "auto", "rounds": 5}), callbacks=[])
    rs.fit(settings.with_values(run={"name": "other"}), callbacks=[])
    client = MlflowClient(mlflow_store)
    experiment = client.get_experiment_by_name("phones")
    assert experiment is not None
    other, run = client.search_runs([experiment.experiment_id])  # the latest first
    assert (other.info.run_name, run.info.run_name, run.info.status) == ("other", "r", "FINISHED")
    assert run.data.params["optimizer.lr"] == "0.25" and run.data.params["phones.device"] == "none"
    history = {
        (name, each.step): each.value
        for name in run.data.metrics
        for each in client.get_metric_history(run.info.run_id, name)
        if not name.startswith("summary/")
    }
    told = told_of(result.path)
    of_stop = {key for key in told if key[0].startswith("test/") and key[1] == 1}  # tested once it had ended
    assert history == {key: pytest.approx(value) for key, value in told.items() if key in history}
    assert told.keys() - history.keys() <= of_stop
    assert run.data.metrics["summary/rounds"] == 5
    assert run.data.metrics["summary/test_accuracy"] == pytest.approx(result.metrics["test_accuracy"])
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["config.yaml"]


@pytest.mark.thorough
@needs("mlflow")
def test_mlflow_tells_stopped_from_failed_and_every_run_of_a_comparison(tmp_path: Path, mlflow_store: str) -> None:
    from mlflow import MlflowClient

    class Ends(rs.Callback):
        def __init__(self, error: type[BaseException]) -> None:
            self.error = error

        def on_round_end(self, row: dict[str, Any]) -> None:
            raise self.error

    for name, error in (("stopped", KeyboardInterrupt), ("failed", ValueError)):
        with pytest.raises((KeyboardInterrupt, rs.RunFailedError)):
            rs.fit(config(tmp_path, name, run={"callbacks": ["mlflow"]}), callbacks=[Ends(error)])
    flags = ["--cluster.backend", "inprocess", "--model.name", "tests.nets:three_linear", "--data.name", "synthetic"]
    flags += ["--data.kwargs", "{samples: 90, shape: [4], num_classes: 3}", "--phones.count", "3", "--run.rounds", "1"]
    flags += ["--run.storage_path", str(tmp_path), "--run.callbacks", "mlflow"]
    assert cli.main(["compare", *flags, "--seeds", "0", "--schedules", "splitfed_v1,parallel"]) == 0
    client = MlflowClient(mlflow_store)
    experiment = client.get_experiment_by_name("phones")
    assert experiment is not None
    statuses = {run.info.run_name: run.info.status for run in client.search_runs([experiment.experiment_id])}
    assert statuses["stopped"] == "KILLED" and statuses["failed"] == "FAILED"
    assert list(statuses.values()).count("FINISHED") == 2


def records(content: bytes) -> Iterator[bytes]:
    """What W&B wrote: LevelDB's log format, blocks of 32 KiB with parts of records, after a header of 7 bytes."""
    place, parts = 7, b""
    while place + 7 <= len(content):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        size, kind = struct.unpack("<HB", content[place + 4 : place + 7])
        parts += content[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last part of one
            yield parts
            parts = b""


@pytest.mark.thorough
@needs("wandb")
def test_wandb_has_a_run_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.chdir(tmp_path)
    result = rs.fit(config(tmp_path, rounds=2, optimizer={"lr": 0.25}, run={"callbacks": ["wandb"]}), callbacks=[])
    (file,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    found, settings, ended = {}, {}, None
    for data in records(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        items = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        found |= {(name, items["round"]): value for name, value in items.items() if "/" in name}
        settings |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        ended = record.exit.exit_code if record.HasField("exit") else ended
    assert found == {key: pytest.approx(value) for key, value in told_of(result.path).items()}
    assert settings["optimizer.lr"] == 0.25 and ended == 0


class Gone(Tracker):
    """One whose server goes away after the first round."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[Any] = []

    def begin(self, settings: rs.Config, run: str) -> None:
        self.told.append(run)

    def log(self, round: int, figures: dict[str, float]) -> None:
        if round:
            raise ConnectionError("no answer\nat all")
        self.told.append(round)

    def end(self, status: str, figures: dict[str, float]) -> None:
        self.told.append(status)


def test_a_tracker_that_goes_away_ends_no_run_and_is_told_of_once(tmp_path: Path, caplog: Any) -> None:
    gone = Gone()
    assert rs.fit(config(tmp_path, rounds=3), callbacks=[gone]).metrics["status"] == "finished"
    assert gone.told[1:] == [0]
    assert [r.getMessage() for r in caplog.records if "told no more" in r.getMessage()] == [
        "Gone is told no more of this run: ConnectionError: no answer"
    ]


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_library_that_is_missing_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda asked, *a: None if asked == name else real(asked, *a))
    with pytest.raises(rs.SettingsError) as refused:
        rs.fit(config(tmp_path, run={"callbacks": [name]}), callbacks=[])
    assert str(refused.value) == (f"run.callbacks: {name} is not installed. Run: pip install 'ray-split[track]'.")
    assert not list(tmp_path.iterdir())
