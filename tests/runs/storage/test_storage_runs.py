"""Whole runs whose folder is at a URI: on a server that speaks S3's protocol, and by fsspec in memory."""

from __future__ import annotations

import io
import json
import logging
import tempfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pandas
import pytest

import ray_split as rs
from actors.fed_server import FedServer
from ray_split import cli, filesystem
from ray_split.callbacks import PlainProgress
from ray_split.filesystem import Uri, place
from ray_split.results import checkpoint
from ray_split.results.records import read_rows
from tests.runs.equality.test_same_bytes import StopAfter

RAY = {"backend": "ray", "client_actors": 1}
FILES = {"config.yaml", "metrics.jsonl", "phones.parquet", "checkpoints", "model.safetensors", "summary.json"}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield "{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """The query that leads to the server, once it has a bucket of this name; credentials are in the environment."""
    import boto3

    for name, value in {"ACCESS_KEY_ID": "key", "SECRET_ACCESS_KEY": "secret", "EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    boto3.client("s3", endpoint_url=f"http://{endpoint}", region_name="us-east-1").create_bucket(Bucket="bucket")
    return query(endpoint)


def query(endpoint: str) -> str:
    return f"?endpoint_override={endpoint}&scheme=http&region=us-east-1"


def config(path: str | Path, name: str, schedule: str = "sequential", **run: Any) -> rs.Config:
    """Three rounds on three phones with two batches each."""
    own = {"held_out": 0.2} if schedule == "splitfed_v3" else {}
    return rs.Config(
        model={"name": "tests.nets:three_linear"}, schedule={"name": schedule},
        data={"name": "synthetic", "kwargs": {"samples": 24, "shape": [4], "num_classes": 3}, "batch_size": 4},
        optimizer={"lr": 0.05, "momentum": 0.9}, phones={"count": 3, **own}, server={"num_gpus": 0},
        cluster={"backend": "inprocess", "client_actors": 2},
        run={"storage_path": str(path), "name": name, "rounds": 3, **run},
    )  # fmt: skip


class Starts(rs.Callback):
    def __init__(self) -> None:
        self.first: list[int] = []

    def on_run_start(self, settings: rs.Config, where: list[str], first_round: int) -> None:
        self.first.append(first_round)


def stopped(settings: rs.Config, round: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        rs.fit(settings, callbacks=[StopAfter(round)])


def resumed(settings: rs.Config, **run: Any) -> rs.Result:
    return rs.fit(settings.with_values(run={"resume": "auto", **run}), callbacks=[])


def model_bytes(result: rs.Result) -> bytes:
    return (place(result.path) / "model.safetensors").read_bytes()


def without_times(metrics: dict[str, Any]) -> dict[str, Any]:
    """A summary but for how long something took, and when it was."""
    return {k: v for k, v in metrics.items() if "second" not in k and k not in ("started", "ended")}


def timeless(result: rs.Result) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if not k.endswith("seconds")} for row in read_rows(place(result.path))]


def names(folder: filesystem.Place) -> set[str]:
    return {path.name for path in filesystem.children(folder) if not path.name.startswith("events.out.tfevents.")}


def phone_rows(folder: filesystem.Place) -> list[tuple[int, int]]:
    parts = filesystem.children(folder / "phones.parquet")
    table = pandas.concat([pandas.read_parquet(io.BytesIO(part.read_bytes())) for part in parts])
    return sorted(zip(table["round"], table["phone"], strict=True))


@pytest.mark.thorough
def test_on_s3_a_run_stopped_and_resumed_leaves_what_a_local_one_does(tmp_path: Path, bucket: str) -> None:
    schedule = "splitfed_v3"
    local = rs.fit(config(tmp_path, schedule, schedule), callbacks=[])
    settings = config(f"s3://bucket/my%20runs{bucket}", schedule, schedule)
    stopped(settings, 1)
    halfway = rs.Result.from_path(f"s3://bucket/my%20runs/{schedule}{bucket}")
    assert (halfway.metrics["status"], len(halfway.metrics_dataframe)) == ("stopped", 2)
    assert halfway.checkpoint == f"s3://bucket/my%20runs/{schedule}/checkpoints/round_000002{bucket}"
    result = resumed(settings)
    assert result.path == f"s3://bucket/my%20runs/{schedule}{bucket}"
    assert model_bytes(result) == model_bytes(local)
    assert timeless(result) == timeless(local)
    assert without_times(result.metrics) == without_times(local.metrics)
    ours, theirs = place(local.path), place(result.path)
    assert names(theirs) == names(ours) == FILES | {"personal"}
    assert phone_rows(theirs) == phone_rows(ours) == [(r, p) for r in range(3) for p in range(3)]
    assert names(theirs / "checkpoints") == {"round_000002", "round_000003"}
    for path in (tmp_path / schedule / "checkpoints" / "round_000003").iterdir():
        assert (theirs / "checkpoints" / "round_000003" / path.name).read_bytes() == path.read_bytes()
    events = [path for path in filesystem.children(theirs) if path.name.startswith("events.")]
    assert len(events) == 2 and all(len(path.read_bytes()) > 100 for path in events)
    for phone in (None, 1):
        here, there = (rs.load_model(r.path, phone=phone, trust=True).state_dict() for r in (local, result))
        assert here.keys() == there.keys() and all((here[key] == there[key]).all() for key in here)
    for path in (tmp_path / schedule / "personal").iterdir():
        assert (theirs / "personal" / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.thorough
def test_on_s3_a_damaged_newest_checkpoint_is_named_and_the_one_before_it_taken(
    tmp_path: Path, bucket: str, caplog: pytest.LogCaptureFixture
) -> None:
    local = rs.fit(config(tmp_path, "whole"), callbacks=[])
    settings = config(f"s3://bucket{bucket}", "damaged")
    stopped(settings, 1)
    newest = checkpoint.complete(settings.run.folder / "checkpoints")[-1]
    filesystem.write(newest / "b.safetensors", b"damaged")
    result = resumed(settings)
    warned = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    damaged = newest / "b.safetensors"
    assert warned == [f"{damaged} is damaged: its checksum differs; going on from the checkpoint before it"]
    assert model_bytes(result) == model_bytes(local)
    assert timeless(result) == timeless(local)


@pytest.mark.thorough
def test_with_ray_the_fed_server_writes_to_s3_too_and_credentials_are_nowhere_written_down(
    tmp_path: Path, endpoint: str, bucket: str, ray_session: object, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    local = rs.fit(config(tmp_path, "local"), callbacks=[])
    settings = config(f"s3://AKIA:s3cr%2Fet@bucket/deep/er{bucket}", "ray")
    stopped(settings, 1)
    result = rs.fit(settings.with_values(cluster=RAY, run={"resume": "auto"}), callbacks=[PlainProgress()])
    assert model_bytes(result) == model_bytes(local)
    assert result.path == f"s3://AKIA:s3cr%2Fet@bucket/deep/er/ray{bucket}"
    folder = place(result.path)
    for name in ("config.yaml", "summary.json", "metrics.jsonl"):
        assert b"cr%2Fet" not in (folder / name).read_bytes()
        assert b"AKIA" not in (folder / name).read_bytes()
    told = capfd.readouterr()
    assert "cr%2Fet" not in told.out + told.err + repr(result)
    assert f"results: s3://bucket/deep/er/ray{bucket}" in told.out
    # By its own config.yaml, with the credentials of the environment.
    more = rs.Config.from_yaml(folder / "config.yaml").with_values(cluster={"backend": "inprocess"})
    assert more.run.storage_path == f"s3://bucket/deep/er{bucket}"
    assert resumed(more, rounds=4).metrics["rounds"] == 4


def test_in_memory_by_fsspec_a_run_is_resumed_by_its_uri_and_can_be_moved(tmp_path: Path) -> None:
    local = rs.fit(config(tmp_path, "local"), callbacks=[])
    settings = config("memory://store/runs", "run")
    stopped(settings, 0)
    result = rs.fit(config("memory://elsewhere", "ignored", resume="memory://store/runs/run"), callbacks=[])
    assert result.path == "memory://store/runs/run"
    assert model_bytes(result) == model_bytes(local)
    copied = tmp_path / "copied"
    copy(place(result.path), copied)
    more = rs.fit(config("ignored", "ignored", rounds=4, resume=str(copied)), callbacks=[])
    assert more.path == str(copied)
    assert model_bytes(more) == model_bytes(resumed(config(tmp_path, "local", rounds=4)))


def copy(folder: filesystem.Place, to: Path) -> None:
    to.mkdir()
    for path in filesystem.children(folder):
        if "." in path.name and path.name != "phones.parquet":
            (to / path.name).write_bytes(path.read_bytes())
        else:
            copy(path, to / path.name)


def test_rows_are_held_back_until_a_checkpoint_and_no_scratch_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    seen = []

    class Look(rs.Callback):
        def on_round_end(self, row: dict[str, Any]) -> None:
            folder = place("memory://store/held")
            text = (folder / "metrics.jsonl").read_text()
            seen.append((text.count("\n"), len(checkpoint.complete(folder / "checkpoints"))))

    settings = config("memory://store", "held", "splitfed_v3", rounds=5).with_values(checkpoint={"every": 2})
    rs.fit(settings, callbacks=[Look()])
    assert seen == [(0, 0), (2, 1), (2, 1), (4, 2), (5, 2)]
    assert list((tmp_path / "scratch").iterdir()) == []


def refused(capsys: pytest.CaptureFixture[str], uri: str) -> str:
    small = ["--cluster.backend", "ray", "--cluster.address", "127.0.0.1:1", "--phones.count", "2"]
    assert cli.main(["train", *small, "--run.storage_path", uri, "--run.name", "x"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("error: run.storage_path: 's3://")
    return error


def test_a_bucket_that_is_missing_is_one_line_before_any_actor_starts(
    capsys: pytest.CaptureFixture[str], endpoint: str, bucket: str
) -> None:
    error = refused(capsys, f"s3://k:s3cret@nobody/runs{bucket}")
    assert "The specified bucket does not exist" in error
    assert "s3cret" not in error


def test_credentials_that_are_missing_or_do_not_suffice_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    class Forbidden(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.send_response(403)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def __getattr__(self, name: str) -> Any:
            return self.answer if name.startswith("do_") else object.__getattribute__(self, name)

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Forbidden)
    Thread(target=server.serve_forever, daemon=True).start()
    error = refused(capsys, f"s3://k:s3cret@bucket/runs{query(f'127.0.0.1:{server.server_port}')}")
    server.shutdown()
    assert "ACCESS_DENIED" in error
    assert "s3cret" not in error


def test_a_fed_server_that_may_not_write_there_ends_the_run_before_it_trains() -> None:
    settings, progress = config("memory://store", "closed"), Starts()

    def refused(_: FedServer) -> None:
        raise PermissionError("no credentials here")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(FedServer, "reach", refused)
        with pytest.raises(rs.RunFailedError, match="PermissionError: no credentials here"):
            rs.fit(settings, callbacks=[progress])
    assert progress.first == []


def test_a_store_that_fails_within_a_run_is_said_and_the_last_checkpoint_stands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings, write, down = config("memory://store", "down"), Uri.write, []

    def failing(path: Uri, parts: Any) -> None:
        down.append(path.name == "b.safetensors" and path.parent.name == "round_000002")
        if any(down):
            raise OSError("the store is down")
        write(path, parts)

    with monkeypatch.context() as patched:
        patched.setattr(Uri, "write", failing)
        with pytest.raises(rs.RunFailedError, match="OSError: the store is down"):
            rs.fit(settings, callbacks=[])
    assert names(settings.run.folder / "checkpoints") == {"round_000001", "round_000002"}
    starts = Starts()
    rs.fit(settings.with_values(run={"resume": "auto"}), callbacks=[starts])
    assert starts.first == [1]


def test_in_a_ray_job_a_uri_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert rs.fit(config("memory://store", "job", rounds=1), callbacks=[]).metrics["status"] == "finished"
    with pytest.raises(rs.SettingsError, match=r"run\.storage_path.*absolute"):
        rs.fit(config("results", "job", rounds=1), callbacks=[])


def test_the_personal_rows_of_a_uri_are_read_one_at_a_time() -> None:
    from ray_split.messages.state import Closed
    from ray_split.results.personal_state import Personal

    made = Personal(Uri("memory://store", "many/personal"), 5000)
    own = {"a": {"weights/x/y": np.arange(6, dtype=np.float32).reshape(2, 3), "weights/n": np.array([7, 8])}}
    made.write(Closed((3, 4999), {}, own, 0))
    made.publish()
    found = Personal.open(Uri("memory://store", "many/personal"))
    assert found.trained.nonzero()[0].tolist() == [3, 4999]
    assert {key: array.tolist() for key, array in found.own(4999)["a"].items()} == {
        "weights/x/y": [3, 4, 5], "weights/n": 8,
    }  # fmt: skip
    with pytest.raises(FileNotFoundError):
        Personal.open(Uri("memory://store", "none/personal"))


def test_json_of_the_summary_says_finished_only_when_all_is_there() -> None:
    settings = config("memory://store", "order", rounds=1)
    order: list[str] = []
    with pytest.MonkeyPatch.context() as patched:
        write = Uri.write
        patched.setattr(Uri, "write", lambda path, parts: (order.append(path.name), write(path, parts))[1])
        rs.fit(settings, callbacks=[])
    kept = [name for name in order if name in FILES]
    assert kept[:3] == ["config.yaml", "metrics.jsonl", "summary.json"]
    assert order.index("checkpoint.json") > order.index("c.safetensors") > 0
    summary = json.loads((settings.run.folder / "summary.json").read_text())
    assert summary["status"] == "finished"
    assert kept.index("model.safetensors") < len(kept) - 1 - kept[::-1].index("summary.json")
