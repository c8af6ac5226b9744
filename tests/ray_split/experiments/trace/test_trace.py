from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ray_split as rs
from ray_split.experiments.trace.events import PHONES, REAL, SERVERS
from ray_split.experiments.trace.main import main
from ray_split.filesystem import place
from ray_split.results.records import read_rows


def run(folder: Path, **more: Any) -> Path:
    phones = {"count": 3, "local_steps": 2, "link": "4g", **more.pop("phones", {})}
    data = {"name": "synthetic", "kwargs": {"samples": 100}}
    where = {"name": "x", "storage_path": str(folder), "rounds": 2}
    settings = rs.Config(phones=phones, data=data, run=where, cluster={"backend": "inprocess"}, **more)
    return Path(rs.fit(settings, callbacks=[]).path)


def bars(path: Path, pid: int) -> list[dict[str, Any]]:
    return [e for e in json.loads(path.read_text())["traceEvents"] if e["pid"] == pid and e["ph"] == "X"]


SCHEDULES = [{"name": "splitfed_v1"}, {"name": "sequential"}, {"name": "parallel", "kwargs": {"batch": "joint"}}]


@pytest.mark.few(1)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_phones_bars_fill_its_round_without_a_gap(schedule: dict[str, Any], tmp_path: Path) -> None:
    folder = run(tmp_path, schedule=schedule)
    assert main([str(folder), "--round", "1"]) == 0
    row = read_rows(place(folder))[1]
    of_phones, ends = bars(folder / "trace_1.json", PHONES), []
    for phone in range(3):
        own = sorted((e["ts"], e["ts"] + e["dur"]) for e in of_phones if e["tid"] == phone)
        assert own[0][0] == 0
        assert np.allclose([start for start, _ in own[1:]], [end for _, end in own[:-1]])
        ends.append(own[-1][1] / 1e6)
    assert max(ends) == pytest.approx(row["virtual_seconds"])
    for kind, figure in (("phone", "phone"), ("server", "server"), ("waiting", "waiting")):
        told = sum(e["dur"] for e in of_phones if e["cat"] == kind) / 1e6 / 3
        assert told == pytest.approx(row[f"virtual_{figure}_seconds"], abs=1e-9)
    assert (folder / "trace_1.png").read_bytes()[:4] == b"\x89PNG"


def test_a_server_does_one_thing_at_a_time(tmp_path: Path) -> None:
    folder = run(tmp_path, schedule={"name": "splitfed_v1"}, server={"replicas": 2}, phones={"cohort": 1})
    main([str(folder), "--out", str(tmp_path / "out")])
    of_servers = bars(tmp_path / "out" / "trace_0.json", SERVERS)
    assert {e["tid"] for e in of_servers} == {0, 1}
    assert len(of_servers) == 3 * 2 * 2  # a forward and a backward for each batch
    for server in (0, 1):
        own = sorted((e["ts"], e["ts"] + e["dur"]) for e in of_servers if e["tid"] == server)
        assert all(end <= start + 1e-3 for (_, end), (start, _) in pairwise(own))


def test_real_time_is_told_as_sums(tmp_path: Path) -> None:
    folder = run(tmp_path, schedule={"name": "splitfed_v1"})
    main([str(folder)])
    row, real = read_rows(place(folder))[0], bars(folder / "trace_0.json", REAL)
    assert real[0]["dur"] / 1e6 == pytest.approx(row["round_seconds"])
    told = {(e["tid"], e["name"]): e["dur"] / 1e6 for e in real}
    assert told[1, "compute"] == pytest.approx(row["server_compute_seconds"])
    assert told[2, "compute"] == pytest.approx(row["client_compute_seconds"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--round", "2"], "--round: must be from 0 to 1, not 2."),
        (["--rounds", "1"], "Did you mean --round?"),
    ],
)
def test_a_wrong_argument_is_a_line(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run(tmp_path)
    assert main([str(folder), *arguments]) == 2
    assert said in capsys.readouterr().err


def test_a_run_without_virtual_time_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run(tmp_path, phones={"link": None})
    assert main([str(folder)]) == 2
    assert "has no virtual time to trace. Train again with phones.device" in capsys.readouterr().err
    assert main([str(tmp_path)]) == 2
    assert "is not a run's folder: it has no config.yaml" in capsys.readouterr().err
