"""Language models in the planner: what it says of bytes and memory against runs and torch, and models of any size."""

from __future__ import annotations

import gc
import json
import resource
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

import ray_split as rs
from ray_split import config
from ray_split.costs.phone_memory import phone_memory
from ray_split.costs.planner import Plan, plan
from ray_split.costs.planner_hardware import Profile
from ray_split.costs.position_costs import PositionCosts, scan_of, weightless
from ray_split.cutting.cut import cut
from ray_split.errors import SettingsError
from ray_split.experiments.plan.main import main
from ray_split.messages.message import send
from ray_split.models import registry
from ray_split.segments.segment import Segment, call
from tests.language_nets import DECODERS, ENCODERS
from tests.tiers import slow, thorough

pytest.importorskip("transformers", reason="transformers isn't installed")
pytest.importorskip("peft", reason="peft isn't installed")

SGD, ADAMW = config.Optimizer(), config.Optimizer(name="adamw")
LARGE = {
    "model_type": "llama", "hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 32,
    "num_key_value_heads": 8, "intermediate_size": 8192, "vocab_size": 128_256, "tie_word_embeddings": True,
}  # fmt: skip


def named(family: str, **more: Any) -> str:
    return "hf-config:" + json.dumps({"model_type": family, **DECODERS[family][1], **more})


def scanned_of(name: str, lora: dict[str, Any], length: int = 9, batch: int = 1) -> PositionCosts:
    return scan_of(config.Model(name=name, num_classes=None, lora=lora), (length,), batch, torch.int64)


def row_of(found: Plan, cuts: list[str]) -> int:
    return next(i for i in range(len(found.fits)) if found.cuts(i) == cuts)


@pytest.mark.thorough
def test_debertas_table_of_positions_crosses_beside_the_hidden_states() -> None:
    told = {"model_type": "deberta-v2", **ENCODERS["deberta-v2"][1], "num_labels": 3}
    model = config.Model(name=f"hf-config:{json.dumps(told)}", kwargs={"head": "sequence_classification"})
    found = scan_of(model, (9,), 4, torch.int64)
    shapes = {position.names[0]: found.shapes(i) for i, position in enumerate(found.positions)}
    blocks = [f"deberta.encoder.layer.{number}" for number in range(4)]
    hidden, table = (4, 9, 32), (12, 32)
    between = dict.fromkeys(blocks[:3], (hidden, table))
    assert shapes == {"deberta.embeddings": (hidden,), **between, blocks[3]: (hidden,)}


# Bytes.

LLAMA = ["model.layers.0", "model.layers.2"]
RUNS = [
    ("llama", LLAMA, {"r": 4}, "splitfed_v1"), ("llama", LLAMA, {}, "sequential"),
    ("llama", LLAMA, {"r": 4}, "sequential"), ("llama", LLAMA, {}, "splitfed_v1"),
    ("llama", ["model.embed_tokens", "model.layers.3"], {}, "splitfed_v1"),
    ("llama", ["model.layers.0", "model.layers.3"], {"r": 4}, "splitfed_v1"),
    ("llama", ["model.layers.1"], {"r": 4}, "splitfed_v1"), ("llama", ["model.layers.1"], {}, "sequential"),
    ("gpt2", ["transformer.h.0", "transformer.h.2"], {"r": 4, "segments": ["a", "b"]}, "sequential"),
    ("gpt2", ["transformer.h.1", "transformer.h.2"], {}, "splitfed_v1"),
    ("tied gpt2", ["transformer.h.0", "transformer.h.2"], {}, "splitfed_v1"),
    ("tied gpt2", ["transformer.wte", "transformer.h.2"], {}, "sequential"),
]  # fmt: skip


CASES = [RUNS[0], *thorough(RUNS[1], RUNS[6], RUNS[10]), *slow(*RUNS[2:6], *RUNS[7:10], RUNS[11])]


