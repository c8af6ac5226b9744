"""`ray job submit`, `status`, `logs` and `stop`, as from a laptop: what they need to get in, and how they end."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from threading import Thread
from typing import Any

import pytest

import ray_split as rs
from actors.ray_backend.joining.auth import token_file
from jobs.ray_head import environment, ray_command
from tests.conftest import HANG_SECONDS, ROOT, RayHead
from tests.runs.storage.test_storage_runs import Starts

TRAIN = ["python", "-m", "jobs.train", "--config", "jobs/configs/digits.yaml", "--cluster.client_actors", "1"]
SUBMIT = ["submit", "--runtime-env", "deploy/runtime_env.yaml", "--working-dir", "."]

Job = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def token(ray_head: RayHead) -> str:
    """The cluster's, to be carried to where it is used."""
    return os.environ.get("RAY_AUTH_TOKEN") or token_file().read_text().strip()


@pytest.fixture
def job(ray_head: RayHead, token: str, tmp_path: Path) -> Job:
    """`ray job ...` of somebody whose home has no token: it comes from the environment."""
    (tmp_path / "home").mkdir()

    def run(*arguments: str, **variables: str | None) -> subprocess.CompletedProcess[str]:
        env: dict[str, Any] = {
            **environment(), "HOME": str(tmp_path / "home"), "RAY_ADDRESS": ray_head.dashboard,
            "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token, **variables,
        }  # fmt: skip
        env = {name: value for name, value in env.items() if value is not None}
        command = ray_command(sys.executable, "job", *arguments)
        return subprocess.run(
            command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=HANG_SECONDS, check=False
        )

    return run


def said(done: subprocess.CompletedProcess[str]) -> str:
    return done.stdout + done.stderr


def run_flags(path: Path, rounds: int, name: str = "r") -> list[str]:
    return ["--run.storage_path", str(path), "--run.name", name, "--run.rounds", str(rounds)]


def summary(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


def wait_for_rows(folder: Path, rows: int) -> None:
    deadline, metrics = time.monotonic() + 600, folder / "metrics.jsonl"
    while not (metrics.exists() and len(metrics.read_text().splitlines()) >= rows):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.thorough
def test_a_job_that_finishes_has_succeeded_and_its_log_can_be_read(job: Job, tmp_path: Path) -> None:
    done = job(*SUBMIT, "--submission-id", "rs_done", "--", *TRAIN, *run_flags(tmp_path, 1))
    assert done.returncode == 0, said(done)
    assert "round 1/1" in done.stdout and "succeeded" in said(done)
    status, logs = job("status", "rs_done"), job("logs", "rs_done")
    assert (status.returncode, logs.returncode) == (0, 0)
    assert "succeeded" in said(status).lower()
    assert "round 1/1" in logs.stdout
    assert summary(tmp_path / "r")["status"] == "finished"


@pytest.mark.slow
def test_a_bad_setting_fails_the_job_and_its_log_says_which(job: Job) -> None:
    done = job(*SUBMIT, "--submission-id", "rs_bad", "--", *TRAIN, "--phones.count", "0")
    assert done.returncode == 1, said(done)
    assert "error: phones.count: must be at least 1, not 0." in said(done)
    status, logs = job("status", "rs_bad"), job("logs", "rs_bad")
    assert "failed" in said(status).lower() and "exit code 2" in said(status).replace("code: ", "code ")
    assert "error: phones.count" in logs.stdout


@pytest.mark.slow
def test_a_job_that_is_stopped_ends_in_order_and_is_resumed_to_the_same_bytes(
    job: Job, tmp_path: Path, ray_session: RayHead
) -> None:
    from tests.jobs.test_submit import wait_for_no_actors

    flags = [*run_flags(tmp_path, 400), "--checkpoint.every", "100"]
    done = job(*SUBMIT, "--submission-id", "rs_stop", "--no-wait", "--", *TRAIN, *flags)
    assert done.returncode == 0, said(done)
    wait_for_rows(tmp_path / "r", 2)
    time.sleep(0.3)  # into a round
    stop = job("stop", "rs_stop")
    assert stop.returncode == 0, said(stop)
    assert "stopped" in said(job("status", "rs_stop")).lower()
    assert "stopped; --run.resume goes on from the last checkpoint" in job("logs", "rs_stop").stdout
    found, rows = summary(tmp_path / "r"), (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()
    assert (found["status"], found["rounds"]) == ("stopped", len(rows))
    assert [path.name for path in (tmp_path / "r" / "checkpoints").iterdir()] == [f"round_{len(rows):06d}"]
    wait_for_no_actors()
    what = rs.Config.from_yaml(tmp_path / "r" / "config.yaml")
    what = what.with_values(cluster={"backend": "inprocess"}, run={"rounds": len(rows) + 1})
    starts = Starts()
    resumed = rs.fit(what.with_values(run={"resume": "auto"}), callbacks=[starts])
    whole = rs.fit(what.with_values(run={"name": "whole"}), callbacks=[])
    assert starts.first == [len(rows)]
    models = [(Path(result.path) / "model.safetensors").read_bytes() for result in (resumed, whole)]
    assert models[0] == models[1]


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"RAY_AUTH_TOKEN": "wrong"}, "Forbidden: Invalid authentication token"),
        ({"RAY_AUTH_TOKEN": None}, "Ray couldn't find an authentication token"),
        ({"RAY_AUTH_MODE": None}, "RAY_AUTH_MODE is currently 'disabled'"),
    ],
    ids=["wrong", "none", "no mode"],
)
@pytest.mark.few(1)
def test_without_the_token_no_job_is_taken(job: Job, variables: dict[str, str | None], says: str) -> None:
    done = job("submit", "--", "true", **variables)
    assert done.returncode == 1
    assert says in said(done)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["status", "logs", "stop"])
