"""Decoders of transformers, cut between their blocks: to the bits of the model that was never cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import ray_split as rs
from ray_split.cutting.cut import CutError, Segments, cut
from ray_split.segments.segment import call, tensors_of
from ray_split.segments.tied_weight import tied_names
from tests.language_nets import BLOCKS, DECODERS, LENGTH, VOCABULARY, decoder, next_token, tokens
from tests.tiers import mostly_thorough

pytest.importorskip("transformers", reason="transformers isn't installed")
NETS = "tests.language_nets"


def cuts_of(family: str, *numbers: int) -> list[str]:
    return [f"{DECODERS[family][2]}.{number}" for number in numbers]


def made(family: str, **more: Any) -> nn.Module:
    torch.manual_seed(0)
    model = decoder(family, **more)
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


@pytest.mark.few(thorough=4)
@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
@pytest.mark.parametrize("family", mostly_thorough(DECODERS, "llama"))
def test_segments_compute_what_the_model_does_and_its_gradients_bit_for_bit(family: str, padded: bool) -> None:
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


@pytest.mark.few(thorough=4)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("family", mostly_thorough(DECODERS, "llama"))
def test_split_training_is_training_of_the_model_that_was_never_cut(
    tmp_path: Path, family: str, optimizer: str
) -> None:
    settings = rs.Config(
        model={"name": f"{NETS}:decoder", "kwargs": {"family": family}, "cuts": cuts_of(family, 0, 2)},
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
