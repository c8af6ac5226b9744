"""`ray-split devices` and `ray-split device`: invitations, and a process of its own that is a phone of a run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ray_split as rs
from ray_split.cli import main
from ray_split.devices.client import histogram
from ray_split.devices.tokens import tokens_of
from ray_split.experiments.remote.devices import table
from tests.conftest import HANG_SECONDS, ROOT
from tests.loopback import devices, remotely, samples_of
from tests.runs.equality.test_same_bytes import model_bytes


def test_an_invitation_is_an_address_with_the_devices_token_and_a_picture_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "devices.json"
    assert main(["devices", "invite", "--count", "2", "--tokens", str(path), "--url", "http://here:8484"]) == 0
    lines = capsys.readouterr().out.splitlines()
    told = [line for line in lines if line.startswith("device ")]
    assert told == [f"device {i}: http://here:8484/#{token}" for i, token in enumerate(tokens_of(path, 2))]
    assert len(lines) > 30 and all(len(line) < 80 for line in lines)
    assert main(["devices", "invite", "--no-picture", "--tokens", str(path)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


@pytest.mark.parametrize(("arguments", "told", "status"), [
    (["devices", "invite", "--count", "0"], "--count: must be a number from 1 to 10000, not 0.", 2),
    (["device", "--url", "nowhere", "--examples"], "--url: must be an address such as http://gateway:8484/", 2),
    (["device", "--url", "http://here:8484/", "--examples"], "--token: is not set. Give the invitation's whole", 2),
    (["device", "--url", "http://here:8484/#t"], "--data: is one of two ways. Name a function of yours, or say", 2),
    (["device", "--url", "http://here:8484/#t", "--data", "numpy:zeros"], "--data: numpy:zeros failed", 2),
    (["devices", "list", "--url", "http://127.0.0.1:1/"], "no answer from a gateway at http://127.0.0.1:1/", 1),
], ids=str)  # fmt: skip
def test_what_is_wrong_is_told_in_a_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    told: str,
    status: int,
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(arguments) == status
    error = capsys.readouterr().err
    assert error.startswith(f"error: {told}") and len(error.splitlines()) == 1


def test_the_list_has_a_line_for_each_device_that_ever_was_there() -> None:
    told = {"device": "a phone", "connected": 0.0, "headers": 9, "frames": 9, "up": 2_500_000, "down": 10}
    there = {**told, "phone": 1, "there": True, "answers": 4, "seconds": 0.5, "lost": 2, "labels": {"10": 1, "9": 5}}
    gone = {**told, "phone": 2, "there": False, "answers": 0, "seconds": 0.0, "lost": 1, "labels": None}
    head, first, second = table([there, gone])
    assert head.split()[:4] == ["phone", "device", "connected", "lost"] and head.endswith("  labels")
    assert first.split()[4:] == ["2", "125", "ms", "2.50", "MB", "0.00", "MB", "9:", "5,", "10:", "1"]
    assert second.split()[3:] == ["gone", "1", "0", "ms", "2.50", "MB", "0.00", "MB", "-"]
    assert list(table([gone]))[-1] == "no device is connected"
    many = list(table([{**there, "labels": {str(number): 1 for number in range(21)}}]))[1]
    assert many.endswith("19: 1, ...")


def test_a_device_says_how_many_samples_of_each_class_it_has_only_if_its_owner_agrees(tmp_path: Path) -> None:
    simulated = rs.Config(
        model={"name": "mlp"},
        phones={"count": 2, "local_steps": 1},
        cluster={"backend": "inprocess"},
        run={"storage_path": str(tmp_path), "name": "simulated", "rounds": 1},
    )
    samples = samples_of(simulated)
    assert sum(histogram(samples[1]).values()) == len(samples[1])
    assert histogram(samples[1])["3"] == int((samples[1].labels == 3).sum())
    seen: list[dict[str, Any]] = []

    class Look(rs.Callback):
        def on_devices(self, round: int, devices: list[dict[str, Any]]) -> None:
            seen.extend(devices)

    for shares in (False, True):
        settings = remotely(simulated, tmp_path, f"remote {shares}", remote=1)
        with devices(settings, samples, share_labels=shares):
            rs.fit(settings, callbacks=[Look()])
        assert seen[-1]["labels"] == (histogram(samples[1]) if shares else None)
        assert seen[-1]["answers"] == 1 + 3 + 1 and seen[-1]["there"]


@pytest.mark.thorough
def test_a_process_of_its_own_with_data_of_its_own_is_a_phone(tmp_path: Path) -> None:
    simulated = rs.Config(
        model={"name": "mlp"},
        phones={"count": 2, "local_steps": 2},
        cluster={"backend": "inprocess"},
        run={"storage_path": str(tmp_path), "name": "simulated", "rounds": 2},
    )
    samples = samples_of(simulated)[1]
    np.savez(tmp_path / "own.npz", inputs=samples.inputs, labels=samples.labels)
    (tmp_path / "my_data.py").write_text(
        "import numpy as np\n\n\ndef samples():\n    found = np.load('own.npz')\n"
        "    return found['inputs'], found['labels']\n"
    )
    settings = remotely(simulated, tmp_path, "remote", remote=1)
    assert settings.gateway.tokens is not None
    address = f"http://127.0.0.1:{settings.gateway.port}/#{tokens_of(settings.gateway.tokens, 1)[0]}"
    command = [sys.executable, "-m", "ray_split.cli", "device", "--url", address, "--data", "my_data:samples"]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as device:
        result = rs.fit(settings, callbacks=[])
        output = device.communicate(timeout=HANG_SECONDS)[0].splitlines()
    assert device.returncode == 0
    assert output[-1] == "the run is over" and f"phone 1 of run remote, {len(samples)} samples" in output
    assert model_bytes(result.path) == model_bytes(rs.fit(simulated, callbacks=[]).path)
