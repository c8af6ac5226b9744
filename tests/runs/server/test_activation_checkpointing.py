"""server.activation_checkpointing: blocks of B are computed once more in backward, to the same bits, in less memory."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

import ray_split as rs
from ray_split.cutting.cut import cut
from ray_split.segments.device.checkpointing import blocks_of
from ray_split.segments.device.computing import Computing
from ray_split.segments.segment import Segment
from tests.language_nets import DECODERS, decoder
from tests.tiers import mostly_thorough

HERE = "tests.runs.server.test_activation_checkpointing"
WIDTH = 6


class Blocked(nn.Module):
    """Blocks in a list, each with all that a second forward may get wrong: draws, and statistics."""

    def __init__(self, num_classes: int, depth: int = 5, writes: bool = False) -> None:
        super().__init__()
        made = [[nn.Linear(WIDTH, 9), nn.BatchNorm1d(9), nn.Tanh(), nn.Dropout(0.3)] for _ in range(depth)]
        self.blocks = nn.ModuleList(nn.Sequential(*layers, Last(writes)) for layers in made)
        self.head = nn.Linear(WIDTH, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class Last(nn.Module):
    """`writes`: counts in a buffer, and computes with it."""

    def __init__(self, writes: bool) -> None:
        super().__init__()
        self.layer, self.writes = nn.Linear(9, WIDTH), writes
        self.register_buffer("seen", torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.writes:
            self.seen += 1
        return self.layer(x) * (1 + 0.1 / self.seen)


class Spoils(nn.Module):
    """A block that changes what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x.mul_(2))


def spoiled(num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), Spoils(), nn.Tanh(), nn.Linear(WIDTH, num_classes))


def flat(num_classes: int) -> nn.Module:
    return nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(3)), nn.Linear(WIDTH, num_classes))


def points() -> tuple[np.ndarray, np.ndarray]:
    found = np.random.default_rng(5).normal(size=(48, WIDTH)).astype(np.float32)
    return found, found.argmax(1)


def settings_of(folder: Path, **sections: dict[str, Any]) -> rs.Config:
    usual: dict[str, dict[str, Any]] = {
        "model": {"name": f"{HERE}:Blocked", "cuts": ["blocks.0", "blocks.3"]},
        "data": {"name": f"{HERE}:points", "batch_size": 8, "val_fraction": 0},
        "phones": {"count": 3, "local_steps": 2},
        "optimizer": {"name": "adamw", "lr": 0.05},
        "server": {"activation_checkpointing": True},
        "cluster": {"backend": "inprocess"},
        "run": {"storage_path": str(folder), "name": "run", "rounds": 2},
    }
    return rs.Config(**{key: {**usual.get(key, {}), **sections.get(key, {})} for key in {**usual, **sections}})


def weights(settings: rs.Config) -> bytes:
    return (Path(rs.fit(settings, callbacks=[]).path) / "model.safetensors").read_bytes()


SCHEDULES = ["sequential", "splitfed_v1", "splitfed_v2", "splitfed_v3", "parallel"]
MODELS = {"drawing": {}, "counting": {"kwargs": {"writes": True}}, "one cut": {"cuts": ["blocks.0"]}}


@pytest.mark.few(2)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_weights_are_those_without_it_bit_for_bit(tmp_path: Path, schedule: str, model: str) -> None:
    sections = {"model": MODELS[model], "schedule": {"name": schedule}, "phones": {"count": 3, "stacked": []}}
    if schedule in ("sequential", "splitfed_v2"):
        sections["phones"] = {"count": 3}
    without = settings_of(tmp_path / "without", **sections, server={"activation_checkpointing": False})
    assert weights(settings_of(tmp_path / "with", **sections)) == weights(without)


@pytest.mark.parametrize("family", mostly_thorough(["llama", "gpt2"], "llama"))
def test_a_graph_of_ten_blocks_keeps_a_tensor_for_each(family: str) -> None:
    torch.manual_seed(0)
    sizes = {"n_layer": 12} if family == "gpt2" else {"num_hidden_layers": 12}
    model = decoder(family, **sizes)
    blocks = DECODERS[family][2]
    middle = cut(model, [f"{blocks}.0", f"{blocks}.10"]).b
    assert len(blocks_of(middle)) == 10
    arrived = np.random.default_rng(0).normal(size=(4, 9, 32)).astype(np.float32)
    plain, checkpointed = (_kept(middle, Computing(checkpointing=each), arrived) for each in (False, True))
    assert checkpointed <= 11 * arrived.nbytes
    assert plain > 10 * checkpointed


def _kept(module: nn.Module, computing: Computing, arrived: np.ndarray) -> int:
    """Bytes that a pending graph keeps beside weights: saved tensors, and what blocks are given."""
    segment = Segment(copy.deepcopy(module), rs.config.Optimizer(), computing=computing)
    weights = {weight.data_ptr() for weight in segment.module.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in weights:
            kept[tensor.data_ptr()] = tensor
        return tensor

    hooks = [
        block.register_forward_pre_hook(lambda _, given: void(keep(given[0]))) for block in blocks_of(segment.module)
    ]
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        segment.forward(arrived, seed=0)
    for hook in hooks:
        hook.remove()
    return sum(tensor.numel() * tensor.itemsize for tensor in kept.values())


def void(_: Any) -> None:
    """Nothing: a hook that returns something replaces what a block is given."""


@pytest.mark.thorough
def test_a_run_may_go_on_with_or_without_it(tmp_path: Path) -> None:
    rs.fit(settings_of(tmp_path / "part", run={"rounds": 1}), callbacks=[])
    told = {"run": {"resume": "auto"}, "server": {"activation_checkpointing": False}}
    assert weights(settings_of(tmp_path / "part", **told)) == weights(settings_of(tmp_path / "whole"))


FIELD = "server.activation_checkpointing"
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"server": {"compile": True, "activation_checkpointing": True}}, f"{FIELD}: can't be used with server.compile"),
    (
        {"model": {"name": f"{HERE}:flat", "cuts": ["0", "2"]}},
        f"{FIELD}: is of no use, because the server's part has no blocks",
    ),
    (
        {"model": {"name": f"{HERE}:spoiled", "cuts": ["0", "2"]}},
        f"{FIELD}: can't be true, because a block of the server's part can't be computed once more",
    ),
    (
        {"schedule": {"name": "splitfed_v1"}, "phones": {"count": 3, "stacked": ["b"], "cohort": 3}},
        "phones.stacked: can't contain b, because server.activation_checkpointing is for copies one after the other",
    ),
]


@pytest.mark.parametrize(("sections", "said"), REFUSED)
def test_where_it_cant_be_it_is_refused(tmp_path: Path, sections: dict[str, Any], said: str) -> None:
    with pytest.raises(rs.SettingsError) as caught:
        rs.fit(settings_of(tmp_path, **sections), callbacks=[])
    assert str(caught.value).startswith(said)


@pytest.mark.thorough
def test_of_vmap_it_chooses_the_loop(tmp_path: Path) -> None:
    sections = {"schedule": {"name": "splitfed_v1"}, "phones": {"count": 3, "cohort": 3}}
    result = rs.fit(settings_of(tmp_path, **sections), callbacks=[])
    assert "b" not in (rs.Config.from_yaml(Path(result.path) / "config.yaml").phones.stacked or [])
