"""An exponential moving average of weights: torch's own, told of the untouched model after each round."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn, optim
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn

import ray_split as rs
from ray_split.messages import bits
from ray_split.segments.optimization.weights_ema import WeightsEma
from tests import reference
from tests.runs.equality.test_schedules import fit, model_bytes
from tests.runs.optimizing.test_optimizers import MODELS
from tests.tiers import mostly_thorough, thorough

SGD = {"lr": 0.05}
EMA = {**SGD, "ema_decay": 0.7}
RAW = "model_without_ema.safetensors"


def averaged(settings: rs.Config) -> tuple[nn.Module, nn.Module]:
    """The untouched model by plain SGD, and torch's average of it after each round."""
    run = reference.Training(settings, b=MODELS[settings.model.name][1])
    optimizer = optim.SGD(run.model.parameters(), lr=0.05)
    average = AveragedModel(run.model, avg_fn=get_ema_avg_fn(0.7), use_buffers=True)
    for draws in run.rounds.values():
        for draw in draws:
            optimizer.zero_grad()
            run.loss(run.model, draw).backward()
            optimizer.step()
        average.update_parameters(run.model)
    return run.model, average.module


@pytest.mark.few(thorough=3)
@pytest.mark.parametrize("schedule", ["sequential", *thorough("splitfed_v1", "splitfed_v2", "parallel", "fedavg")])
@pytest.mark.parametrize("model", mostly_thorough(MODELS, "tests.nets:with_batchnorm"))
def test_it_is_torchs_bit_for_bit_and_what_is_evaluated_and_written(tmp_path: Path, model: str, schedule: str) -> None:
    phones = {"count": 3 if schedule == "sequential" else 1, "local_steps": 2}
    kind = {"name": model, "cuts": "2,8" if "batchnorm" in model else None}
    told: dict[str, Any] = {"phones": phones, "model": kind, "run": {"rounds": 3, "test_every": 1}}
    settings, result = fit(tmp_path, schedule, EMA, **told)
    last, average = averaged(settings)
    found = rs.load_model(result.path, trust=True)
    for key, expected in average.state_dict().items():
        if expected.is_floating_point():
            assert torch.equal(found.state_dict()[key], expected), key
        else:
            assert torch.equal(found.state_dict()[key], last.state_dict()[key]), key
    raw = rs.load_model(result.path, trust=True, ema=False).state_dict()
    assert all(torch.equal(raw[key], expected) for key, expected in last.state_dict().items())
    data = rs.load_data(settings.data)
    inputs, labels = map(torch.from_numpy, data.batch("test", slice(0, None)))
    loss = nn.functional.cross_entropy(average.eval()(inputs), labels)
    assert result.metrics["test_loss"] == pytest.approx(loss.item(), abs=1e-6)
    _, without = fit(tmp_path, schedule, SGD, **told)
    assert (Path(result.path) / RAW).read_bytes() == model_bytes(without)
    columns = ["train_loss", "bytes_up", "bytes_down", "bytes_weights"]
    assert result.metrics_dataframe[columns].equals(without.metrics_dataframe[columns])
    assert model_bytes(without) != model_bytes(result)
    again = rs.load_model(without.path, trust=True, ema=False).state_dict()  # there is but one
    assert all(torch.equal(raw[key], expected) for key, expected in again.items())


@pytest.mark.thorough
def test_resumed_in_the_middle_both_are_the_same_bytes(tmp_path: Path) -> None:
    told: dict[str, Any] = {"phones": {"count": 3, "cohort": 2}, "model": {"name": "mlp"}}
    _, whole = fit(tmp_path, "splitfed_v1", EMA, **told, run={"rounds": 3})
    fit(tmp_path, "splitfed_v1", EMA, **told, run={"rounds": 2, "name": "part"})
    _, part = fit(tmp_path, "splitfed_v1", EMA, **told, run={"rounds": 3, "name": "part", "resume": "auto"})
    for name in ("model.safetensors", RAW, "checkpoints/round_000003/ema_b.safetensors"):
        assert (Path(part.path) / name).read_bytes() == (Path(whole.path) / name).read_bytes()
    assert part.metrics_dataframe["val_loss"].equals(whole.metrics_dataframe["val_loss"])


@pytest.mark.slow
def test_on_ray_it_is_the_same_bytes(tmp_path: Path, ray_session: object) -> None:
    here, there = (
        fit(tmp_path, "splitfed_v2", EMA, phones={"count": 3}, cluster={"backend": backend})[1]
        for backend in ("inprocess", "ray")
    )
    assert model_bytes(there) == model_bytes(here)
    columns = ["val_loss", "train_loss"]
    assert there.metrics_dataframe[columns].equals(here.metrics_dataframe[columns])


@pytest.mark.thorough
def test_what_is_not_trained_stays_to_the_last_bit(tmp_path: Path) -> None:
    settings, result = fit(tmp_path, "splitfed_v1", EMA, phones={"count": 2}, model={"name": "mlp", "freeze": ["a"]})
    first, found = reference.Training(settings, b=("layers.1",)).model.state_dict(), rs.load_model(result.path)
    assert torch.equal(found.state_dict()["layers.0.weight"], first["layers.0.weight"])
    assert not torch.equal(found.state_dict()["layers.1.weight"], first["layers.1.weight"])


def test_with_personal_models_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        rs.SettingsError,
        match=(r"optimizer\.ema_decay: can't be used with " r"schedule\.name splitfed_v3, where every phone keeps"),
    ):
        fit(tmp_path, "splitfed_v3", EMA, phones={"held_out": 0.2})


def test_weights_of_half_precision_are_averaged_in_single_precision() -> None:
    one, step = (torch.tensor([value], dtype=torch.bfloat16).view(torch.int16).numpy() for value in (1.0, 1.0078125))
    ema, like = WeightsEma(0.9), {"a": {"weights/x": one.view(bits.BFLOAT16)}}
    ema.follow(like)
    for _ in range(10):
        ema.follow({"a": {"weights/x": step.view(bits.BFLOAT16), "optimizer/x/step": np.zeros(1)}})
    assert ema.states(like)["a"].keys() == {"weights/x"}
    assert (
        ema.states(like)["a"]["weights/x"].view(np.int16).tolist() == step.tolist()
    )  # rounded each time it never moves
