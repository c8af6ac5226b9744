"""A sweep on Ray Tune, run as a job is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest

import ray_split as rs
from jobs.ray_head import environment
from tests.conftest import HANG_SECONDS, ROOT, RayHead, alive_actors

pytestmark = pytest.mark.thorough

CUTS = "[layers.0,layers.1],[nowhere,layers.1]"
SETTINGS = ["--model.name", "mlp", "--phones.count", "4", "--run.rounds", "4", "--schedule.name", "splitfed_v1"]
AXES = ["--over", "optimizer.lr=0.3,0.0001", "--over", f"model.cuts={CUTS}", "--seeds", "5"]
HOW = ["--stop-early", "--grace", "1", "--concurrent", "1"]


class Swept(NamedTuple):
    done: subprocess.CompletedProcess[str]
    untrusted: subprocess.CompletedProcess[str]
    again: subprocess.CompletedProcess[str]
    out: Path

    @property
    def runs(self) -> dict[str, Path]:
        """The runs' folders by their learning rates: those whose cut can be made."""
        return {path.name.partition("lr=")[2].partition(",")[0]: path for path in (self.out / "runs").iterdir()}


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, ray_head: RayHead) -> Swept:
    """A sweep, and the same command once more, at first without --trust."""
    out = tmp_path_factory.mktemp("sweep")
    env = environment(RAY_ADDRESS=ray_head.address, PYTHONPATH=os.pathsep.join([str(ROOT)]))
    command = [sys.executable, "-m", "jobs.sweep", *SETTINGS, *AXES, *HOW, "--server.num_gpus", "0", "--out", str(out)]
    done, untrusted, again = (
        subprocess.run([*command, *more], cwd=ROOT, env=env, capture_output=True, text=True, timeout=HANG_SECONDS)
        for more in ([], [], ["--trust"])
    )
    return Swept(done, untrusted, again, out)


def test_runs_that_fail_do_not_stop_the_others_and_are_told_of(swept: Swept) -> None:
    assert swept.done.returncode == 1, swept.done.stderr[-3000:]
    failed = [line for line in swept.done.stdout.splitlines() if line.startswith("failed: ")]
    assert len(failed) == 2
    assert all("model.cuts: there is no layer 'nowhere'" in line for line in failed)
    assert all(
        line.startswith("failed: ") and "optimizer.lr=" in line and "SettingsError" not in line for line in failed
    )
    said = swept.done.stderr.splitlines() + swept.done.stdout.splitlines()
    assert [
        line for line in said if "there is no layer 'nowhere'" in line
    ] == failed  # and in no traceback of the run's
    assert not [line for line in said if "SystemExit" in line]
    assert json.loads((swept.runs["0.3"] / "summary.json").read_text())["status"] == "finished"


def test_a_run_that_falls_behind_is_stopped_in_order(swept: Swept) -> None:
    rows = (swept.runs["0.0001"] / "metrics.jsonl").read_text().splitlines()
    assert len(rows) < 4
    assert json.loads((swept.runs["0.0001"] / "summary.json").read_text())["status"] == "stopped"


def test_the_table_has_each_run_and_the_best_point_can_be_trained_again(swept: Swept) -> None:
    table = pd.read_csv(swept.out / "sweep.csv")
    scored = table[table["val_accuracy"].notna()]
    assert sorted(scored["config/optimizer.lr"]) == [0.0001, 0.3]
    last = json.loads((swept.runs["0.3"] / "metrics.jsonl").read_text().splitlines()[-1])
    assert scored.set_index("config/optimizer.lr").loc[0.3, "val_accuracy"] == last["val_accuracy"]
    best = rs.Config.from_yaml(swept.out / "best.yaml")
    assert (best.optimizer.lr, best.model.cuts) == (0.3, ["layers.0", "layers.1"])


def test_a_trials_weights_are_those_of_the_run_alone(swept: Swept, tmp_path: Path) -> None:
    settings = rs.Config.from_yaml(swept.runs["0.3"] / "config.yaml")
    alone = settings.with_values(
        run={"storage_path": str(tmp_path), "resume": "never"}, cluster={"backend": "inprocess"}
    )
    result = rs.fit(alone, callbacks=[])
    weights = Path(result.path) / "model.safetensors"
    assert weights.read_bytes() == (swept.runs["0.3"] / "model.safetensors").read_bytes()


def test_started_again_it_goes_on_where_it_stopped(swept: Swept) -> None:
    assert swept.again.returncode == 1, swept.again.stderr[-3000:]
    assert swept.again.stdout.splitlines()[-1] == f"results: {swept.out}"
    assert len((swept.runs["0.3"] / "metrics.jsonl").read_text().splitlines()) == 4
    assert len(list((swept.out / "runs").iterdir())) == 2


def test_what_tune_left_is_not_unpickled_unasked(swept: Swept) -> None:
    assert swept.untrusted.returncode == 2
    refused = f"error: --out: resuming the sweep loads {swept.out}/tune/tuner.pkl, which can run any code. "
    assert swept.untrusted.stderr.splitlines()[-1].startswith(refused)
    assert swept.untrusted.stderr.endswith(
        "Add --trust if you trust whoever wrote that folder, or name a new folder.\n"
    )


def test_nothing_of_a_sweep_is_left_on_the_cluster(swept: Swept, ray_session: RayHead) -> None:
    import ray

    assert not [actor for actor in alive_actors() if actor.class_name in ("Client", "Server", "FedServer", "Trial")]
    assert all(group["state"] == "REMOVED" for group in ray.util.placement_group_table().values())


@pytest.mark.slow
def test_one_that_is_interrupted_ends_in_order_says_so_and_goes_on(tmp_path: Path, ray_head: RayHead) -> None:
    env = environment(RAY_ADDRESS=ray_head.address, PYTHONPATH=os.pathsep.join([str(ROOT)]))
    axes = ["--over", "optimizer.lr=0.3,0.1", "--seeds", "5", "--concurrent", "1", "--server.num_gpus", "0"]
    command = [sys.executable, "-m", "jobs.sweep", *SETTINGS, *axes, "--run.rounds", "12", "--out", str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True) as begun:
        while begun.poll() is None and not any(tmp_path.glob("runs/*/metrics.jsonl")):
            time.sleep(0.2)
        begun.send_signal(signal.SIGINT)
        _, said = begun.communicate()
    assert begun.returncode == 130, said[-3000:]
    assert f"stopped; the same command with --out {tmp_path} --trust goes on" in said
    again = subprocess.run([*command, "--trust"], cwd=ROOT, env=env, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr[-3000:]
    rows = {path.parent.name: len(path.read_text().splitlines()) for path in tmp_path.glob("runs/*/metrics.jsonl")}
    assert list(rows.values()) == [12, 12]


@pytest.mark.thorough
def test_a_setting_that_no_run_can_have_is_one_line_and_ray_is_not_started(tmp_path: Path) -> None:
    words = ["--model.name", "nosuch", "--over", "optimizer.lr=0.1,0.2", "--out", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-m", "jobs.sweep", *words], cwd=ROOT, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: model.name: there is no model 'nosuch'") and done.stderr.count("\n") == 1
    assert "Started" not in done.stdout
