"""Runs of one name that start at once, and a resume beside a living run: one writer, and a line for the others."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest

import ray_split as rs
from ray_split import cli, filesystem
from ray_split.preparation import prepare
from ray_split.results import checkpoint
from tests.runs.storage.test_storage_runs import config, model_bytes, resumed, stopped, timeless

FORK = multiprocessing.get_context("fork")


def started(settings: rs.Config, start: Barrier, out: Path) -> None:
    """In a process of its own: how it ended is written to `out`."""
    start.wait()
    try:
        found = f"finished {rs.fit(settings, callbacks=[]).path}"
    except rs.SettingsError as error:
        found = str(error)
    (out / str(os.getpid())).write_text(found)


def at_once(settings: rs.Config, out: Path, count: int = 4) -> list[str]:
    out.mkdir()
    start = FORK.Barrier(count)
    processes = [FORK.Process(target=started, args=(settings, start, out)) for _ in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return sorted(path.read_text() for path in out.iterdir())


def rounds(folder: Path) -> list[int]:
    return [json.loads(line)["round"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_of_runs_of_one_name_one_is_run_and_the_others_are_refused_by_a_line(tmp_path: Path) -> None:
    whole = rs.fit(config(tmp_path, "whole"), callbacks=[])
    *told, finished = sorted(at_once(config(tmp_path, "run"), tmp_path / "ends"), key=lambda end: end[:8] == "finished")
    assert finished == f"finished {tmp_path / 'run'}"
    taken = ("run.name: 'run' is in use: process ", f"run.name: '{tmp_path / 'run'}' already holds a run. ")
    assert all(line.startswith(taken) and "Choose another run.name" in line for line in told)
    assert len(told) == 3
    assert rounds(tmp_path / "run") == [0, 1, 2]
    assert model_bytes(rs.Result.from_path(tmp_path / "run")) == model_bytes(whole)


@pytest.mark.few(1)
def test_of_resumes_at_once_one_goes_on_to_the_bytes_of_the_undisturbed_run(tmp_path: Path) -> None:
    whole = rs.fit(config(tmp_path, "whole", "splitfed_v3", rounds=6), callbacks=[])
    settings = config(tmp_path, "run", "splitfed_v3", rounds=6)
    stopped(settings, 1)
    ends = at_once(settings.with_values(run={"resume": "auto"}), tmp_path / "ends")
    refused = [end for end in ends if not end.startswith("finished")]
    line = "run.resume: the run 'run' has not ended: process "
    assert len(refused) < 4 and all(
        end.startswith(line) and "Wait until it has ended, or stop it." in end for end in refused
    )
    assert rounds(tmp_path / "run") == [*range(6)]
    result = rs.Result.from_path(tmp_path / "run")
    assert (model_bytes(result), timeless(result)) == (model_bytes(whole), timeless(whole))
    for path in (tmp_path / "whole" / "personal").iterdir():
        assert (tmp_path / "run" / "personal" / path.name).read_bytes() == path.read_bytes()


def test_runs_without_a_name_have_one_each_however_many_start_in_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare.time, "strftime", lambda *_: "now")
    settings = config(tmp_path, "x", rounds=1).with_values(run={"name": None})
    ends = at_once(settings, tmp_path / "ends")
    name = f"finished {tmp_path / 'three_linear_sequential_now'}"
    assert ends == [name, f"{name}_2", f"{name}_3", f"{name}_4"]


@pytest.fixture
def living(tmp_path: Path) -> Iterator[Any]:
    """A run in a process of its own, that has written its first checkpoint and goes on for ever."""
    process = FORK.Process(target=rs.fit, args=(config(tmp_path, "run", rounds=10**6), []))
    process.start()
    while not checkpoint.complete(tmp_path / "run" / "checkpoints"):
        assert process.is_alive()
        time.sleep(0.01)
    yield process
    process.kill()
    process.join()


@pytest.mark.parametrize("resume", ["never", "auto", "path"])
def test_beside_a_living_run_none_is_started_and_nothing_is_lost(
    tmp_path: Path, living: Any, capsys: pytest.CaptureFixture[str], resume: str
) -> None:
    flags = {
        "never": ["--run.name", "run", "--run.storage_path", str(tmp_path)],
        "auto": ["--run.name", "run", "--run.storage_path", str(tmp_path), "--run.resume"],
        "path": ["--run.resume", str(tmp_path / "run")],
    }[resume]
    assert cli.main(["train", "--cluster.backend", "inprocess", *flags]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"process {living.pid} on " in error and f"remove {tmp_path / 'run' / '.owner'})" in error
    assert living.is_alive()


def test_a_run_that_was_killed_is_resumed_at_once(tmp_path: Path, living: Any) -> None:
    os.kill(living.pid, signal.SIGKILL)
    living.join()
    done = len(rounds(tmp_path / "run"))
    result = resumed(config(tmp_path, "run", rounds=done + 1))
    assert rounds(tmp_path / "run") == [*range(done + 1)]
    assert model_bytes(result) == model_bytes(rs.fit(config(tmp_path, "whole", rounds=done + 1), callbacks=[]))
    assert not [path for path in filesystem.children(tmp_path / "run") if path.name.startswith(".")]
