"""Phones with adapters of different ranks, beside peft's models of each rank trained apart and averaged as products."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import ray_split as rs
from ray_split import seeds
from tests.language_nets import DECODERS
from tests.runs.language.test_adapters import name_of, one_thread, settings_of, tokens_loss, trained_of
from tests.tiers import thorough

transformers = pytest.importorskip("transformers", reason="transformers isn't installed")
peft = pytest.importorskip("peft", reason="peft isn't installed")

TOLD = DECODERS["llama"][1]
NAME = name_of("llama", TOLD)
OF_B = ("model.layers.1.", "model.layers.2.")
RANKS, LARGEST, LR = (2, 4, 1), 4, 3.0  # first weights are small, and so are their gradients
BY_DEVICE = [{"of": "low_end", "weight": 1}, {"of": "mid_range", "weight": 1}, {"of": "laptop", "weight": 1}]
SGD = {"name": "sgd", "lr": LR, "weight_decay": 0.0}
Weights = dict[str, np.ndarray]


def with_ranks(folder: Path, schedule: str = "splitfed_v1", **sections: Any) -> rs.Config:
    """Three phones whose ranks are those of RANKS by a seed, 1 of each."""
    mix = [{"of": rank, "weight": 1} for rank in sorted(RANKS)]
    usual: dict[str, Any] = {
        "model": {"name": NAME, "lora": {"r": LARGEST, "ranks": mix}, "cuts": ["model.layers.0", "model.layers.2"]},
        "schedule": {"name": schedule}, "optimizer": SGD, "phones": {"count": 3, "local_steps": 3},
        "run": {"storage_path": str(folder), "name": "run", "rounds": 2, "seed": SEED},
    }  # fmt: skip
    return settings_of(
        folder, NAME, **{key: {**usual.get(key, {}), **sections.get(key, {})} for key in {**usual, **sections}}
    )


SEED = next(
    seed for seed in range(100)
    if [sorted(RANKS)[int(3 * draw)] for draw in seeds.uniform(seed, "ranks", np.arange(3))[:, 0]] == [*RANKS]
)  # fmt: skip


def model_of(ranks: dict[str, int]) -> nn.Module:
    """The uncut model with peft's adapters: in B's layers of the largest rank, in the others of these."""
    torch.manual_seed(seeds.torch_seed(SEED, "model"))
    model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model("llama", **TOLD))
    torch.manual_seed(seeds.torch_seed(SEED, "adapters"))
    alphas = {layer: 2 * rank for layer, rank in ranks.items()}
    told = peft.LoraConfig(r=LARGEST, lora_alpha=2 * LARGEST, rank_pattern=ranks, alpha_pattern=alphas)
    made: nn.Module = peft.get_peft_model(model, told).train()
    return made


def layers_of(weights: Any) -> list[str]:
    return sorted({key.partition(".lora_")[0] for key in weights})


def a_and_b(layer: str) -> tuple[str, str]:
    return f"{layer}.lora_A.default.weight", f"{layer}.lora_B.default.weight"


def phones_model(start: Weights, rank: int) -> nn.Module:
    """A phone's, with the first parts of the weights at a round's start."""
    layers = layers_of(start)
    model = model_of({layer: rank for layer in layers if not layer.startswith(OF_B)})
    with torch.no_grad():
        for key, weight in trained_of(model).items():
            whole = torch.from_numpy(start[key])
            weight.copy_(whole[: weight.shape[0]] if ".lora_A." in key else whole[:, : weight.shape[1]])
    return model


def as_arrays(model: nn.Module) -> Weights:
    return {key: weight.detach().numpy().copy() for key, weight in trained_of(model).items()}


def products(weights: Any) -> dict[str, np.ndarray]:
    """What adapters add to each layer, but for their scale."""
    found = {}
    for layer in layers_of(weights):
        a, b = (np.asarray(weights[key], np.float64) for key in a_and_b(layer))
        found[layer] = b @ a
    return found


def refactored(product: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    u, values, v = np.linalg.svd(product)
    return v[:LARGEST].astype(np.float32), (u[:, :LARGEST] * values[:LARGEST]).astype(np.float32)


def averaged(each: list[Weights], shares: np.ndarray) -> Weights:
    """Of the products in double precision the best approximation of the largest rank."""
    found: Weights = {}
    apart = [products(weights) for weights in each]
    for layer in apart[0]:
        a, b = a_and_b(layer)
        found[a], found[b] = refactored(sum(s * p[layer] for s, p in zip(shares, apart, strict=True)))
    return found


def reference(settings: rs.Config, shared_b: bool = False) -> list[tuple[Weights, list[Weights]]]:
    """After each round the average, and what the phones had; B by product too, or one that all phones train."""
    batches, start, rounds = rs.Batches(settings, rs.load_data(settings.data)), as_arrays(model_of({})), []
    draws = defaultdict(list)
    for draw in rs.stream(settings):
        draws[draw.round].append(draw)
    for number in sorted(draws):
        models, samples = [phones_model(start, rank) for rank in RANKS], [set[int]() for _ in RANKS]
        if shared_b:
            of_first = trained_of(models[0])
            for model in models[1:]:
                for key, weight in trained_of(model).items():
                    if key.startswith(OF_B):
                        weight.data = of_first[key].data  # SGD steps it in place
        with one_thread():
            for draw in draws[number]:
                inputs, labels = map(torch.from_numpy, batches.of(draw))
                weights = [w for w in models[draw.phone].parameters() if w.requires_grad]
                optimizer = torch.optim.SGD(weights, lr=LR)
                optimizer.zero_grad()
                tokens_loss(models[draw.phone](inputs).logits, labels).backward()
                optimizer.step()
                samples[draw.phone] |= {*draw.indices.tolist()}
        each = [as_arrays(model) for model in models]
        counts = np.array([len(indices) for indices in samples])
        start = averaged(each, counts / counts.sum())
        if shared_b:
            start |= {key: weight for key, weight in each[0].items() if key.startswith(OF_B)}
        rounds.append((start, each))
    return rounds


STACKED = {"stacked": ["a", "b", "c"], "count": 3, "local_steps": 3}
LOOPED = {"cohort": 1, "count": 3, "local_steps": 3}


@pytest.mark.parametrize(
    ("schedule", "phones", "rounds"),
    [("splitfed_v1", LOOPED, 2), *thorough(("splitfed_v1", STACKED, 2), ("splitfed_v2", LOOPED, 1))],
    ids=["v1", "v1 stacked", "v2"],
)
def test_the_average_is_that_of_the_products_of_adapters_of_each_rank(
    tmp_path: Path, schedule: str, phones: dict[str, Any], rounds: int
) -> None:
    settings = with_ranks(tmp_path, schedule, phones=phones, run={"rounds": rounds})
    path = Path(rs.fit(settings, callbacks=[]).path)
    settings = rs.Config.from_yaml(path / "config.yaml")
    assert settings.aggregator.name == "adapter_products"
    *before, wanted = [start for start, _ in reference(settings, shared_b=schedule == "splitfed_v2")]
    found = products(load_file(path / "model.safetensors"))
    moved = products(before[-1] if before else as_arrays(model_of({})))
    for layer, product in products(wanted).items():
        assert np.abs(found[layer] - product).max() < 1e-4 * np.abs(product).max()
        assert np.abs(found[layer] - moved[layer]).max() > 0.1 * np.abs(product).max()
    rows = pd.read_parquet(path / "phones.parquet")
    constants = 4 * 16  # bytes of A's and C's rotary frequencies
    factors = 4 * (2 * 32 + 32 + 16)  # of a block's q and v, for each rank
    assert rows["bytes_weights"].tolist() == [2 * (2 * factors * rank + constants) for rank in RANKS] * rounds


@pytest.mark.thorough
def test_in_splitfed_v3_each_phone_keeps_its_own_and_nothing_beyond_its_rank(tmp_path: Path) -> None:
    settings = with_ranks(
        tmp_path, "splitfed_v3", run={"rounds": 1}, phones={"count": 3, "local_steps": 3, "cohort": 1}
    )
    path = Path(rs.fit(settings, callbacks=[]).path)
    _, each = reference(rs.Config.from_yaml(path / "config.yaml"))[0]
    for phone, rank in enumerate(RANKS):
        own = rs.load_model(path, phone=phone).state_dict()
        for key, wanted in each[phone].items():
            if key.startswith(OF_B):
                continue
            axis = 0 if ".lora_A." in key else 1
            there, beyond = own[key].split([rank, LARGEST - rank], axis)
            assert not beyond.any()
            assert torch.allclose(there, torch.from_numpy(wanted), rtol=0, atol=1e-6)
            assert rank < LARGEST or torch.equal(there, torch.from_numpy(wanted))


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["adamw", "rmsprop"])
def test_nothing_beyond_a_phones_rank_moves_with_weight_decay_clipping_and_stacks(tmp_path: Path, name: str) -> None:
    settings = with_ranks(
        tmp_path, "splitfed_v3", phones=STACKED,
        optimizer={"name": name, "lr": 0.05, "weight_decay": 0.1, "clip_norm": 0.5},
        model={"name": NAME, "lora": {"r": LARGEST, "ranks": [{"of": 2}], "dropout": 0.1}},
    )  # fmt: skip
    path = Path(rs.fit(settings, callbacks=[]).path)
    for phone in range(3):
        own = {key: w for key, w in rs.load_model(path, phone=phone).state_dict().items() if not key.startswith(OF_B)}
        factors = [(own[key], own[key.replace("lora_A", "lora_B")]) for key in own if ".lora_A." in key]
        assert len(factors) == 4
        for a, b in factors:
            assert a[:2].all() and b[:, :2].all() and not a[2:].any() and not b[:, 2:].any()


@pytest.mark.thorough
def test_a_phones_rank_is_that_of_its_device(tmp_path: Path) -> None:
    by_device = {"low_end": 1, "mid_range": 2, "laptop": 4}
    model = {"name": NAME, "lora": {"r": 4, "ranks": by_device}, "cuts": ["model.layers.0", "model.layers.2"]}
    phones = {"count": 6, "local_steps": 1, "device": BY_DEVICE, "cohort": 1}
    path = Path(rs.fit(with_ranks(tmp_path, model=model, phones=phones, run={"rounds": 1}), callbacks=[]).path)
    rows = pd.read_parquet(path / "phones.parquet").sort_values("phone")
    per_rank = 2 * 2 * 4 * (2 * 32 + 32 + 16)
    ranks = [list(by_device.values())[int(3 * draw)] for draw in seeds.uniform(SEED, "devices", np.arange(6))[:, 0]]
    assert len(set(ranks)) > 1
    assert rows["bytes_weights"].tolist() == [8 * 16 + per_rank * rank for rank in ranks]


@pytest.mark.thorough
@pytest.mark.parametrize("schedule", ["splitfed_v1", "splitfed_v3"])
def test_a_run_that_goes_on_has_the_bytes_of_one_that_never_stopped(tmp_path: Path, schedule: str) -> None:
    def rounds(name: str, count: int, **more: Any) -> bytes:
        run = {"storage_path": str(tmp_path), "name": name, "rounds": count, **more}
        path = Path(rs.fit(with_ranks(tmp_path, schedule, run=run, checkpoint={"every": 1}), callbacks=[]).path)
        return (path / "model.safetensors").read_bytes()

    rounds("two", 1)
    assert rounds("two", 3, resume="auto") == rounds("one", 3)


@pytest.mark.thorough
@pytest.mark.xdist_group("ray")
def test_on_ray_and_with_any_number_of_clients_they_are_the_same_bytes(ray_session: Any, tmp_path: Path) -> None:
    def on(backend: str, clients: int) -> bytes:
        run = {"storage_path": str(tmp_path), "name": f"{backend} {clients}", "rounds": 2}
        cluster = {"backend": backend, "client_actors": clients}
        settings = with_ranks(tmp_path, run=run, cluster=cluster, phones={"count": 6, "cohort": 2})
        return (Path(rs.fit(settings, callbacks=[]).path) / "model.safetensors").read_bytes()

    assert on("ray", 2) == on("inprocess", 1) == on("inprocess", 3)


LORA = {"r": 4, "ranks": [{"of": 2}]}


def lora(**told: Any) -> dict[str, Any]:
    return {"name": NAME, "lora": {"r": 4, **told}}


TWO = {"low_end": 2}
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"model": {"name": NAME, "lora": {"ranks": [{"of": 2}]}}},
     "model.lora.r: is not set. Set the largest rank of model.lora.ranks, 2."),
    ({"model": lora(ranks=[{"of": 8}])},
     "model.lora.ranks: has 8, but the largest rank is model.lora.r, 4. Set model.lora.r 8."),
    ({"model": lora(ranks=TWO)},
     "phones.device: is not set, and model.lora.ranks goes by it. Say which devices"),
    ({"model": lora(ranks=TWO), "phones": {"count": 3, "device": BY_DEVICE}},
     "model.lora.ranks: has no rank for mid_range, which is in phones.device. Give one for each of"),
    ({"model": lora(ranks={**TWO, "a100": 4}), "phones": {"device": "low_end"}},
     "model.lora.ranks: has a rank for a100, which is not in phones.device."),
    ({"schedule": {"name": "sequential"}},
     "schedule.name: can't be used with model.lora.ranks, because a phone hands its adapters on"),
    ({"aggregator": {"name": "median"}},
     "aggregator.name: can't be used with model.lora.ranks, whose average is adapter_products. Remove aggregator."),
    ({"algorithm": {"name": "fedprox"}},
     "algorithm.name: can't be used with model.lora.ranks, because it takes an adapter's two factors apart"),
    ({"server_optimizer": {"name": "fedadam"}}, "server_optimizer.name: can't be used with model.lora.ranks, because"),
    ({"optimizer": {"ema_decay": 0.9}}, "optimizer.ema_decay: can't be used with model.lora.ranks, because"),
    ({"model": lora(ranks=[{"of": 2}], segments=["b"])},
     "model.lora.segments: can't be used with model.lora.ranks, because no phone has an adapter. Add a or c"),
    ({"model": lora(ranks=2)}, "model.lora.ranks: must be a rank for each device, such as"),
    ({"model": lora(ranks="[{of: 0}]")}, "model.lora.ranks: in {'of': 0} of must be at least 1, not 0. Write a mix"),
    ({"model": lora(ranks=["x"])}, "model.lora.ranks: 'x' is no part of a mix, which has of and weight. Write a mix"),
]  # fmt: skip


@pytest.mark.parametrize(("sections", "said"), REFUSED, ids=[said.partition(":")[0] for _, said in REFUSED])
def test_what_ranks_do_not_go_with_is_refused_in_a_line(tmp_path: Path, sections: dict[str, Any], said: str) -> None:
    whole = {"model": {"name": NAME, "lora": LORA}, "schedule": {"name": "splitfed_v1"}, **sections}
    with pytest.raises(rs.SettingsError) as caught:
        rs.fit(settings_of(tmp_path, NAME, **whole), callbacks=[])
    assert str(caught.value).startswith(said)
    assert not [*tmp_path.iterdir()]
