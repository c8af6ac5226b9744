"""The last line of a run's output names the results' place, however it ended."""

from __future__ import annotations

import json
import signal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ray_split as rs
from ray_split import cli
from tests.runs.phones.test_quarantine import rings

HERE = "tests.ray_split.driver.test_ending"
OUTCOMES = {"finished": 0, "stopped": 143, "failed": 1}


def ends(how: str, folder: str) -> rs.DataSet:
    """Samples that end the run while it trains."""
    whole = rings()
    keys = np.column_stack([np.arange(72), np.full(72, list(OUTCOMES).index(how))])
    lazy = rs.LazyInputs(partial(_read, folder), keys, (4,), np.dtype(np.float32))
    return rs.DataSet(rs.Part(lazy, whole.train.labels), whole.test, 3)


def _read(folder: str, key: np.ndarray) -> np.ndarray:
    if key[1] and (Path(folder) / "metrics.jsonl").exists():  # the run has begun
        if key[1] == 2:
            raise OSError("broken")
        assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
        signal.raise_signal(signal.SIGTERM)
    return rings().train.inputs[key[0]]


def run(path: Path, how: str, *flags: str) -> int:
    command = ["train", "--cluster.backend", "inprocess", "--model.name", "tests.nets:three_linear"]
    command += [
        "--data.name",
        f"{HERE}:ends",
        "--data.kwargs",
        f"{{how: {how}, folder: {path}/r}}",
        "--phones.count",
        "2",
    ]
    command += ["--data.batch_size", "6", "--run.rounds", "2", "--run.storage_path", str(path), "--run.name", "r"]
    return cli.main([*command, *flags])


@pytest.mark.parametrize("how", OUTCOMES)
def test_as_text_it_is_the_last_line_of_stdout(tmp_path: Path, capfd: Any, how: str) -> None:
    assert run(tmp_path, how) == OUTCOMES[how]
    assert rs.Result.from_path(tmp_path / "r").metrics["status"] == how
    captured = capfd.readouterr()
    assert captured.out.splitlines()[-1] == f"results: {tmp_path / 'r'}"
    complaints = {"finished": "", "stopped": "stopped; --run.resume goes on", "failed": "error: the run failed: "}
    assert captured.err.startswith(complaints[how]) and len(captured.err.splitlines()) == (how != "finished")


@pytest.mark.parametrize("how", OUTCOMES)
def test_as_json_it_is_the_last_line_of_stderr(tmp_path: Path, capfd: Any, how: str) -> None:
    assert run(tmp_path, how, "--run.log_format", "json") == OUTCOMES[how]
    captured = capfd.readouterr()
    lines = [json.loads(line) for line in captured.err.splitlines()]
    assert captured.out == "" and lines[-1]["results"] == str(tmp_path / "r")
    assert lines[-1]["message"] == f"results: {tmp_path / 'r'}" and lines[-1]["run"] == "r"
    assert [line["message"] for line in lines if line["message"].startswith("run ")] == [f"run {how}"]
    assert (lines[-2]["level"] == "ERROR") == (how != "finished")


def test_a_run_that_never_began_names_no_place(tmp_path: Path, capfd: Any) -> None:
    assert run(tmp_path, "finished", "--model.cuts", "nothing,here") == 2
    captured = capfd.readouterr()
    assert captured.out == "" and captured.err.startswith("error: model.cuts: ")
    assert run(tmp_path, "finished", "--model.cuts", "nothing,here", "--run.log_format", "json") == 2
    (line,) = map(json.loads, capfd.readouterr().err.splitlines())
    assert line["message"].startswith("error: model.cuts: ") and "results" not in line
