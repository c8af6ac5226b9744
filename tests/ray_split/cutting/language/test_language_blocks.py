"""Models of transformers, cut between their blocks: to the bits of the model that was never cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import ray_split as rs
from ray_split.cutting.cut import CutError, Segments, cut
from ray_split.segments.base_weight import BaseWeight, hold_base, train
from ray_split.segments.segment import call, tensors_of
from ray_split.segments.tied_weight import tied_names
from tests.language_nets import (
    BLOCKS,
    LANGUAGE_MODELS,
    LENGTH,
    MASKED_ENCODERS,
    VOCABULARY,
    language_model,
    next_token,
    tokens,
)
from tests.tiers import mostly_thorough

pytest.importorskip("transformers", reason="transformers isn't installed")
NETS = "tests.language_nets"


def cuts_of(family: str, *numbers: int) -> list[str]:
    return [f"{({**LANGUAGE_MODELS, **MASKED_ENCODERS})[family][2]}.{number}" for number in numbers]


def made(family: str, **more: Any) -> nn.Module:
    torch.manual_seed(0)
    model = language_model(family, **more)
    if hasattr(model.config, "use_cache"):
        model.config.use_cache = False
    return model


def batch(padded: bool) -> Any:
    values = torch.from_numpy(tokens()[0][:5])
    mask = torch.ones_like(values)
    mask[1, 6:] = mask[3, 2:] = 0
    return (values, mask) if padded else values


def trained(model: nn.Module, outputs: Any, labels: torch.Tensor) -> dict[str, torch.Tensor]:
    """The gradients of a backward from the loss of the outputs."""
    next_token(outputs, labels).backward()
    return {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


def through(segments: Segments, inputs: Any) -> Any:
    for module in segments.modules().values():
        inputs = call(module, inputs)
    return inputs


@pytest.mark.few(1, thorough=4)
@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
@pytest.mark.parametrize("family", mostly_thorough(LANGUAGE_MODELS, "llama"))
def test_segments_compute_what_the_model_does_and_its_gradients_bit_for_bit(family: str, padded: bool) -> None:
    check_bits(family, padded)


@pytest.mark.thorough
@pytest.mark.parametrize("family", mostly_thorough(MASKED_ENCODERS, "bert"))
def test_with_a_mask_encoders_that_are_traced_without_one_are_cut_between_their_blocks(family: str) -> None:
    check_bits(family, padded=True)
    with pytest.raises(CutError, match="is no block of this model, which can be cut between its blocks alone"):
        cut(made(family), [f"{cuts_of(family, 1)[0]}.attention"], batch(True), "attention_mask")


def check_bits(family: str, padded: bool) -> None:
    model, inputs = made(family).eval(), batch(padded)
    values, mask = inputs if padded else (inputs, None)
    places = (cuts_of(family, 0, 2), cuts_of(family, 1), cuts_of(family, 0, BLOCKS - 1))
    cut_there = [cut(model, cuts, inputs, "attention_mask" if padded else None) for cuts in places]
    whole = model(values, attention_mask=mask)
    gradients = trained(model, whole, values)
    for segments in cut_there:
        parts = nn.ModuleDict({name: module.eval() for name, module in segments.modules().items()})
        split = through(segments, inputs)
        assert type(split) is type(whole)
        assert torch.equal(split.logits, whole.logits)
        found = {name.partition(".")[2]: each for name, each in trained(parts, split, values).items()}
        assert found.keys() == gradients.keys()
        assert all(torch.equal(found[name], gradients[name]) for name in found)
        keys = [key for module in segments.modules().values() for key in module.state_dict()]
        assert sorted(keys) == sorted(model.state_dict())


def test_a_cut_after_the_embedding_leaves_all_blocks_to_the_server() -> None:
    segments = cut(made("llama"), ["model.embed_tokens", "model.layers.3"], batch(False))
    assert sorted({key.split(".")[2] for key in segments.b.state_dict()}) == [str(i) for i in range(BLOCKS)]
    assert list(segments.a.state_dict()) == ["model.embed_tokens.weight"]


@pytest.mark.parametrize("cuts", [("0", "2"), ("embeddings", "2"), ("embeddings", "3"), ("1",)], ids=",".join)
@pytest.mark.few(1)
def test_debertas_table_of_positions_is_of_the_first_segment_with_a_block_and_crosses_to_the_next(
    cuts: tuple[str, ...],
) -> None:
    blocks, inputs = LANGUAGE_MODELS["deberta-v2"][2], batch(True)
    names = ["deberta.embeddings" if cut == "embeddings" else f"{blocks}.{cut}" for cut in cuts]
    model = made("deberta-v2").eval()
    segments = cut(model, names, inputs, "attention_mask").modules()
    owner = "b" if cuts[0] == "embeddings" else "a"
    table = {"deberta.encoder.rel_embeddings.weight", "deberta.encoder.LayerNorm.weight"}
    assert {name for name, segment in segments.items() if table <= segment.state_dict().keys()} == {owner}
    crossing = []
    for segment in segments.values():
        inputs = call(segment.eval(), inputs)
        crossing.append(len(inputs) if isinstance(inputs, tuple) else 1)
    left = {"a": owner == "a", "b": cuts[-1] != "3"}  # with the hidden states and the mask; of no use after all blocks
    assert crossing[:-1] == [2 + left[name] for name in list(segments)[:-1]]
    values, mask = batch(True)
    assert torch.equal(inputs.logits, model(values, attention_mask=mask).logits)


def test_a_table_of_a_frozen_base_is_in_each_segment_and_does_not_cross() -> None:
    model = made("deberta-v2").requires_grad_(False)
    hold_base(model)
    train(model.classifier)  # type: ignore[arg-type]
    segments = cut(model, cuts_of("deberta-v2", 0, 2), batch(False))
    assert segments.c is not None
    table = "deberta.encoder.rel_embeddings.weight"
    assert all(isinstance(dict(each.named_parameters())[table], BaseWeight) for each in segments.modules().values())
    assert isinstance(call(segments.a, batch(False)), torch.Tensor)


@pytest.mark.parametrize(
    ("cuts", "said"),
    [
        (
            ["model.layers.1.mlp"],
            "model.cuts: 'model.layers.1.mlp' is no block of this model",
        ),
        (["model.layers.2", "model.layers.0"], "model.cuts: model.layers.0 runs before model.layers.2. Write model"),
        (["model.layers.2", "model.layers.2"], "model.cuts: one block is named twice. Name two blocks."),
    ],
)
def test_elsewhere_it_is_not_cut(cuts: list[str], said: str) -> None:
    with pytest.raises(CutError) as caught:
        cut(made("llama"), cuts, batch(False))
    assert str(caught.value).startswith(said)


def test_positions_that_follow_from_the_longest_sequence_so_far_are_refused() -> None:
    model = made("llama", rope_scaling={"rope_type": "dynamic", "factor": 2.0})
    with pytest.raises(rs.SettingsError, match=r"^model\.name: its rotary positions .* Set rope_type to linear"):
        cut(model, cuts_of("llama", 0), batch(False))


def test_tied_embeddings_across_the_servers_border_are_refused_by_their_names() -> None:
    with pytest.raises(CutError) as caught:
        cut(made("gpt2", tie_word_embeddings=True), cuts_of("gpt2", 0), batch(False))
    assert str(caught.value) == (
        "model.cuts: the tied weights transformer.wte.weight and lm_head.weight would be in both segments A and B. "
        "Cut so that both stay on the phone, in A or in C, or untie them (tie_word_embeddings=False)."
    )


def test_tied_embeddings_in_a_and_c_are_one_weight_of_a() -> None:
    segments = cut(made("gpt2", tie_word_embeddings=True), cuts_of("gpt2", 0, 2), batch(False))
    assert segments.c is not None
    assert tied_names(segments.c) == {"lm_head.weight": "transformer.wte.weight"}
    assert not {key for key in tensors_of(segments.c) if "lm_head" in key}


OPTIMIZERS = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}


@pytest.mark.few(1, thorough=4)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("family", mostly_thorough(LANGUAGE_MODELS, "llama"))
def test_split_training_is_training_of_the_model_that_was_never_cut(
    tmp_path: Path, family: str, optimizer: str
) -> None:
    settings = rs.Config(
        model={"name": f"{NETS}:language_model", "kwargs": {"family": family}, "cuts": cuts_of(family, 0, 2)},
        data={"name": f"{NETS}:tokens", "batch_size": 8, "val_fraction": 0},
        task={"loss": f"{NETS}:next_token"},
        phones={"count": 1, "local_steps": 3},
        optimizer={"name": optimizer, "lr": 0.01, "weight_decay": 0.1},
        cluster={"backend": "inprocess"},
        run={"storage_path": str(tmp_path), "name": "run", "rounds": 1},
    )
    result = rs.fit(settings, callbacks=[])
    settings = rs.Config.from_yaml(Path(result.path) / "config.yaml")
    threads, batches = torch.get_num_threads(), rs.Batches(settings, rs.load_data(settings.data))
    torch.set_num_threads(1)
    try:
        model = rs.models.build(settings.model, settings.run.seed)
        stepping = OPTIMIZERS[optimizer](model.parameters(), lr=0.01, weight_decay=0.1)
        draws = list(rs.stream(settings))
        for draw in draws:
            inputs, labels = map(torch.from_numpy, batches.of(draw))
            stepping.zero_grad()
            next_token(model(inputs), labels).backward()
            stepping.step()
    finally:
        torch.set_num_threads(threads)
    found = rs.load_model(result.path, trust=True).state_dict()
    assert len(draws) == 3
    assert (inputs.shape[1], model.config.vocab_size) == (LENGTH, VOCABULARY)
    assert found.keys() == model.state_dict().keys()
    assert all(torch.equal(found[key], value) for key, value in model.state_dict().items())
