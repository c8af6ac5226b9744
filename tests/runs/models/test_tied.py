"""A weight that A and C share: one tensor on the phone, trained as the model that was never cut trains it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

import ray_split as rs
from ray_split.filesystem import place
from ray_split.results import checkpoint
from tests.language_nets import DECODERS, decoder, next_token
from tests.reference import BY_SCHEDULE, assert_close_weights, assert_same_weights, splitfed_v3
from tests.tied_nets import CUTS, FEATURES, WIDTH
from tests.tiers import mostly_thorough, on_ray

LANGUAGE = "tests.language_nets"
NETS = "tests.tied_nets"
OPTIMIZERS = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}


def settings_of(folder: Path, **sections: dict[str, Any]) -> rs.Config:
    usual: dict[str, dict[str, Any]] = {
        "model": {"name": f"{NETS}:TiedAutoencoder", "cuts": CUTS},
        "data": {"name": f"{NETS}:points", "batch_size": 4, "val_fraction": 0},
        "phones": {"count": 1, "local_steps": 3},
        "optimizer": {"name": "adamw", "lr": 0.05, "weight_decay": 0.1},
        "cluster": {"backend": "inprocess"},
        "run": {"storage_path": str(folder), "name": "run", "rounds": 2},
    }
    return rs.Config(**{key: {**usual.get(key, {}), **sections.get(key, {})} for key in {**usual, **sections}})


def train(settings: rs.Config) -> tuple[rs.Result, rs.Config]:
    result = rs.fit(settings, callbacks=[])
    return result, rs.Config.from_yaml(Path(result.path) / "config.yaml")


def language(family: str, **more: Any) -> dict[str, Any]:
    kwargs = {"family": family, "tie_word_embeddings": True, **more}
    blocks = DECODERS[family][2]
    return {
        "model": {"name": f"{LANGUAGE}:decoder", "kwargs": kwargs, "cuts": [f"{blocks}.0", f"{blocks}.2"]},
        "data": {"name": f"{LANGUAGE}:tokens", "batch_size": 8, "val_fraction": 0},
        "task": {"loss": f"{LANGUAGE}:next_token"},
    }


def plainly(settings: rs.Config, optimizer: str, clip: float | None = None, loss: Any = next_token) -> nn.Module:
    """The untouched model in a loop of torch's own, on the batches of the run."""
    before, batches = torch.get_num_threads(), rs.Batches(settings, rs.load_data(settings.data))
    torch.set_num_threads(1)
    try:
        model = rs.models.build(settings.model, settings.run.seed).train()
        stepping = OPTIMIZERS[optimizer](model.parameters(), lr=0.05, weight_decay=0.1)
        for draw in rs.stream(settings):
            inputs, labels = map(torch.from_numpy, batches.of(draw))
            stepping.zero_grad()
            loss(model(inputs), labels).backward()
            if clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            stepping.step()
    finally:
        torch.set_num_threads(before)
    return model


FAMILIES = [(family, optimizer) for family in ("llama", "gpt2", "gemma") for optimizer in OPTIMIZERS]


@pytest.mark.parametrize(("family", "optimizer"), mostly_thorough(FAMILIES, ("llama", "adamw")))
def test_an_embedding_that_is_the_head_too_trains_as_in_the_model_that_was_never_cut(
    tmp_path: Path, family: str, optimizer: str
) -> None:
    assert decoder(family, tie_word_embeddings=True).get_input_embeddings().weight.requires_grad
    result, settings = train(
        settings_of(tmp_path, **language(family), optimizer={"name": optimizer}, run={"rounds": 1})
    )
    model = plainly(settings, optimizer)
    assert model.get_input_embeddings().weight is model.lm_head.weight
    assert_same_weights(model, result.path)
    assert rs.load_model(result.path, trust=True).lm_head.weight.equal(model.lm_head.weight)


