"""All segments on one card in one process: what crosses is handed over as it is, to the bytes of what is pickled.

The card is played: by the decision that all are on one device, which is the CPU. tests/gpu has the real one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import ray_split as rs
from actors import local_pickle
from actors.resources import gpu
from tests.tiers import thorough

CPU = torch.device("cpu")
Handed = list[tuple[torch.Tensor, torch.Tensor]]
"""What was handed over, and as it was at that time."""


def turned(num_classes: int) -> nn.Module:
    """B and C begin in place; what crosses is turned in memory."""

    class Turned(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.transpose(1, 2)

    front = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Unflatten(1, (4, 8)), Turned())
    middle = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 6), nn.Dropout(0.2))
    return nn.Sequential(front, middle, nn.Sequential(nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(48, num_classes)))


def statistics(num_classes: int) -> nn.Module:
    """B mixes a batch's samples."""
    middle = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
    return nn.Sequential(nn.Conv2d(1, 4, 3), middle, nn.Sequential(nn.Flatten(), nn.Linear(144, num_classes)))


@pytest.fixture
def one_card(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Handed]:
    """Plays the card from now on; returns what is handed over."""

    def play() -> Handed:
        handed: Handed = []
        dump = local_pickle.dump

        def counted(value: Any, card: torch.device | None) -> Any:
            dumped = dump(value, card)
            tensors = dumped.tensors if isinstance(dumped, local_pickle.Pickled) else []
            handed.extend((tensor, tensor.clone()) for tensor in tensors)
            return dumped

        monkeypatch.setattr(gpu, "common_card", lambda settings: CPU)
        monkeypatch.setattr("actors.inprocess.dump", counted)
        return handed

    return play


def fit(path: Path, name: str, schedule: str, **sections: Any) -> rs.Result:
    """Two rounds of five phones with batches of unlike sizes."""
    settings = rs.Config(
        model={"name": turned, "cuts": ["0", "1"], **sections.pop("model", {})},
        data={"partition": {"name": "dirichlet", "alpha": 1.0}, **sections.pop("data", {})},
        schedule={"name": schedule, **sections.pop("schedule", {})},
        optimizer={"lr": 0.05, "momentum": 0.9, **sections.pop("optimizer", {})},
        cluster={"backend": "inprocess", "client_actors": 2, "cpus_per_client": 1},
        server={"num_cpus": 1, **sections.pop("server", {})},
        phones={"count": 5, "cohort": 3, "local_steps": 2, **sections.pop("phones", {})},
        run={"storage_path": str(path), "name": name, "rounds": 2},
        **sections,
    )
    return rs.fit(settings, callbacks=[])


def told_of(result: rs.Result) -> tuple[bytes, list[dict[str, Any]]]:
    """The model's bytes, and what the rounds' rows say but for times."""
    lines = (Path(result.path) / "metrics.jsonl").read_text().splitlines()
    rows = [{k: v for k, v in json.loads(line).items() if "seconds" not in k} for line in lines]
    return (Path(result.path) / "model.safetensors").read_bytes(), rows


IN_TURN = {"phones": {"cohort": "auto"}}
LOOPED = {"phones": {"stacked": []}}
MIXES = {"model": {"name": statistics, "cuts": ["0", "1"]}}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "sequential": ("sequential", IN_TURN),
    "splitfed_v1": ("splitfed_v1", {}),
    "parallel": ("parallel", {}),
}
FURTHER: dict[str, tuple[str, dict[str, Any]]] = {
    "splitfed_v2": ("splitfed_v2", IN_TURN),
    "splitfed_v3": ("splitfed_v3", LOOPED),
    "a joint batch": ("parallel", MIXES),
    "fedavg": ("fedavg", {}),
    "unsplit": ("unsplit", {"phones": {"cohort": "auto"}}),
    "looped": ("splitfed_v1", LOOPED),
    "in chunks": ("splitfed_v1", {"server": {"chunk": 2}}),
    "looped in chunks": ("splitfed_v1", {**LOOPED, "server": {"chunk": 2}}),
    "shared in chunks": ("parallel", {"server": {"chunk": 2}}),
    "single split": ("splitfed_v1", {"model": {"cuts": ["0"]}}),
    "single split, a joint batch": ("parallel", {"model": {"name": statistics, "cuts": ["0"]}}),
    "bfloat16": ("splitfed_v1", {"server": {"dtype": "bfloat16"}, "phones": {"dtype": "bfloat16"}}),
    "bfloat16, shared": ("parallel", {"server": {"dtype": "bfloat16"}}),
    "channels last": ("sequential", {**MIXES, **IN_TURN, "server": {"channels_last": True}}),
    "clipped by all": ("splitfed_v1", {"optimizer": {"clip_norm": 0.5, "clip": "model"}}),
    "accumulated": ("splitfed_v1", {"data": {"accumulate": 2, "batch_size": 8}}),
    "two servers": ("splitfed_v1", {"server": {"replicas": 2}}),
    "MOON": ("fedavg", {"algorithm": {"name": "moon"}, "model": {"name": "mlp", "cuts": None}}),
    "auxiliary labels": ("splitfed_v1", {"model": {"backprop": "auxiliary_labels"}, **LOOPED}),
}


@pytest.mark.parametrize("case", [*CASES, *thorough(*FURTHER)])
@pytest.mark.few(1, thorough=4)
def test_what_is_handed_over_on_one_card_comes_to_the_bytes_of_what_is_copied(
    tmp_path: Path, case: str, one_card: Callable[[], Handed]
) -> None:
    schedule, sections = {**CASES, **FURTHER}[case]
    copied = fit(tmp_path, "copied", schedule, **sections)
    handed = one_card()
    stayed = fit(tmp_path, "stayed", schedule, **sections)
    assert told_of(copied) == told_of(stayed)
    assert handed and all(torch.equal(now, before) and not now.requires_grad for now, before in handed)
