"""Adapters of low rank beside a frozen base: to the bits what peft trains on the model that was never cut."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

import ray_split as rs
from ray_split import seeds
from ray_split.cutting.cut import CutError, cut
from ray_split.models import registry
from ray_split.segments.base_weight import BaseWeight
from ray_split.segments.copy_factory import CopyFactory
from tests.language_nets import DECODERS, VOCABULARY
from tests.language_nets import ENCODERS as NETS
from tests.tiers import mostly_thorough

transformers = pytest.importorskip("transformers", reason="transformers isn't installed")
peft = pytest.importorskip("peft", reason="peft isn't installed")

WORDS = {"vocab_size": VOCABULARY, "max_position_embeddings": 20}
SIZES = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 48}
SMALL = {**SIZES, **WORDS}


class Encoder(NamedTuple):
    """A small one's configuration, its head, what it is trained on, and where peft puts adapters."""

    told: dict[str, Any]
    head: str = "sequence_classification"
    data: str = "classes"
    new: tuple[str, ...] = ("classifier",)
    layers: list[str] | None = None  # which peft has to be told


ENCODERS = {
    "bert": Encoder(SMALL),
    "roberta": Encoder({**SMALL, "pad_token_id": 1}),
    "electra": Encoder({**SMALL, "embedding_size": 32}),
    "distilbert": Encoder(
        {"dim": 32, "n_layers": 4, "n_heads": 4, "hidden_dim": 48, **WORDS},
        new=("pre_classifier", "classifier"), layers=["q_lin", "v_lin"],
    ),
    "vit": Encoder(
        {**SIZES, "image_size": 16, "patch_size": 4, "num_channels": 1},
        "image_classification", "images", layers=["q_proj", "v_proj"],
    ),
    "t5": Encoder(
        {"d_model": 32, "num_layers": 4, "num_heads": 4, "d_ff": 48, "d_kv": 8, "vocab_size": VOCABULARY},
        "token_classification", "labelled_tokens",
    ),
    "deberta": Encoder(NETS["deberta"][1]),
    "deberta-v2": Encoder(NETS["deberta-v2"][1]),
    "modernbert": Encoder(NETS["modernbert"][1], layers=["Wqkv", "Wo"]),
}  # fmt: skip
DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "dropout_rate", "attention_dropout",
            "seq_classif_dropout", "classifier_dropout")  # fmt: skip

LLAMA = {"model_type": "llama", **DECODERS["llama"][1]}


def next_tokens() -> tuple[np.ndarray, np.ndarray]:
    """Tokens, and which one follows each."""
    found = np.random.default_rng(3).integers(3, VOCABULARY, (48, 10))
    return found[:, :-1], found[:, 1:]


def classes() -> tuple[np.ndarray, np.ndarray]:
    found = np.random.default_rng(3).integers(3, VOCABULARY, (48, 9))
    return found, found[:, 0] % 3


def images() -> tuple[np.ndarray, np.ndarray]:
    return np.random.default_rng(3).normal(size=(48, 1, 16, 16)).astype(np.float32), np.arange(48) % 3


def name_of(kind: str, told: dict[str, Any]) -> str:
    return "hf-config:" + json.dumps({"model_type": kind, **told})


def settings_of(folder: Path, name: str, /, **sections: dict[str, Any]) -> rs.Config:
    usual: dict[str, dict[str, Any]] = {
        "model": {"name": name, "lora": {"r": 4}},
        "data": {"name": "tests.runs.language.test_adapters:next_tokens", "batch_size": 8, "val_fraction": 0},
        "task": {"loss": "token_cross_entropy"},
        "phones": {"count": 1, "local_steps": 3},
        "optimizer": {"name": "adamw", "lr": 0.01, "weight_decay": 0.1},
        "cluster": {"backend": "inprocess"},
        "run": {"storage_path": str(folder), "name": "run", "rounds": 1},
    }
    return rs.Config(**{key: {**usual.get(key, {}), **sections.get(key, {})} for key in {**usual, **sections}})


def train(settings: rs.Config) -> tuple[Path, rs.Config]:
    path = Path(rs.fit(settings, callbacks=[]).path)
    return path, rs.Config.from_yaml(path / "config.yaml")


