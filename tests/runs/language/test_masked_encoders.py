"""Encoders of transformers on sequences of different lengths: the unsplit model's training, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional

import ray_split as rs
from tests.language_nets import ENCODERS, MASKED_ENCODERS
from tests.tiers import mostly_thorough

pytest.importorskip("transformers", reason="transformers isn't installed")
NETS = {**MASKED_ENCODERS, **ENCODERS}
OPTIMIZERS = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}


@pytest.mark.few(1, thorough=3)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("kind", mostly_thorough(NETS, "bert"))
def test_three_steps_are_those_of_the_model_that_was_never_cut(tmp_path: Path, kind: str, optimizer: str) -> None:
    name = "hf-config:" + json.dumps({"model_type": kind, **NETS[kind][1]})
    settings = rs.Config(
        model={"name": name, "kwargs": {"head": "sequence_classification"}},
        data={"name": "tests.sequence_nets:words", "batch_size": 8, "val_fraction": 0},
        phones={"count": 1, "local_steps": 3}, optimizer={"name": optimizer, "lr": 0.01, "weight_decay": 0.1},
        cluster={"backend": "inprocess"}, run={"storage_path": str(tmp_path), "name": "run", "rounds": 1},
    )  # fmt: skip
    result = rs.fit(settings, callbacks=[])
    settings = rs.Config.from_yaml(Path(result.path) / "config.yaml")
    threads, batches = torch.get_num_threads(), rs.Batches(settings, rs.load_data(settings.data))
    torch.set_num_threads(1)
    try:
        model = rs.models.build(settings.model, settings.run.seed).train()
        stepping = OPTIMIZERS[optimizer](model.parameters(), lr=0.01, weight_decay=0.1)
        draws = list(rs.stream(settings))
        for draw in draws:
            (tokens, mask), labels = batches.of(draw)
            stepping.zero_grad()
            outputs = model(torch.from_numpy(tokens), attention_mask=torch.from_numpy(mask))
            functional.cross_entropy(outputs.logits, torch.from_numpy(labels)).backward()
            stepping.step()
    finally:
        torch.set_num_threads(threads)
    found = rs.load_model(result.path, trust=True).state_dict()
    assert len(draws) == 3 and not mask.all()
    assert found.keys() == model.state_dict().keys()
    assert all(torch.equal(found[key], value) for key, value in model.state_dict().items())