@pytest.mark.thorough
@pytest.mark.parametrize(("family", "cuts", "lora", "schedule"), CASES)
@pytest.mark.few(thorough=3)
def test_bytes_are_those_that_a_run_of_a_language_model_counts(
    tmp_path: Path, family: str, cuts: list[str], lora: dict[str, Any], schedule: str
) -> None:
    name = named(family.removeprefix("tied "), tie_word_embeddings=family.startswith("tied "))
    settings = rs.Config(
        model={"name": name, "cuts": cuts, "lora": lora}, task={"loss": "token_cross_entropy"},
        data={"name": "tests.runs.language.test_adapters:next_tokens", "batch_size": 4, "val_fraction": 0},
        phones={"count": 2, "local_steps": 3}, schedule={"name": schedule}, cluster={"backend": "inprocess"},
        run={"storage_path": str(tmp_path), "name": "run", "rounds": 1},
    )  # fmt: skip
    rs.fit(settings, callbacks=[])
    row = json.loads((tmp_path / "run" / "metrics.jsonl").read_text())
    phones = pd.read_parquet(tmp_path / "run" / "phones.parquet")
    model = config.Model(name=name, num_classes=None, lora=lora, cuts=cuts)
    found = plan(scan_of(model, (9,), 4, torch.int64), SGD, Profile(), double=len(cuts) == 2)
    planned, steps = row_of(found, cuts), 2 * 3
    assert row["bytes_up"] == steps * found.candidates.bytes_up[planned]
    assert row["bytes_down"] == steps * found.candidates.bytes_down[planned]
    times = 2 if schedule == "splitfed_v1" else 1  # else the phones hand their state on: each gets it
    assert phones["bytes_weights"].tolist() == [times * found.candidates.bytes_weights[planned]] * 2


def test_only_trained_adapters_are_sent() -> None:
    scanned = scanned_of(named("llama"), {"r": 4})
    model = registry.build(config.Model(name=named("llama"), lora={"r": 4}), 0)
    parts = cut(model, LLAMA).modules()
    trained = {name: sum(w.nbytes for w in part.parameters() if w.requires_grad) for name, part in parts.items()}
    constants = sum(buffer.nbytes for buffer in model.buffers())
    first, second = (next(i for i, p in enumerate(scanned.positions) if p.name == name) for name in LLAMA)
    assert scanned.at(scanned.costs.sent_before)[first] == trained["a"] + constants
    assert scanned.at(scanned.costs.sent_after)[second] == trained["c"] + constants
    assert scanned.costs.trained.sum() == sum(trained.values())
    assert scanned.total_parameters == sum(weight.numel() for weight in model.parameters())


def test_positions_are_the_borders_that_the_cutter_offers() -> None:
    whole, adapted = (scanned_of(named("llama"), lora) for lora in ({}, {"r": 4}))
    names = ["model.embed_tokens", *(f"model.layers.{i}" for i in range(4))]
    assert [position.name for position in whole.positions] == names
    assert [position.first for position in whole.positions] == [True] * 5
    # A frozen embedding alone would tell whoever has the base which tokens they are.
    assert [position.first for position in adapted.positions] == [False] + [True] * 4
    model = registry.build(config.Model(name=named("llama")), 0)
    for name in (names[0], names[-1]):
        assert cut(model, [name])


def test_trained_and_tied_weights_are_cut_twice_or_not_at_all() -> None:
    scanned = scanned_of(named("gpt2", tie_word_embeddings=True), {})
    found = plan(scanned, SGD, Profile())
    names = ["transformer.wte", *(f"transformer.h.{i}" for i in range(4))]
    assert [found.cuts(i) for i in range(len(found.fits))] == [list(pair) for pair in combinations(names, 2)]
    with pytest.raises(SettingsError, match=r"tied weights, one on each side of every cut\. Cut twice"):
        plan(scanned, SGD, Profile(), double=False)


# Models of any size.


def test_a_model_of_a_billion_weights_is_planned_without_one_of_them_in_memory() -> None:
    model = weightless(config.Model(name="hf-config:" + json.dumps(LARGE), num_classes=None, lora={"r": 8}))
    tensors = [*model.parameters(), *model.buffers()]
    assert sum(weight.numel() for weight in model.parameters()) > 1.2e9
    assert {tensor.device.type for tensor in tensors} == {"meta"}


def test_of_a_folder_the_configuration_alone_is_read(tmp_path: Path) -> None:
    import transformers

    told = transformers.AutoConfig.for_model("llama", **DECODERS["llama"][1])
    transformers.AutoModelForCausalLM.from_config(told).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not read")
    of_folder, of_config = (scanned_of(name, {"r": 4}) for name in (f"hf:{tmp_path}", named("llama")))
    assert of_folder.flops.tolist() == of_config.flops.tolist()
    assert of_folder.costs.sent_before.tolist() == of_config.costs.sent_before.tolist()
    model = weightless(config.Model(name=f"hf:{tmp_path}", kwargs={"dtype": "bfloat16"}, num_classes=None))
    assert {(weight.device.type, weight.dtype) for weight in model.parameters()} == {("meta", torch.bfloat16)}