def test_with_a_wrong_token_nothing_is_told_and_nothing_stopped(job: Job, command: str) -> None:
    done = job(command, "any", RAY_AUTH_TOKEN="wrong")
    assert done.returncode == 1
    assert "Forbidden: Invalid authentication token" in said(done)


@pytest.mark.thorough
def test_the_token_may_lie_in_a_file_and_one_in_the_environment_goes_before_it(
    job: Job, token: str, tmp_path: Path
) -> None:
    (tmp_path / "cluster.token").write_text(token + "\n")
    place = str(tmp_path / "cluster.token")
    assert job("list", RAY_AUTH_TOKEN=None, RAY_AUTH_TOKEN_PATH=place).returncode == 0
    assert "Forbidden" in said(job("list", RAY_AUTH_TOKEN="wrong", RAY_AUTH_TOKEN_PATH=place))


@pytest.fixture
def https(ray_head: RayHead, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A proxy that ends TLS before the dashboard: its address, and the certificate to trust."""
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    )
    subprocess.run([*command.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    host, _, port = ray_head.dashboard.removeprefix("http://").partition(":")

    class Proxy(StreamRequestHandler):
        def handle(self) -> None:
            with (
                context.wrap_socket(self.request, server_side=True) as near,
                socket.create_connection((host, int(port))) as far,
            ):
                back = Thread(target=pump, args=(far, near), daemon=True)
                back.start()
                pump(near, far)
                back.join()

    ThreadingTCPServer.daemon_threads = True
    with ThreadingTCPServer(("127.0.0.1", 0), Proxy) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"https://localhost:{server.server_address[1]}", str(certificate)
        server.shutdown()


def pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while chunk := source.recv(65536):
            target.sendall(chunk)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # one side has gone: so does the other


@pytest.mark.slow
def test_behind_a_proxy_with_https_the_token_goes_the_same_way(
    job: Job, https: tuple[str, str], tmp_path: Path
) -> None:
    address, certificate = https
    done = job("submit", "--verify", certificate, "--", "echo", "through", RAY_ADDRESS=address)
    assert done.returncode == 0, said(done)
    assert "through" in done.stdout.splitlines()
    assert "certificate verify failed" in said(job("list", RAY_ADDRESS=address))


@pytest.mark.thorough
def test_where_a_proxy_wants_the_authorization_header_the_token_goes_in_rays_own(job: Job, token: str) -> None:
    headers = {"Authorization": "Bearer the-proxys", "X-Ray-Authorization": f"Bearer {token}"}
    own = {"RAY_AUTH_MODE": None, "RAY_AUTH_TOKEN": None}
    assert job("list", **own, RAY_JOB_HEADERS=json.dumps({"X-Ray-Authorization": f"Bearer {token}"})).returncode == 0
    # Ray looks at `Authorization` first: the proxy has to take its own away.
    assert "Forbidden" in said(job("list", **own, RAY_JOB_HEADERS=json.dumps(headers)))