@contextmanager
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def pefts(build: Callable[[Any], nn.Module], kind: str, told: dict[str, Any], **lora: Any) -> nn.Module:
    """A model of transformers with adapters by peft, neither of them by our code but for the seeds."""
    torch.manual_seed(seeds.torch_seed(0, "model"))
    model = build(transformers.AutoConfig.for_model(kind, **told))
    torch.manual_seed(seeds.torch_seed(0, "adapters"))
    made: nn.Module = peft.get_peft_model(model, peft.LoraConfig(r=4, lora_alpha=8.0, **lora))
    return made


def trained_of(model: nn.Module) -> dict[str, torch.Tensor]:
    names = {n.removeprefix("base_model.model."): w for n, w in model.named_parameters() if w.requires_grad}
    return {n.replace(".original_module", "").replace(".modules_to_save.default", ""): w for n, w in names.items()}


def check_same_as_peft(settings: rs.Config, path: Path, model: nn.Module, loss: Any, optimizer: Any) -> None:
    batches = rs.Batches(settings, rs.load_data(settings.data))
    draws = list(rs.stream(settings))
    with one_thread():
        model.train()
        for draw in draws:
            inputs, labels = map(torch.from_numpy, batches.of(draw))
            optimizer.zero_grad()
            loss(model(inputs).logits, labels).backward()
            optimizer.step()
    saved, wanted = load_file(path / "model.safetensors"), trained_of(model)
    assert len(draws) == 3
    assert {key for key in saved if key in wanted} == wanted.keys()
    assert not [key for key in saved if ".lora_" in key and key not in wanted]
    assert all(torch.equal(saved[key], value) for key, value in wanted.items())


OPTIMIZERS = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}
CASES = [(f, o) for f in DECODERS for o in OPTIMIZERS]


def tokens_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(logits.flatten(0, 1), labels.flatten())


@pytest.mark.few(1)
@pytest.mark.parametrize(("family", "optimizer"), mostly_thorough(CASES, ("llama", "adamw"), ("gpt2", "sgd")))
def test_a_decoders_adapters_are_those_that_peft_trains(tmp_path: Path, family: str, optimizer: str) -> None:
    kind, told = family.split()[0], DECODERS[family][1]
    cuts = [f"{DECODERS[family][2]}.{i}" for i in ((1,) if optimizer == "sgd" else (0, 2))]
    settings = settings_of(
        tmp_path, name_of(kind, told), model={"name": name_of(kind, told), "lora": {"r": 4}, "cuts": cuts},
        optimizer={"name": optimizer, "lr": 0.01, "weight_decay": 0.1},
    )  # fmt: skip
    path, settings = train(settings)
    model = pefts(transformers.AutoModelForCausalLM.from_config, kind, told)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    check_same_as_peft(settings, path, model, tokens_loss, OPTIMIZERS[optimizer](weights, lr=0.01, weight_decay=0.1))


@pytest.mark.thorough
def test_beside_a_base_in_half_precision_they_are_pefts_too_and_half_of_the_bytes_cross(tmp_path: Path) -> None:
    told, rows = DECODERS["llama"][1], {}
    torch.manual_seed(1)
    saved = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model("llama", **told))
    saved.save_pretrained(tmp_path / "base")
    for dtype in ("float32", "bfloat16"):
        named = {"name": f"hf:{tmp_path / 'base'}", "lora": {"r": 4}, "kwargs": {"dtype": dtype}}
        run = {"storage_path": str(tmp_path), "name": dtype, "rounds": 1}
        path, settings = train(settings_of(tmp_path, "", model=named, run=run))
        rows[dtype] = json.loads((path / "metrics.jsonl").read_text())
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.bfloat16)
    torch.manual_seed(seeds.torch_seed(0, "adapters"))
    model = peft.get_peft_model(base, peft.LoraConfig(r=4, lora_alpha=8.0))
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    check_same_as_peft(settings, path, model, tokens_loss, torch.optim.AdamW(weights, lr=0.01, weight_decay=0.1))
    assert rows["float32"]["bytes_up"] == 2 * rows["bfloat16"]["bytes_up"]