@pytest.mark.thorough
def test_three_phones_of_a_language_model_are_fedavg_of_three_loops(tmp_path: Path) -> None:
    phones = {"count": 3, "local_steps": 2}
    optimizer = {"name": "sgd"}  # Adam divides rounding by rounding, where a gradient is hardly any
    sections = {**language("llama"), "phones": phones, "schedule": {"name": "splitfed_v1"}, "optimizer": optimizer}
    result, settings = train(settings_of(tmp_path, **sections))
    assert_close_weights(lambda: BY_SCHEDULE["fedavg"](settings, loss=next_token, b=()), result.path)


KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "used often in A": {"model": {"name": f"{NETS}:TiedAutoencoder", "cuts": CUTS, "kwargs": {"uses": 3}}},
    "C has nothing else": {"model": {"name": f"{NETS}:TiedAutoencoder", "cuts": CUTS, "kwargs": {"own": False}}},
    "the head is named first": {"model": {"name": f"{NETS}:HeadFirst", "cuts": CUTS}},
    "accumulated": {"data": {"accumulate": 2}},
}


@pytest.mark.parametrize("kind", mostly_thorough(KINDS, "used often in A", "C has nothing else"))
def test_a_model_of_ones_own_may_share_a_weight_between_a_and_c(tmp_path: Path, kind: str) -> None:
    result, settings = train(settings_of(tmp_path, **KINDS[kind]))
    assert_same_weights(BY_SCHEDULE["sequential"](settings, b=("b",)), result.path)


@pytest.mark.parametrize("name", mostly_thorough(["TiedAutoencoder", "HeadFirst"], "HeadFirst"))
def test_the_norm_of_all_gradients_has_the_shared_one_once(tmp_path: Path, name: str) -> None:
    told = {"clip_norm": 0.05, "clip": "model"}
    result, settings = train(settings_of(tmp_path, model={"name": f"{NETS}:{name}"}, optimizer=told))
    assert_same_weights(plainly(settings, "adamw", 0.05, functional.cross_entropy), result.path)


SCHEDULES = ["unsplit", "fedavg", "splitfed_v1", "splitfed_v2", "parallel"]


@pytest.mark.parametrize("stacked", [[], ["a", "b", "c"]], ids=["looped", "stacked"])
@pytest.mark.parametrize("schedule", mostly_thorough(SCHEDULES, "splitfed_v1"))
def test_in_every_schedule_it_is_one_weight(tmp_path: Path, schedule: str, stacked: list[str]) -> None:
    alone = schedule in ("unsplit", "splitfed_v2")
    if alone and stacked:
        pytest.skip("this schedule trains one phone at a time")
    phones: dict[str, Any] = {"count": 3, "local_steps": 2, **({} if alone else {"stacked": stacked, "cohort": 3})}
    result, settings = train(settings_of(tmp_path, phones=phones, schedule={"name": schedule}))
    assert settings.phones.stacked == stacked
    assert_close_weights(lambda: BY_SCHEDULE[schedule](settings, b=("b",)), result.path)


@pytest.mark.thorough
@pytest.mark.parametrize("stacked", [[], ["a", "c"]], ids=["looped", "stacked"])
def test_where_each_phone_keeps_its_own_it_keeps_one(tmp_path: Path, stacked: list[str]) -> None:
    phones = {"count": 3, "local_steps": 2, "stacked": stacked, "cohort": 3}
    result, settings = train(settings_of(tmp_path, phones=phones, schedule={"name": "splitfed_v3"}))
    _, expected = splitfed_v3(settings, b=("b",))
    for phone, model in expected.items():
        found = rs.load_model(result.path, phone=phone, trust=True).state_dict()
        own = {key: value for key, value in model.state_dict().items() if not key.startswith("b.")}
        assert all(torch.allclose(found[key], value, atol=1e-6) for key, value in own.items())


def states(path: str) -> dict[str, Any]:
    folder = sorted((Path(path) / checkpoint.FOLDER).iterdir())[-1]
    return dict(checkpoint.parts(place(folder))[1])


