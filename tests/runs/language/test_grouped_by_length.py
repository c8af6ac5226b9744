"""Runs on batches of samples that are about as long: the unsplit model's on the same batches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

import ray_split as rs
from tests import reference
from tests.language_nets import GROUPED
from tests.reference import assert_same_weights
from tests.tiers import thorough

transformers = pytest.importorskip("transformers", reason="transformers isn't installed")

LINES, LENGTH = 60, 40


def test_in_turn_it_is_the_untouched_model_on_the_same_batches_bit_for_bit(tmp_path: Path) -> None:
    nets = "tests.sequence_nets"
    settings = rs.Config(
        model={"name": f"{nets}:Tagger", "cuts": "words,dropout"}, optimizer={"lr": 0.05, "momentum": 0.9},
        data={"name": f"{nets}:words", "batch_size": 4, "group_by_length": True}, phones={"count": 2},
        cluster={"backend": "inprocess"}, run={"storage_path": str(tmp_path), "name": "run", "rounds": 2},
    )  # fmt: skip
    result = rs.fit(settings, callbacks=[])
    assert_same_weights(reference.sequential(settings, b=("middle",)), result.path)


def texts(folder: Path) -> rs.Config:
    """Lines of several lengths, a sample each, for a small llama."""
    draw = np.random.default_rng(0)
    lines = ["".join(draw.choice(list("abcdefg "), size)) + "!" for size in draw.geometric(0.1, LINES)]
    (folder / "lines.jsonl").write_text("\n".join(json.dumps({"text": line}) for line in lines))
    data = {"name": "text", "path": str(folder / "lines.jsonl"), "batch_size": 4, "group_by_length": True}
    return rs.Config(
        model={"name": "hf-config:" + json.dumps({"model_type": "llama", **GROUPED, "vocab_size": 256})},
        data={**data, "kwargs": {"tokenizer": "bytes", "max_length": LENGTH, "pack": False}},
        optimizer={"name": "adamw", "lr": 0.01, "weight_decay": 0.0}, phones={"count": 1},
        cluster={"backend": "inprocess"}, run={"storage_path": str(folder), "name": "run", "rounds": 1},
    )  # fmt: skip


def plain_batches(settings: rs.Config) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Tokens, masks and labels of a run's batches, each cut from the padded samples."""
    samples, found = rs.load_data(settings.with_values(data={"group_by_length": False}).data).train, []
    for draw in rs.stream(settings):
        labels = samples.labels[draw.indices]
        ends = np.array([np.flatnonzero(row != -100)[-1] + 1 for row in labels])
        mask = np.arange(ends.max()) < ends[:, None]
        tokens = np.where(mask, np.asarray(samples.inputs)[draw.indices][:, : ends.max()], 0)
        found.append((torch.from_numpy(tokens), torch.from_numpy(mask), torch.from_numpy(labels[:, : ends.max()])))
    return found


@pytest.mark.parametrize("cuts", [None, *thorough(["model.layers.1"])])
def test_of_text_a_batch_is_as_long_as_its_longest_and_training_is_the_unsplit_models(
    tmp_path: Path, cuts: Any
) -> None:
    result = rs.fit(texts(tmp_path).with_values(model={"cuts": cuts}), callbacks=[])
    settings = rs.Config.from_yaml(Path(result.path) / "config.yaml")
    batches = plain_batches(settings)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        model = rs.models.build(settings.model, settings.run.seed).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.0)
        for tokens, mask, labels in batches:
            optimizer.zero_grad()
            logits = model(tokens, attention_mask=mask).logits
            functional.cross_entropy(logits.flatten(0, 1), labels.flatten()).backward()
            optimizer.step()
    finally:
        torch.set_num_threads(threads)
    trained = rs.load_model(result.path, trust=True)
    found = trained.state_dict()
    assert all(torch.equal(found[key], value) for key, value in model.state_dict().items())
    assert len({tokens.shape[1] for tokens, _, _ in batches}) > 3
    assert max(tokens.shape[1] for tokens, _, _ in batches) <= LENGTH
    test = rs.load_data(settings.with_values(data={"group_by_length": False}).data).test
    with torch.no_grad():
        logits = trained(torch.from_numpy(np.asarray(test.inputs))).logits
    loss = functional.cross_entropy(logits.flatten(0, 1), torch.from_numpy(test.labels).flatten())
    assert result.metrics["test_loss"] == pytest.approx(float(loss), rel=1e-5)


@pytest.mark.thorough
def test_a_run_of_text_that_goes_on_has_the_bytes_of_one_that_never_stopped(tmp_path: Path) -> None:
    def rounds(name: str, count: int, **run: Any) -> bytes:
        settings = texts(tmp_path).with_values(phones={"count": 2}, schedule={"name": "splitfed_v1"})
        settings = settings.with_values(run={"name": name, "rounds": count, **run}, checkpoint={"every": 1})
        return (Path(rs.fit(settings, callbacks=[]).path) / "model.safetensors").read_bytes()

    rounds("two", 1)
    assert rounds("two", 2, resume="auto") == rounds("one", 2)