@pytest.mark.parametrize("kind", mostly_thorough(ENCODERS, "bert"))
def test_an_encoders_adapters_and_its_new_head_are_those_that_peft_trains(tmp_path: Path, kind: str) -> None:
    encoder, usual = ENCODERS[kind], transformers.AutoConfig.for_model(kind)
    told = {**encoder.told, "num_labels": 3, **{key: 0.0 for key in DROPOUTS if hasattr(usual, key)}}
    lora = {"modules_to_save": list(encoder.new), "target_modules": encoder.layers}
    path, settings = train(settings_of(
        tmp_path, "", model={"name": name_of(kind, told), "lora": {"r": 4, **lora}, "kwargs": {"head": encoder.head}},
        data={"name": f"tests.runs.language.test_adapters:{encoder.data}"},
        task={"loss": "token_cross_entropy" if encoder.data == "labelled_tokens" else "cross_entropy"},
        optimizer={"name": "sgd", "lr": 0.05, "weight_decay": 0.0},
    ))  # fmt: skip
    auto = getattr(transformers, f"AutoModelFor{''.join(part.title() for part in encoder.head.split('_'))}")
    model = pefts(auto.from_config, kind, told, **lora)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    loss = tokens_loss if encoder.data == "labelled_tokens" else functional.cross_entropy
    check_same_as_peft(settings, path, model, loss, torch.optim.SGD(weights, lr=0.05))


def labelled_tokens() -> tuple[np.ndarray, np.ndarray]:
    found = np.random.default_rng(3).integers(3, VOCABULARY, (48, 9))
    return found, found % 3


@pytest.mark.parametrize("stacked", [["a", "b", "c"], []], ids=["stacked", "looped"])
@pytest.mark.thorough
def test_splitfed_v1_averages_adapters(tmp_path: Path, stacked: list[str]) -> None:
    name = name_of("llama", DECODERS["llama"][1])
    path, settings = train(settings_of(
        tmp_path, name, schedule={"name": "splitfed_v1"}, phones={"count": 2, "stacked": stacked},
        optimizer={"name": "sgd", "lr": 0.1, "weight_decay": 0.0},
    ))  # fmt: skip
    assert settings.phones.stacked == stacked
    batches, each = rs.Batches(settings, rs.load_data(settings.data)), []
    with one_thread():
        for phone in range(2):  # of 19 samples each
            model = pefts(transformers.AutoModelForCausalLM.from_config, "llama", DECODERS["llama"][1]).train()
            optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=0.1)
            for draw in [draw for draw in rs.stream(settings) if draw.phone == phone]:
                inputs, labels = map(torch.from_numpy, batches.of(draw))
                optimizer.zero_grad()
                tokens_loss(model(inputs).logits, labels).backward()
                optimizer.step()
            each.append(trained_of(model))
    saved = load_file(path / "model.safetensors")
    assert all((saved[key] - (each[0][key] + each[1][key]) / 2).abs().max() < 1e-6 for key in each[0])


def test_only_adapters_cross_are_saved_and_counted(tmp_path: Path) -> None:
    path, _ = train(settings_of(tmp_path, name_of("llama", DECODERS["llama"][1])))
    saved, row = load_file(path / "model.safetensors"), json.loads((path / "metrics.jsonl").read_text())
    assert saved and all(".lora_" in key for key in saved)
    model = rs.load_model(path)
    adapters = sum(weight.nbytes for weight in saved.values())
    constants = sum(buffer.nbytes for buffer in model.buffers())  # each segment's own, of rotary positions
    states = load_states(path)
    assert not [key for state in states for key in state if "weights/" in key and ".lora_" not in key]
    # Down and up again: A and C to the phone, B to its server, and with them what AdamW remembers of them, up alone.
    assert 2 * adapters <= row["bytes_weights"] <= 2 * (adapters + 3 * constants) + 3 * adapters


def load_states(path: Path) -> list[set[str]]:
    """The keys of a run's last checkpoint, by file."""
    newest = sorted((path / "checkpoints").iterdir())[-1]
    return [set(load_file(file)) for file in newest.glob("*.safetensors")]


