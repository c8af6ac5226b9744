"""Models of transformers by name: with the weights of a folder, or of a configuration as first drawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import ray_split as rs
from ray_split import seeds
from ray_split.config import Model
from ray_split.cutting.cut import cut
from ray_split.errors import SettingsError
from ray_split.experiments.plan.settings import Model as PlannedModel
from ray_split.models import registry
from ray_split.models.transformers_by_name import is_named, short_name
from ray_split.segments.segment import call
from tests.language_nets import DECODERS
from tests.tiers import mostly_thorough

transformers = pytest.importorskip("transformers", reason="transformers isn't installed")
TOLD = {"model_type": "llama", **DECODERS["llama"][1]}
NAME = f"hf-config:{json.dumps(TOLD)}"


def built(name: str, **more: Any) -> Any:
    return registry.build(Model(name=name, **more), 7)


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def test_a_configurations_model_is_drawn_from_the_seed_as_transformers_draws_it() -> None:
    torch.manual_seed(seeds.torch_seed(7, "model"))
    config = transformers.AutoConfig.for_model(**TOLD)
    assert same(built(NAME), transformers.AutoModelForCausalLM.from_config(config))


def test_a_configuration_may_be_a_file_and_kwargs_change_it(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(TOLD))
    for name in (f"hf-config:{tmp_path}", f"hf-config:{tmp_path / 'config.json'}"):
        assert same(built(name), built(NAME))
    assert len(built(NAME, kwargs={"num_hidden_layers": 2}).model.layers) == 2


def test_a_folders_model_has_its_weights_in_single_precision(tmp_path: Path) -> None:
    torch.manual_seed(1)
    saved = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(**TOLD))
    saved.bfloat16().save_pretrained(tmp_path)
    found = built(f"hf:{tmp_path}")
    assert same(found, saved.float())
    assert not found.config.use_cache


def test_a_classifier_has_as_many_classes_as_the_data(tmp_path: Path) -> None:
    kwargs = {"head": "sequence_classification"}
    made = built(NAME, num_classes=5, kwargs=kwargs)
    assert type(made).__name__ == "LlamaForSequenceClassification" and made.score.out_features == 5
    made.save_pretrained(tmp_path)
    again = built(f"hf:{tmp_path}", num_classes=5)  # its head is in the folder
    assert same(again, made)


def test_a_language_model_has_the_vocabulary_of_the_data_where_nothing_says_another() -> None:
    untold = {key: value for key, value in TOLD.items() if key != "vocab_size"}
    assert built(f"hf-config:{json.dumps(untold)}", num_classes=17).config.vocab_size == 17
    assert built(NAME, num_classes=17).config.vocab_size == TOLD["vocab_size"]


def test_an_encoder_has_a_head_for_classes_and_keeps_its_vocabulary() -> None:
    bert = '{"model_type": "bert", "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}'
    made = built(f"hf-config:{bert}", num_classes=3)
    assert (type(made).__name__, made.classifier.out_features) == ("BertForSequenceClassification", 3)
    assert made.config.vocab_size == transformers.BertConfig().vocab_size


def test_it_is_cut_after_its_first_block_and_the_last_but_one() -> None:
    assert registry.cuts_of(Model(name=NAME), built(NAME)) == ["model.layers.0", "model.layers.2"]
    bert = built(
        'hf-config:{"model_type": "bert", "hidden_size": 32, "num_hidden_layers": 5, "num_attention_heads": 4}'
    )
    cuts = registry.cuts_of(Model(name="hf-config:{}"), bert)
    assert [cut.rpartition(".")[2] for cut in cuts] == ["0", "3"]


FEW = {"llama": ("model.embed_tokens", "model.layers"), "bert": ("bert.embeddings", "bert.encoder.layer")}


@pytest.mark.parametrize("kind", mostly_thorough(FEW, "llama"))
def test_of_few_blocks_the_line_names_all_places_between_them(kind: str) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    model = built(f"hf-config:{json.dumps({'model_type': kind, 'vocab_size': 50, **sizes})}", num_classes=3)
    with pytest.raises(SettingsError) as raised:
        registry.cuts_of(Model(name="hf-config:{}"), model)
    embedding, blocks = FEW[kind]
    assert str(raised.value).endswith(
        f"two to make three parts, such as --model.cuts {blocks}.0,{blocks}.1, or one to make two parts, such as "
        f"--model.cuts {blocks}.0. You can cut after the layers {embedding}, {blocks}.0 and {blocks}.1."
    )
    tokens = torch.arange(8).reshape(2, 4)
    for cuts in ([embedding, f"{blocks}.0"], [f"{blocks}.0", f"{blocks}.1"], [f"{blocks}.0"]):
        crossing: Any = tokens
        for segment in cut(model.eval(), cuts, tokens).modules().values():
            crossing = call(segment.eval(), crossing)
        assert torch.equal(crossing.logits, model(tokens).logits)


@pytest.mark.parametrize(
    ("name", "kwargs", "said"),
    [
        ("hf:no/such/folder", {}, "model.name: no/such/folder can't be loaded: "),
        (
            "hf:any",
            {"token": "hf_1"},
            "model.kwargs: can't contain token, which config.yaml would show to everyone",
        ),
        ("hf-config:nowhere.json", {}, "model.name: there is no file nowhere.json. Write hf-config:{model_type"),
        ("hf-config:{}", {}, "model.name: the configuration says no model_type that transformers"),
        ('hf-config:{"model_type": "nosuch"}', {}, "model.name: the configuration says no model_type that transfor"),
        (
            "hf-config:{model_type: llama, hiden_size: 64}",
            {},
            "model.name: a configuration of llama has no 'hiden_size'. Did you mean hidden_size?",
        ),
        (NAME, {"n_layers": 2}, "model.name: a configuration of llama has no 'n_layers'."),
        (NAME, {"head": "nosuch"}, "model.kwargs: "),
        (NAME, {"head": "image_classification"}, "model.name: transformers has no llama with a head image_classif"),
    ],
)
def test_what_is_no_model_is_told_in_a_line(name: str, kwargs: dict[str, Any], said: str) -> None:
    with pytest.raises(rs.SettingsError) as caught:
        built(name, kwargs=kwargs)
    assert str(caught.value).startswith(said), str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_configuration_may_be_written_over_several_lines() -> None:
    written = "hf-config:{model_type: llama,\n    hidden_size: 64}"
    for section in (Model, PlannedModel):
        assert section(name=written).name == "hf-config:{model_type: llama, hidden_size: 64}"
    with pytest.raises(rs.SettingsError, match="has a line break"):
        rs.Config(model={"name": "mlp\n"})


def test_a_runs_folder_is_named_after_the_model() -> None:
    assert [is_named(name) for name in ("hf:gpt2", NAME, "digits_cnn", "hfx.module:function")] == [
        True,
        True,
        False,
        False,
    ]
    assert short_name("hf:HuggingFaceTB/SmolLM2-135M") == "SmolLM2-135M"
    assert short_name(NAME) == "llama"
