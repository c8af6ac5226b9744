"""Phones on devices, by way of the gateway, train to the bytes of simulated ones with the same samples."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from safetensors.numpy import load_file

import ray_split as rs
from tests.loopback import devices, remotely, samples_of
from tests.runs.equality.test_same_bytes import model_bytes, rows, timeless
from tests.tiers import on_ray, slow

CASES: dict[str, dict[str, Any]] = {
    "sequential": {"optimizer": {"name": "adam", "lr": 0.01}},
    "splitfed_v1": {"optimizer": {"momentum": 0.5, "schedule": {"name": "StepLR", "kwargs": {"step_size": 2}}}},
    "splitfed_v2": {"optimizer": {"name": "adamw", "lr": 0.01}},
    "splitfed_v3": {"optimizer": {"momentum": 0.5}},
    "parallel": {"phones": {"dropout": 0.4}},
}


def config(path: Path, name: str, case: str, backend: str = "inprocess") -> rs.Config:
    given = CASES[case]
    schedule = given.get("schedule", {"name": case})
    return rs.Config(
        model=given.get("model", {"name": "digits_cnn"}),
        schedule=schedule,
        data={"batch_size": 16},
        phones={"count": 5, "local_steps": 3, "cohort": 1, **given.get("phones", {})},
        optimizer={"lr": 0.1, **given.get("optimizer", {})},
        cluster={"backend": backend},
        run={"storage_path": str(path), "name": name, "rounds": 2},
    )


@pytest.mark.parametrize("case", CASES)
@pytest.mark.few(1)
def test_three_devices_beside_two_simulated_phones_train_to_the_bytes_of_five_simulated(
    tmp_path: Path, case: str
) -> None:
    _check(tmp_path, case)


@pytest.mark.parametrize("case", [on_ray("splitfed_v1"), on_ray("sequential")])
def test_on_ray_too(tmp_path: Path, case: str, ray_session: object) -> None:
    _check(tmp_path, case, "ray")


def _check(tmp_path: Path, case: str, backend: str = "inprocess") -> None:
    whole = rs.fit(config(tmp_path, "simulated", case), callbacks=[])
    settings = remotely(config(tmp_path, "remote", case, backend), tmp_path, "remote", remote=3)
    with devices(settings, samples_of(config(tmp_path, "simulated", case))) as ended:
        result = rs.fit(settings, callbacks=[])
    assert ended == ["the run is over"] * 3
    assert model_bytes(result.path) == model_bytes(whole.path)
    own = {"phones_scored_val", "phones_scored_test"}
    if case == "splitfed_v3":  # each phone on its own samples
        assert [row["phones_scored_val"] for row in rows(result.path)] == [5, 5]
    own |= {f"device_{name}" for name in ("frames", "bytes_up", "bytes_down", "bytes_headers")}
    kept = [
        [{k: v for k, v in timeless(r).items() if k not in own} for r in rows(p)] for p in (result.path, whole.path)
    ]
    assert kept[0] == kept[1]


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("case", "remote"), [("splitfed_v3", [0, 1, 2, 4]), ("splitfed_v3", [1, 3]), ("splitfed_v1", [2, 3])]
)
def test_devices_are_scored_on_their_own_samples_as_simulated_phones_are_to_the_bit(
    tmp_path: Path, case: str, remote: list[int]
) -> None:
    """Of phones with uneven shares, whose held-out samples are asked for in several parts."""
    _check_own_scores(tmp_path, case, remote)


@pytest.mark.parametrize("case", slow("splitfed_v1", "splitfed_v3", "parallel"))
def test_on_ray_devices_are_scored_on_their_own_samples_to_the_bit(
    tmp_path: Path, case: str, ray_session: object
) -> None:
    _check_own_scores(tmp_path, case, [1, 3], "ray")


def _check_own_scores(tmp_path: Path, case: str, remote: list[int], backend: str = "inprocess") -> None:
    uneven = {"eval_batch_size": 64, "partition": {"name": "dirichlet", "alpha": 1.0}}
    simulated = config(tmp_path, "simulated", case).with_values(
        model={"name": "mlp"}, phones={"held_out": 0.3, "local_steps": 1}, data=uneven, run={"test_every": 1}
    )
    whole = rs.fit(simulated, callbacks=[])
    settings = remotely(simulated, tmp_path, "remote", remote=remote).with_values(cluster={"backend": backend})
    with devices(settings, samples_of(simulated)):
        result = rs.fit(settings, callbacks=[])
    assert model_bytes(result.path) == model_bytes(whole.path)
    scores = ("val_loss", "val_accuracy", "test_loss", "test_accuracy", "phone_accuracy_mean", "phone_accuracy_worst")
    for found, wanted in zip(rows(result.path), rows(whole.path), strict=True):
        assert {name: found.get(name) for name in scores} == {name: wanted.get(name) for name in scores}
        assert found["phones_scored_test"] == 5
        assert found.get("phones_scored_val") == (5 if case == "splitfed_v3" else None)
    own = [pyarrow.parquet.read_table(f"{each.path}/phones.parquet").to_pylist() for each in (result, whole)]
    tested = [[(row["phone"], row["test_loss"], row["test_accuracy"]) for row in table] for table in own]
    assert tested[0] == tested[1] and len(tested[0]) == 10


@pytest.mark.thorough
def test_a_run_with_devices_is_resumed_to_the_same_bytes(tmp_path: Path) -> None:
    whole = rs.fit(config(tmp_path, "simulated", "sequential"), callbacks=[])
    samples = samples_of(config(tmp_path, "simulated", "sequential"))
    settings = remotely(config(tmp_path, "remote", "sequential"), tmp_path, "remote", remote=[0, 4])
    for rounds, resume in ((1, "never"), (2, "auto")):
        now = settings.with_values(run={"rounds": rounds, "resume": resume})
        with devices(now, samples):
            result = rs.fit(now, callbacks=[])
    assert model_bytes(result.path) == model_bytes(whole.path)


@pytest.mark.thorough
def test_a_device_in_a_process_of_its_own_loads_neither_ray_nor_torchvision(tmp_path: Path) -> None:
    """What a Raspberry Pi needs: torch, numpy, a WebSocket."""
    code = (
        "import sys, ray_split.experiments.remote.device; "
        "print([name for name in ('ray', 'torchvision', 'timm', 'transformers', 'pandas') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert found.stdout.strip() == "[]"


def test_bytes_of_frames_are_those_of_the_rows_to_the_byte(tmp_path: Path) -> None:
    """Where all phones are devices: what crosses the server's border, and the weights of a round, and headers."""
    simulated = config(tmp_path, "simulated", "splitfed_v1").with_values(phones={"count": 3})
    settings = remotely(simulated, tmp_path, "remote", remote=3)
    with devices(settings, samples_of(simulated)):
        result = rs.fit(settings, callbacks=[])
    ends = [name for name in load_file(Path(result.path) / "model.safetensors") if name.startswith(("block1", "head"))]
    weights = 3 * sum(load_file(Path(result.path) / "model.safetensors")[name].nbytes for name in ends)
    for row in rows(result.path):
        assert row["device_bytes_up"] == row["bytes_up"] + weights
        assert row["device_bytes_down"] == row["bytes_down"] + weights
        questions = 3 * (2 + 3 * 3)
        told = 2 * 3  # that it waits, and that it trains; before the first round each joins, sooner or later
        assert row["device_frames"] - 2 * questions in ([9, 10, 11, 12] if not row["round"] else [told])
        assert 0 < row["device_bytes_headers"] < 400 * row["device_frames"] + 30_000