def test_a_base_is_in_memory_once_whatever_the_number_of_copies(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, "hf-config:" + json.dumps(LLAMA), phones={"count": 8, "stacked": ["b"]})
    model = registry.build(settings.model, 0)
    segments = cut(model, ["model.layers.0", "model.layers.2"])
    make = CopyFactory("b", segments.b, settings)
    places = {name: weight.data_ptr() for name, weight in model.named_parameters() if isinstance(weight, BaseWeight)}
    for copies in (make.stack()._module, make.segment().module, make.segment().module):
        own = {name: weight for name, weight in copies.named_parameters() if isinstance(weight, BaseWeight)}
        assert own and all(weight.data_ptr() == places[name] for name, weight in own.items())
    stacked = make.stack()
    stacked.load(make.first_state(), 8)
    assert all(".lora_" in name and len(weight) == 8 for name, weight in stacked._weights.items())
    made = make.like(settings.optimizer.of("b"), double=True).segment().module
    assert all(weight.dtype == torch.float64 for weight in made.parameters())
    assert all(weight.dtype == torch.float32 for weight in model.parameters())


def test_peft_loads_what_a_run_leaves_and_merges_it(tmp_path: Path) -> None:
    told = {**DECODERS["gpt2"][1], "tie_word_embeddings": True}
    path, _ = train(settings_of(tmp_path, name_of("gpt2", told)))
    torch.manual_seed(seeds.torch_seed(0, "model"))
    base = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model("gpt2", **told))
    assert base.lm_head.weight is base.transformer.wte.weight
    theirs = peft.PeftModel.from_pretrained(base, path / "adapter").eval()
    tokens = torch.from_numpy(next_tokens()[0][:4])
    with torch.no_grad():
        before, found = rs.load_model(path)(tokens).logits, theirs(tokens, use_cache=False).logits
        merged = theirs.merge_and_unload()(tokens, use_cache=False).logits
    assert torch.equal(before, found)
    assert torch.allclose(merged, found, atol=1e-5)


@pytest.mark.thorough
def test_a_phones_own_adapter_is_written_for_peft(tmp_path: Path) -> None:
    name = name_of("llama", DECODERS["llama"][1])
    path, _ = train(settings_of(tmp_path, name, schedule={"name": "splitfed_v3"}, phones={"count": 3}))
    found = []
    for phone in (0, 2):
        rs.save_adapter(path, tmp_path / f"phone {phone}", phone=phone)
        torch.manual_seed(seeds.torch_seed(0, "model"))
        base = transformers.AutoModelForCausalLM.from_config(
            transformers.AutoConfig.for_model("llama", **DECODERS["llama"][1])
        )
        theirs = peft.PeftModel.from_pretrained(base, tmp_path / f"phone {phone}").eval()
        tokens = torch.from_numpy(next_tokens()[0][:4])
        with torch.no_grad():
            found.append(theirs(tokens, use_cache=False).logits)
            assert torch.equal(rs.load_model(path, phone=phone)(tokens).logits, found[-1])
    assert not torch.equal(*found)


@pytest.mark.parametrize("segments", [["b"], ["a", "c"]], ids="+".join)
@pytest.mark.thorough
def test_adapters_are_in_the_segments_that_are_named(tmp_path: Path, segments: list[str]) -> None:
    name = name_of("llama", DECODERS["llama"][1])
    path, _ = train(settings_of(tmp_path, name, model={"name": name, "lora": {"r": 4, "segments": segments}}))
    blocks = {"a": "0", "b": "12", "c": "3"}
    saved = {key.split(".")[2] for key in load_file(path / "model.safetensors")}
    assert saved == {block for segment in segments for block in blocks[segment]}
    assert {key.split(".")[4] for key in load_file(path / "adapter" / "adapter_model.safetensors")} == saved