def test_the_command_reads_tokens_and_says_what_fits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = ["--model.name", named("llama"), "--model.lora.r", "4", "--batch", "2", "--out", str(tmp_path / "out")]
    assert main([*model, "--data.max_length", "9"]) == 0
    printed = capsys.readouterr().out
    assert "recommended: --model.cuts model.layers.0,model.layers.3\n" in printed
    assert " 9x32 " in printed
    assert main([*model, "--data.max_length", "9", "--input", "9"]) == 2
    assert capsys.readouterr().err.startswith("error: data.max_length: can't be set beside input.")
    assert main([*model, "--input", "3x8x8"]) == 2
    assert "Give the number of tokens that the model takes, such as 128." in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_takes_less_memory_than_the_models_weights(tmp_path: Path) -> None:
    told = ["--model.name", "hf-config:" + json.dumps(LARGE), "--model.lora.r", "8", "--phone.memory_mb", "6000"]
    command = "from ray_split.experiments.plan.main import main; import sys; sys.exit(main(sys.argv[1:]))"
    subprocess.run([sys.executable, "-c", command, *told, "--out", str(tmp_path)], check=True)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 < 1.5e9  # the weights have 4.9 GB


# Memory.


def step(a: Segment, c: Segment, tokens: np.ndarray, hidden: torch.Tensor) -> None:
    send(a.forward(tokens, seed=0, differentiable=False))
    arrived = torch.zeros_like(hidden).numpy()
    outputs, labels = c.forward(arrived, seed=0), torch.zeros(tokens.size, dtype=torch.long)
    loss = functional.cross_entropy(outputs.logits.flatten(0, 1), labels)
    c.backward_loss(loss)
    del loss, outputs, arrived
    c.step()
    a.backward(torch.zeros_like(hidden).numpy())
    a.step()


def measured_peak(model: torch.nn.Module, cuts: list[str], batch: int, optimizer: config.Optimizer) -> int:
    """Bytes of A, C, their base and optimizers, and the most that torch's allocator gave out in a step."""
    base = {id(w): w.nbytes for w in model.parameters() if not w.requires_grad}
    segments = cut(model, cuts)
    assert segments.c is not None
    kept_base = {id(w): w.nbytes for part in (segments.a, segments.c) for w in part.parameters() if id(w) in base}
    tokens = torch.zeros(batch, 64, dtype=torch.int64)
    with torch.no_grad():
        hidden = call(segments.a, tokens)
    a, c = Segment(segments.a, optimizer), Segment(segments.c, optimizer)
    a.tie(c)
    step(a, c, tokens.numpy(), hidden)
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        step(a, c, tokens.numpy(), hidden)
    events = [e for e in profiled.profiler.kineto_results.events() if e.name() == "[memory]"]
    changes = [e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())]
    kept = sum(array.nbytes for segment in (a, c) for array in segment.state().values())
    return int(kept + sum(kept_base.values()) + max(np.cumsum(changes)))


SIZES: dict[str, dict[str, Any]] = {
    "llama": {"hidden_size": 256, "intermediate_size": 704, "vocab_size": 2000, "max_position_embeddings": 64},
    "gpt2": {"n_embd": 256, "vocab_size": 2000, "n_positions": 64},
}


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("lora", "tied"), [({"r": 4}, True), ({}, False), ({}, True)], ids=["adapters", "whole", "whole and tied"]
)
@pytest.mark.parametrize("optimizer", [SGD, ADAMW], ids=lambda o: o.name)
@pytest.mark.parametrize("family", SIZES)
@pytest.mark.few(thorough=2)
def test_memory_is_what_a_phone_takes_with_an_embedding_once_that_is_the_head_too(
    family: str, optimizer: config.Optimizer, lora: dict[str, Any], tied: bool
) -> None:
    name = named(family, **SIZES[family], tie_word_embeddings=tied)
    blocks = DECODERS[family][2]
    cuts = [f"{blocks}.0", f"{blocks}.2"]
    scanned = scanned_of(name, lora, length=64, batch=8)
    first, second = (np.array([[p.name for p in scanned.positions].index(layer)]) for layer in cuts)
    model = registry.build(config.Model(name=name, lora=lora), 0)
    measured = measured_peak(model, cuts, 8, optimizer)
    predicted = phone_memory(scanned, optimizer, first, second).item()
    print(f"\n{family} {optimizer.name} {lora} {tied}: {predicted / measured:.3f}")
    assert predicted == pytest.approx(measured, rel=0.1)
