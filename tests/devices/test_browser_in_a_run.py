"""A browser takes part by an invitation to the gateway itself: the model of a simulated phone, but for rounding."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import ray_split as rs

pytest.importorskip("ray_split.devices.tokens", reason="this tree has no gateway")
from ray_split.devices.tokens import tokens_of
from ray_split.experiments.remote.devices import invitations
from tests.loopback import remotely

WEB = Path(__file__).parents[2] / "web"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed"),
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
    pytest.mark.skipif(not (WEB / "node_modules").exists(), reason="web/node_modules is missing: npm install in web/"),
]


def config(path: Path, name: str, schedule: str) -> rs.Config:
    return rs.Config(
        model={"name": "digits_cnn"},
        schedule={"name": schedule},
        data={"batch_size": 16},
        phones={"count": 2, "local_steps": 5, "cohort": 1},
        optimizer={"lr": 0.05, "momentum": 0.5},
        cluster={"backend": "inprocess"},
        run={"storage_path": str(path), "name": name, "rounds": 3},
    )


@pytest.mark.parametrize(("schedule", "backend"), [("splitfed_v1", "webgl"), ("splitfed_v3", "cpu")])
def test_a_browser_beside_a_simulated_phone(tmp_path: Path, schedule: str, backend: str) -> None:
    whole = rs.fit(config(tmp_path, "simulated", schedule), callbacks=[])
    settings = remotely(config(tmp_path, "remote", schedule), tmp_path, "remote", remote=1)
    settings = settings.with_values(gateway={"examples": True})
    assert settings.gateway.tokens is not None
    tokens, url = tokens_of(settings.gateway.tokens, 1), f"http://127.0.0.1:{settings.gateway.port}/"
    (invitation,) = invitations(tokens, url, pictures=False)
    address = invitation.removeprefix("device 0: ")
    command = ["node", str(WEB / "test" / "browser.mjs"), address, backend, str(tmp_path), "stay"]
    with subprocess.Popen(command, env={**os.environ, "CHROMIUM": str(CHROMIUM)}) as browser:
        result = rs.fit(settings, callbacks=[])
        assert browser.wait(60) == 0
    ours, theirs = (load_file(Path(run.path) / "model.safetensors") for run in (whole, result))
    for name, weights in ours.items():
        np.testing.assert_allclose(theirs[name], weights, rtol=1e-4, atol=1e-4 * float(np.abs(weights).max()))
