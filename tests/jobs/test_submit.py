"""The submitted job: `make train` from start to end, stopping it, and what goes wrong inside a job."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import ray_split as rs
from jobs.ray_head import environment
from jobs.submit import main
from tests.conftest import HANG_SECONDS, ROOT, RayHead, alive_actors, hear_hangup
from tests.tiers import slow

CONFIG = "jobs/configs/digits.yaml"


PROXIES = ("http_proxy", "https_proxy", "all_proxy")
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(own_ray: None) -> Iterator[Start]:
    """Starts a process of its own session, from the checkout; none is left behind."""
    started: list[subprocess.Popen[str]] = []

    def begin(command: list[str], **variables: str) -> subprocess.Popen[str]:
        env = environment(**variables)
        if "RAY_ADDRESS" not in variables:
            env.pop("RAY_ADDRESS", None)
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "preexec_fn": hear_hangup}
        started.append(subprocess.Popen(command, cwd=ROOT, env=env, text=True, start_new_session=True, **pipes))
        return started[-1]

    yield begin
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)


def wait_for_round(folder: Path, rounds: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 600
    metrics = folder / "metrics.jsonl"
    while not (metrics.exists() and len(metrics.read_text().splitlines()) >= rounds):
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()[0]
        time.sleep(0.1)


def alive_roles() -> list[str]:
    return [actor.class_name for actor in alive_actors() if actor.class_name in ROLES]


ROLES = ("Client", "Server", "FedServer")


def wait_for_no_actors() -> None:
    deadline = time.monotonic() + 300
    while alive_roles():
        assert time.monotonic() < deadline, alive_roles()
        time.sleep(0.2)


def summary(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


@pytest.mark.thorough
def test_make_train_runs_the_whole_way_and_reaches_95_percent(tmp_path: Path, start: Start) -> None:
    arguments = f"--run.storage_path {tmp_path} --run.name first"
    # A fresh machine has no token yet; and a proxy knows nothing of what is on this machine.
    proxies = {name: "http://127.0.0.1:9" for each in PROXIES for name in (each, each.upper())}
    process = start(["make", "-o", ".venv/.installed", "train", f"ARGS={arguments}"], HOME=str(tmp_path), **proxies)
    output = process.communicate(timeout=HANG_SECONDS)[0]
    assert process.returncode == 0, output
    assert (tmp_path / ".ray" / "auth_token").exists()
    assert "round 15/15" in output and "test accuracy" in output and str(tmp_path / "first") in output
    assert summary(tmp_path / "first")["status"] == "finished"
    assert summary(tmp_path / "first")["test_accuracy"] >= 0.95


@pytest.mark.slow
def test_b_is_worth_more_than_three_points(tmp_path: Path) -> None:
    settings = rs.Config.from_yaml(ROOT / CONFIG).with_values(cluster={"backend": "inprocess"})
    accuracy = {}
    for name, freeze in (("trained", []), ("frozen", ["b"])):
        run = {"storage_path": str(tmp_path), "name": name}
        result = rs.fit(settings.with_values(run=run, model={"freeze": freeze}), callbacks=[])
        accuracy[name] = result.metrics["test_accuracy"]
    assert accuracy["trained"] >= 0.95
    assert accuracy["trained"] >= accuracy["frozen"] + 0.03


@pytest.mark.thorough
@pytest.mark.parametrize("number", [signal.SIGTERM, *slow(signal.SIGINT, signal.SIGHUP)], ids=lambda n: n.name)
def test_a_signal_stops_the_run_leaves_no_actor_and_it_can_be_resumed(
    tmp_path: Path, ray_session: RayHead, start: Start, number: signal.Signals
) -> None:
    flags = ["--config", CONFIG, "--run.storage_path", str(tmp_path), "--run.name", "r", "--run.rounds", "400"]
    command = [sys.executable, "-m", "jobs.train", *flags, "--cluster.client_actors", "1", "--checkpoint.every", "100"]
    process = start(command, RAY_ADDRESS=ray_session.address)
    wait_for_round(tmp_path / "r", 2, process)
    process.send_signal(number)
    output = process.communicate(timeout=HANG_SECONDS)[0]
    assert process.returncode == 128 + number, output
    assert "Traceback" not in output
    assert summary(tmp_path / "r")["status"] == "stopped"
    wait_for_no_actors()
    done = summary(tmp_path / "r")["rounds"]
    assert [path.name for path in (tmp_path / "r" / "checkpoints").iterdir()] == [f"round_{done:06d}"]
    resumed = start(
        [*command, "--run.resume", "--run.rounds", str(done + 1), "--cluster.backend", "inprocess"],
    )
    output = resumed.communicate(timeout=HANG_SECONDS)[0]
    assert resumed.returncode == 0, output
    whole = rs.Config.from_yaml(tmp_path / "r" / "config.yaml").with_values(
        run={"name": "whole", "resume": "never"}, cluster={"backend": "inprocess"}
    )
    expected = Path(rs.fit(whole, callbacks=[]).path) / "model.safetensors"
    assert (tmp_path / "r" / "model.safetensors").read_bytes() == expected.read_bytes()


@pytest.mark.slow
def test_ctrl_c_stops_the_job_not_only_its_log(tmp_path: Path, ray_session: RayHead, start: Start) -> None:
    from ray.job_submission import JobStatus, JobSubmissionClient

    flags = ["--config", CONFIG, "--run.storage_path", str(tmp_path), "--run.name", "r", "--run.rounds", "400"]
    process = start(
        [sys.executable, "-m", "jobs.submit", "python", "-m", "jobs.train", *flags],
        RAY_ADDRESS=ray_session.dashboard,
    )
    wait_for_round(tmp_path / "r", 1, process)
    os.killpg(process.pid, signal.SIGINT)
    output = process.communicate(timeout=HANG_SECONDS)[0]
    assert process.returncode == 128 + signal.SIGINT, output
    assert JobStatus.STOPPED in {job.status for job in JobSubmissionClient(ray_session.dashboard).list_jobs()}
    assert summary(tmp_path / "r")["status"] == "stopped"
    wait_for_no_actors()


@pytest.mark.slow
@pytest.mark.slow
def test_a_relative_storage_path_is_refused_inside_a_job_with_the_reason(ray_session: RayHead, start: Start) -> None:
    process = start(
        [sys.executable, "-m", "jobs.submit", "python", "-m", "jobs.train", "--run.storage_path", "results"],
        RAY_ADDRESS=ray_session.dashboard,
    )
    output = process.communicate(timeout=HANG_SECONDS)[0]
    assert process.returncode == 1, output
    assert (
        "run.storage_path: in a Ray job, 'results' would be in Ray's cache, which is deleted afterwards. "
        "Set an absolute path, ~/..., or a URI." in output
    )
    assert "exited with code 2" in output or "exit code 2" in output or "code: 2" in output


@pytest.mark.thorough
def test_a_job_without_the_token_is_refused(ray_session: RayHead, start: Start, tmp_path: Path) -> None:
    process = start(
        [sys.executable, "-m", "jobs.submit", "python", "-c", "print('ran')"],
        RAY_ADDRESS=ray_session.dashboard, RAY_AUTH_TOKEN="wrong" * 8, HOME=str(tmp_path),
    )  # fmt: skip
    output = process.communicate(timeout=HANG_SECONDS)[0]
    assert process.returncode != 0
    assert "ran" not in output.splitlines()


def test_help_and_nothing_to_submit_start_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, status in (["--help"], 0), (["-h"], 0), ([], 2):
        assert main(arguments) == status
        said = capsys.readouterr()
        told, other = (said.err, said.out) if status else (said.out, said.err)
        assert "python -m jobs.submit python -m jobs.train" in told
        assert other == ""
