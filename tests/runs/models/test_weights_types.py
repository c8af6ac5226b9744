"""Models whose weights are of another type than float32: kept, handed on, averaged and written down as that."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import ray_split as rs
from ray_split.messages import bits
from ray_split.messages.message import as_bits
from ray_split.results import checkpoint
from tests.reference import assert_same_weights, fedavg, unsplit

TYPES = ["bfloat16", "float16", "float64", "complex64"]


class Typed(nn.Module):
    """A layer of such weights, with a buffer that moves."""

    def __init__(self, inputs: int, outputs: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, dtype=dtype) / inputs**0.5)
        self.register_buffer("seen", torch.zeros(outputs, dtype=dtype))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = x.to(self.weight.dtype).flatten(1) @ self.weight.T
        if self.training:
            self.seen.mul_(0.5).add_(h.detach().mean(0))
        return torch.tanh(h)


class Head(nn.Linear):
    def forward(self, h: torch.Tensor) -> torch.Tensor:
        return super().forward((h.real if h.is_complex() else h).float())


class Net(nn.Module):
    def __init__(self, classes: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.block1, self.block2 = Typed(64, 8, dtype), Typed(8, 8, dtype)
        self.hidden, self.head = nn.Identity(), Head(8, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.block2(self.block1(x)))


def typed(num_classes: int, dtype: str) -> nn.Module:
    return Net(num_classes, getattr(torch, dtype))


def settings_of(folder: Path, dtype: str, schedule: str, optimizer: dict | None = None, **phones: object) -> rs.Config:
    return rs.Config(
        model={
            "name": "tests.runs.models.test_weights_types:typed",
            "kwargs": {"dtype": dtype},
            "cuts": ["block1", "block2"],
        },
        data={"name": "synthetic", "kwargs": {"samples": 90, "shape": [1, 8, 8], "num_classes": 4}, "batch_size": 8},
        phones={"count": 3, **phones},
        optimizer=optimizer or {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.01},
        schedule={"name": schedule},
        run={"storage_path": str(folder), "name": "x", "rounds": 2, "eval_every": 2},
        cluster={"backend": "inprocess"},
    )


def assert_types(path: str, dtype: str) -> None:
    written = load_file(f"{path}/model.safetensors")
    assert {written[f"block{i}.{name}"].dtype for i in (1, 2) for name in ("weight", "seen")} == {getattr(torch, dtype)}


# Not Adam with float16: its epsilon is 0 there, and the untouched model is not a number after a step.
@pytest.mark.few(3)
@pytest.mark.parametrize(
    ("dtype", "optimizer"), [(t, o) for t in TYPES for o in ("sgd", "adam") if (t, o) != ("float16", "adam")]
)
def test_handed_on_and_resumed_they_are_unsplit_bit_for_bit(tmp_path: Path, dtype: str, optimizer: str) -> None:
    momentum = {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}
    settings = settings_of(tmp_path, dtype, "sequential", momentum if optimizer == "sgd" else {"name": "adam"})
    rs.fit(settings.with_values(run={"rounds": 1}), callbacks=[])
    result = rs.fit(settings.with_values(run={"resume": "auto"}), callbacks=[])
    assert_same_weights(unsplit(settings), result.path)
    assert_types(result.path, dtype)
    _, states = checkpoint.load(checkpoint.complete(Path(result.path) / "checkpoints")[-1])
    slots = [array.dtype for key, array in states["b"].items() if key.startswith("optimizer/") and "step" not in key]
    assert set(slots) == {as_bits(torch.zeros(1, dtype=getattr(torch, dtype))).dtype}


@pytest.mark.parametrize("stacked", [[], ["a", "b", "c"]], ids=["looped", "stacked"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
@pytest.mark.few(6)
def test_averaged_they_are_the_untouched_models(tmp_path: Path, dtype: str, stacked: list[str]) -> None:
    settings = settings_of(tmp_path, dtype, "splitfed_v1", cohort=3, stacked=stacked)
    result = rs.fit(settings, callbacks=[])
    expected, found = fedavg(settings).state_dict(), rs.load_model(result.path, trust=True).state_dict()
    bound = 0.05 if dtype in ("bfloat16", "float16") else 1e-5
    for key in expected:
        assert found[key].dtype == expected[key].dtype
        assert (found[key] - expected[key]).abs().max() <= bound * (1 + expected[key].abs().max())
    assert_types(result.path, dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_mean_of_a_thousand_is_within_rounding(dtype: torch.dtype) -> None:
    from ray_split.messages.state import with_fixed
    from ray_split.segments.weighted_mean import added, scaled

    weights = [torch.randn(50, generator=torch.manual_seed(seed)).to(dtype) for seed in range(1000)]
    total = None
    for weight in weights:
        total = added(total, scaled({"weights/x": as_bits(weight)}, 1 / 1000))
    start = {"weights/x": as_bits(weights[0])}
    mean = with_fixed(total, start)["weights/x"]
    assert mean.dtype == start["weights/x"].dtype
    exact = torch.stack(weights).double().mean(0)
    assert np.allclose(bits.wide(mean), exact.numpy(), rtol=torch.finfo(dtype).eps, atol=1e-6)


def test_bits_are_rounded_as_torch_does() -> None:
    values = torch.randn(10000, generator=torch.manual_seed(0)) * 10.0 ** torch.randint(-44, 38, (10000,))
    values = torch.cat([values, torch.tensor([0.0, -0.0, float("inf"), float("-inf"), 3.39e38, 1e-45])])
    found = bits.narrow(values.numpy(), bits.BFLOAT16)
    assert found.tobytes() == as_bits(values.bfloat16()).tobytes()
    assert bits.wide(found).tobytes() == values.bfloat16().float().numpy().tobytes()
    assert np.isnan(bits.wide(bits.narrow(np.array([np.nan, -np.nan], np.float32), bits.BFLOAT16))).all()


def test_weights_that_no_checkpoint_can_hold_are_refused_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(rs.SettingsError, match=r"weights of complex128 \(block1.weight"):
        rs.fit(settings_of(tmp_path, "complex128", "sequential"), callbacks=[])