def test_a_resumed_run_is_the_whole_one_and_has_one_state_of_the_one_weight(tmp_path: Path) -> None:
    sections: dict[str, Any] = {"phones": {"count": 2, "local_steps": 2}, "checkpoint": {"every": 1}}
    whole, _ = train(settings_of(tmp_path / "whole", **sections, run={"rounds": 3}))
    part, _ = train(settings_of(tmp_path / "part", **sections, run={"rounds": 1}))
    again, _ = train(settings_of(tmp_path / "part", **sections, run={"rounds": 3, "resume": "auto"}))
    files = [(Path(each.path) / "model.safetensors").read_bytes() for each in (whole, again)]
    assert part.path == again.path and files[0] == files[1]
    one, other = states(whole.path), states(again.path)
    assert one["c"].keys() == {"weights/out", *(f"optimizer/out/{slot}" for slot in ("exp_avg", "exp_avg_sq", "step"))}
    assert "optimizer/a.weight/exp_avg" in one["a"]
    assert all(np.array_equal(one[name][key], other[name][key]) for name in one for key in one[name])


def test_it_crosses_once_and_the_average_of_weights_has_it_under_both_names(tmp_path: Path) -> None:
    sections: dict[str, Any] = {
        "optimizer": {"name": "sgd", "ema_decay": 0.5},
        "schedule": {"name": "splitfed_v1"},
        "phones": {"count": 2, "local_steps": 1},
    }
    tied, settings = train(settings_of(tmp_path, **sections, model={"name": f"{NETS}:HeadFirst"}))
    for name in ("model.safetensors", "model_without_ema.safetensors"):
        each = load_file(Path(tied.path) / name)
        assert each["head.weight"].equal(each["embed.weight"])
    apart, _ = train(settings_of(tmp_path / "apart", **sections, model={"name": f"{NETS}:HeadApart"}))
    found = [result.metrics_dataframe["bytes_weights"] for result in (apart, tied)]
    down_and_up = 2 * settings.phones.count
    assert (found[0] - found[1]).tolist() == [down_and_up * FEATURES * WIDTH * 4] * 2


@pytest.mark.parametrize("kind", [on_ray("ray")])
def test_on_ray_the_bits_are_those_of_one_process(tmp_path: Path, kind: str, request: Any) -> None:
    request.getfixturevalue("ray_session")
    sections: dict[str, Any] = {"phones": {"count": 2, "local_steps": 2}}
    here, _ = train(settings_of(tmp_path / "here", **sections))
    there, _ = train(settings_of(tmp_path / "there", **sections, cluster={"backend": kind}))
    files = [(Path(each.path) / "model.safetensors").read_bytes() for each in (here, there)]
    assert files[0] == files[1]


REFUSED: list[tuple[dict[str, Any], str]] = [
    (
        {"model": {"name": f"{NETS}:TiedAutoencoder", "cuts": CUTS, "kwargs": {"inner": True}}},
        "model.cuts: the tied weights a.weight would be in both segments A and B",
    ),
    (
        {"model": {"name": f"{NETS}:TiedAutoencoder", "cuts": ["a_act"]}},
        "model.cuts: the tied weights a.weight would be in both segments A and B",
    ),
    (
        {"model": {"name": f"{NETS}:TiedAutoencoder", "cuts": CUTS, "freeze": ["a"]}},
        "model.freeze: can't contain a alone, because a weight is in both A and C (a.weight)",
    ),
    (
        {"phones": {"count": 3, "cohort": 3, "stacked": ["a", "b"]}, "schedule": {"name": "splitfed_v1"}},
        "phones.stacked: can't contain a alone, because a weight is in both A and C (a.weight)",
    ),
    (
        {"phones": {"count": 2, "remote": 1}, "schedule": {"name": "splitfed_v1"}, "optimizer": {"name": "sgd"}},
        "model.cuts: A and C share a weight (a.weight in C), which devices would have twice",
    ),
]


@pytest.mark.parametrize(("sections", "said"), REFUSED)
def test_across_the_servers_border_and_at_one_end_alone_it_is_refused(
    tmp_path: Path, sections: dict[str, Any], said: str
) -> None:
    with pytest.raises(rs.SettingsError) as caught:
        rs.fit(settings_of(tmp_path, **sections), callbacks=[])
    assert str(caught.value).startswith(said)