@pytest.mark.thorough
def test_a_run_that_goes_on_has_the_bytes_of_one_that_never_stopped(tmp_path: Path) -> None:
    name = name_of("llama", DECODERS["llama"][1])

    def rounds(run: str, count: int, **more: Any) -> bytes:
        told = {"storage_path": str(tmp_path), "name": run, "rounds": count, **more}
        path, _ = train(settings_of(
            tmp_path, name, run=told, schedule={"name": "splitfed_v3"}, phones={"count": 3}, checkpoint={"every": 1},
        ))  # fmt: skip
        return (path / "model.safetensors").read_bytes() + (path / "adapter" / "adapter_model.safetensors").read_bytes()

    rounds("two", 1)
    assert rounds("two", 3, resume="auto") == rounds("one", 3)


@pytest.mark.thorough
@pytest.mark.xdist_group("ray")
def test_on_ray_they_are_the_same_bytes(ray_session: Any, tmp_path: Path) -> None:
    name = name_of("llama", DECODERS["llama"][1])

    def on(backend: str) -> bytes:
        path, _ = train(settings_of(
            tmp_path, name, schedule={"name": "splitfed_v1"}, phones={"count": 4}, cluster={"backend": backend},
            run={"storage_path": str(tmp_path), "name": backend, "rounds": 2},
        ))  # fmt: skip
        return (path / "model.safetensors").read_bytes()

    assert on("ray") == on("inprocess")


TIED = {**DECODERS["llama"][1], "tie_word_embeddings": True}


def test_a_tied_head_is_not_trained_apart_as_peft_would(tmp_path: Path) -> None:
    name = name_of("llama", TIED)
    model = pefts(transformers.AutoModelForCausalLM.from_config, "llama", TIED, modules_to_save=["lm_head"])
    head, embedding = model.get_output_embeddings().modules_to_save["default"], model.get_input_embeddings()
    assert head.weight.requires_grad and not embedding.weight.requires_grad  # peft's have come apart
    with pytest.raises(rs.SettingsError) as caught:
        lora = {"r": 4, "modules_to_save": ["lm_head"]}
        rs.fit(settings_of(tmp_path, name, model={"name": name, "lora": lora}), callbacks=[])
    assert str(caught.value).startswith(
        "model.lora.modules_to_save: the weight of lm_head is tied to that of model.embed_tokens, and peft would train"
    )


@pytest.mark.parametrize(
    ("lora", "said"),
    [
        ({"r": 4, "target_modules": ["nosuch"]}, "model.lora.target_modules: peft can't put adapters into nosuch"),
        ({"r": 4, "modules_to_save": ["nosuch"]}, "model.lora.modules_to_save: the model has no layer nosuch"),
    ],
)
def test_what_is_not_there_is_named(tmp_path: Path, lora: dict[str, Any], said: str) -> None:
    name = name_of("llama", DECODERS["llama"][1])
    with pytest.raises(rs.SettingsError) as caught:
        rs.fit(settings_of(tmp_path, name, model={"name": name, "lora": lora}), callbacks=[])
    assert str(caught.value).startswith(said)
    assert not [*tmp_path.iterdir()]


def test_a_model_that_peft_does_not_know_is_asked_for_its_layers_and_then_has_adapters(tmp_path: Path) -> None:
    told = {"vocabulary": VOCABULARY, "length": 9, "width": 16, "heads": 2, "depth": 4}
    with pytest.raises(
        rs.SettingsError, match=r"^model\.lora\.target_modules: is not set, and peft has no usual layers"
    ):
        rs.fit(settings_of(tmp_path, "transformer", model={"name": "transformer", "kwargs": told, "lora": {"r": 2}}))
    named = {"name": "digits_cnn", "lora": {"r": 2, "target_modules": ["hidden.1"]}}
    path, _ = train(
        settings_of(tmp_path, "digits_cnn", model=named, data={"name": "digits"}, task={"loss": "cross_entropy"})
    )
    assert any(".lora_A." in key for key in load_file(path / "model.safetensors"))


def test_trained_weights_that_are_tied_across_the_border_stay_refused(tmp_path: Path) -> None:
    told = {**DECODERS["gpt2"][1], "tie_word_embeddings": True}
    model = {"name": name_of("gpt2", told), "lora": {}, "cuts": ["transformer.h.1"]}
    with pytest.raises(CutError, match="tied weights"):
        rs.fit(settings_of(tmp_path, "x", model=model), callbacks=[])
