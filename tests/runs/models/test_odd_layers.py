"""Layers that are hard to do for many phones at once, against the untouched model: right in every schedule.

Stacked where torch.func.vmap does them right, which is tried before the run; looped where not.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import ray_split as rs
from ray_split.preparation.prepare import prepare
from tests import reference
from tests.odd_layers import LAYERS
from tests.reference import assert_close_weights, assert_same_weights
from tests.tiers import mostly_thorough, thorough

SYNTHETIC = {"samples": 150, "shape": [1, 8, 8], "num_classes": 4}
DATA: dict[str, Any] = {"name": "synthetic", "kwargs": SYNTHETIC, "batch_size": 8}
UNEVEN = {**DATA, "partition": {"name": "dirichlet", "alpha": 2.0, "min_samples": 9}}
STACKED = (
    "assigned", "slowly", "in_place", "counted", "counted_anew", "always_counted", "codebook", "in_place_on_input",
    "centred", "cumulated", "spectral", "dropout", "inplace_dropout", "instance_norm", "tracked_norm", "batch_norm",
)  # fmt: skip
MIXING = ("mixed_up", "rrelu", "centred", "cumulated", "branching", "item", "batch_norm")
OFTEN = (
    "assigned", "counted", "codebook", "clamped", "own_gradient", "mixed_up", "spectral", "dropout_and_noise",
    "spectral_norm", "inplace_dropout",
)  # fmt: skip
FEW = ("counted", "spectral", "dropout_and_noise")
MOVING = (
    "assigned", "slowly", "in_place", "counted", "counted_anew", "always_counted", "codebook", "clamped",
    "spectral_norm", "tracked_norm",
)  # fmt: skip


def settings_of(path: Path, name: str, layer: str, place: str = "b", **sections: Any) -> rs.Config:
    return rs.Config(
        model={"name": "tests.odd_layers:model", "kwargs": {"layer": layer, "place": place}, "cuts": "a,b"},
        data=sections.pop("data", UNEVEN), schedule={"name": name, **sections.pop("schedule", {})},
        optimizer={"lr": 0.05}, phones={"count": 3, **sections.pop("phones", {})},
        cluster={"backend": "inprocess"}, **sections,
        run={"storage_path": str(path), "name": str(len(list(path.iterdir()))), "rounds": 2, "eval_every": 2},
    )  # fmt: skip


def fit(*arguments: Any, **sections: Any) -> tuple[rs.Config, rs.Result]:
    settings = settings_of(*arguments, **sections)
    return settings, rs.fit(settings, callbacks=[])


def settled(*arguments: Any, **sections: Any) -> rs.Config:
    return prepare(settings_of(*arguments, **sections)).settings


def some(layers: Iterable[str]) -> list[Any]:
    """A few; those of each kind where thorough tests run; the others too, where slow tests do."""
    kept = [name if name in OFTEN else pytest.param(name, marks=pytest.mark.slow) for name in layers]
    return [
        pytest.param(name, marks=pytest.mark.thorough) if name in OFTEN and name not in FEW else name for name in kept
    ]


@pytest.mark.parametrize("layer", some(LAYERS))
def test_one_phone_is_the_untouched_model_bit_for_bit(tmp_path: Path, layer: str) -> None:
    for schedule in ("sequential", "splitfed_v1", "parallel"):
        settings, result = fit(tmp_path, schedule, layer, data=DATA, phones={"count": 1, "local_steps": 3})
        assert_same_weights(reference.unsplit(settings), result.path)


@pytest.mark.parametrize("layer", some(["dropout2d", "dropout_and_noise", "assigned"]))
@pytest.mark.thorough
@pytest.mark.parametrize("place", ["a", "c"])
def test_so_it_is_with_such_a_layer_in_a_or_c(tmp_path: Path, layer: str, place: str) -> None:
    for schedule in ("splitfed_v2", "splitfed_v3", "parallel", "fedavg"):
        phones = {"count": 1, "local_steps": 3, "held_out": 0.2}
        settings, result = fit(tmp_path, schedule, layer, place, data=DATA, phones=phones)
        assert_same_weights(reference.unsplit(settings), result.path)


@pytest.mark.parametrize("layer", ["assigned", *thorough("clamped", "dropout_and_noise")])
def test_sequential_over_many_phones_is_the_untouched_model_bit_for_bit(tmp_path: Path, layer: str) -> None:
    settings, result = fit(tmp_path, "sequential", layer)
    assert_same_weights(reference.unsplit(settings), result.path)


@pytest.mark.few(thorough=4)
@pytest.mark.parametrize("layer", mostly_thorough(LAYERS, *FEW, "mixed_up"))
def test_what_can_be_stacked_is_and_nothing_else(tmp_path: Path, layer: str) -> None:
    stacked = settled(tmp_path, "splitfed_v1", layer).phones.stacked
    assert stacked == (["a", "b", "c"] if layer in STACKED else ["a", "c"])


@pytest.mark.parametrize("layer", some(LAYERS))
def test_v1_is_federated_averaging_of_the_untouched_model(tmp_path: Path, layer: str) -> None:
    settings, result = fit(tmp_path, "splitfed_v1", layer)
    assert_close_weights(partial(reference.fedavg, settings), result.path, 1e-5)


@pytest.mark.parametrize("layer", some(["assigned", "in_place", "codebook", "counted", "spectral"]))
@pytest.mark.parametrize("place", ["a", pytest.param("c", marks=pytest.mark.slow)])
def test_so_it_is_in_a_and_c_and_looped(tmp_path: Path, layer: str, place: str) -> None:
    for phones in ({}, {"stacked": "", "cohort": 3}):
        settings, result = fit(tmp_path, "splitfed_v1", layer, place, phones=phones)
        assert_close_weights(partial(reference.fedavg, settings), result.path, 1e-5)


@pytest.mark.parametrize("layer", ["assigned", *thorough("dropout_and_noise", "spectral")])
def test_v2_takes_turns_on_one_b(tmp_path: Path, layer: str) -> None:
    settings, result = fit(tmp_path, "splitfed_v2", layer)
    assert_close_weights(lambda: reference.splitfed_v2(settings), result.path)


@pytest.mark.parametrize("layer", ["assigned", *thorough("spectral")])
def test_v3_keeps_what_a_and_c_hold_with_their_phone(tmp_path: Path, layer: str) -> None:
    settings, result = fit(tmp_path, "splitfed_v3", layer, phones={"held_out": 0.2})
    assert_close_weights(lambda: reference.splitfed_v3(settings)[0], result.path, 1e-5, only=("b",))
    settings, result = fit(tmp_path, "splitfed_v3", layer, "a", phones={"held_out": 0.2})
    _, personal = reference.splitfed_v3(settings)
    for phone, expected in personal.items():
        own = rs.load_model(result.path, phone=phone, trust=True).state_dict()
        for key, tensor in expected.state_dict().items():
            if key.startswith("a."):
                torch.testing.assert_close(own[key], tensor, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layer", some(name for name in LAYERS if name not in ("instance_norm", "tracked_norm")))
def test_parallel_is_one_batch_where_b_mixes_samples_or_moves_and_adds_up_where_not(tmp_path: Path, layer: str) -> None:
    settings, result = fit(tmp_path, "parallel", layer)
    joint = layer in MIXING + MOVING
    kwargs = rs.Config.from_yaml(Path(result.path) / "config.yaml").schedule.kwargs
    assert kwargs["batch"] == ("joint" if joint else "accumulated")
    expected = reference.joint if joint else reference.parallel
    assert_close_weights(lambda: expected(settings), result.path, 1e-5)


@pytest.mark.parametrize("layer", ["counted", *thorough("counted_anew")])
def test_what_b_counts_it_counts_once_a_step_of_a_joint_batch_and_once_a_phone_of_an_accumulated_one(
    tmp_path: Path, layer: str
) -> None:
    for batch, cohort in (("joint", 2), ("accumulated", 3), ("accumulated", 2)):
        schedule = {"kwargs": {"batch": batch}}
        settings, result = fit(tmp_path, "parallel", layer, schedule=schedule, phones={"cohort": cohort})
        draws = [(draw.round, draw.step) for draw in rs.stream(settings)]
        expected = len(set(draws)) if batch == "joint" else len(draws)
        assert int(rs.load_model(result.path, trust=True).state_dict()["b.steps"]) == expected
        if batch == "accumulated":
            assert "b" not in (prepare(settings).settings.phones.stacked or [])
            assert_close_weights(partial(reference.parallel, settings), result.path)


def test_one_large_batch_counts_once_too(tmp_path: Path) -> None:
    settings, result = fit(tmp_path, "parallel", "counted", phones={"local_steps": 1})
    assert int(rs.load_model(result.path, trust=True).state_dict()["b.steps"]) == settings.run.rounds


@pytest.mark.parametrize("layer", [*thorough("assigned"), "dropout_and_noise"])
@pytest.mark.parametrize("schedule", ["splitfed_v1", *thorough("parallel")])
def test_with_one_cut_too(tmp_path: Path, schedule: str, layer: str) -> None:
    model = {"name": "tests.odd_layers:model", "kwargs": {"layer": layer}, "cuts": "a"}
    settings = settings_of(tmp_path, schedule, layer).with_values(model=model, phones={"count": 1, "local_steps": 4})
    one = rs.fit(settings, callbacks=[])
    assert_same_weights(reference.unsplit(settings), one.path)
    if schedule == "parallel":
        return
    settings = settings_of(tmp_path, schedule, layer).with_values(model=model)
    assert_close_weights(lambda: reference.fedavg(settings), rs.fit(settings, callbacks=[]).path, 1e-5)


@pytest.mark.parametrize("layer", [name for name in LAYERS if name not in STACKED])
def test_a_segment_that_can_not_be_stacked_is_refused_if_it_was_asked_for(tmp_path: Path, layer: str) -> None:
    with pytest.raises(rs.SettingsError) as caught:
        settled(tmp_path, "splitfed_v1", layer, phones={"stacked": "b"})
    assert caught.value.field == "phones.stacked"
    assert str(caught.value).startswith("phones.stacked: can't contain b, because ")
    assert len(str(caught.value).splitlines()) == 1


def test_parallel_does_not_stack_a_b_that_counts_for_phones_at_once(tmp_path: Path) -> None:
    batch = {"kwargs": {"batch": "accumulated"}}
    with pytest.raises(rs.SettingsError, match="can't contain b, because stacked it computes something else"):
        settled(tmp_path, "parallel", "counted", schedule=batch, phones={"stacked": "b"})
    with pytest.raises(rs.SettingsError, match=r"mixes the samples of a batch .* \{batch: joint\}"):
        settled(tmp_path, "parallel", "assigned", schedule=batch)


@pytest.mark.parametrize("schedule", ["splitfed_v1", "parallel"])
def test_evaluating_moves_no_buffer_whoever_evaluates_and_how_much_at_once(tmp_path: Path, schedule: str) -> None:
    found = []
    for clients, batch in ((1, 7), (2, 30)):
        settings = settings_of(tmp_path, schedule, "always_counted").with_values(
            cluster={"client_actors": clients}, data={"eval_batch_size": batch}, phones={"held_out": 0.2}
        )
        found.append(rs.fit(settings, callbacks=[]).metrics)
    assert found[0]["test_accuracy"] == found[1]["test_accuracy"]
    assert found[0]["test_loss"] == pytest.approx(found[1]["test_loss"], rel=1e-6)


@pytest.mark.parametrize("cohort", [1, 3])
def test_adam_counts_the_steps_of_each_weight_where_some_batches_leave_one_out(tmp_path: Path, cohort: int) -> None:
    settings = settings_of(
        tmp_path, "splitfed_v1", "skipped", data={**DATA, "kwargs": {**DATA["kwargs"], "samples": 123}},
        phones={"cohort": cohort, "local_epochs": 2},
    ).with_values(optimizer={"name": "adam", "lr": 0.01})  # fmt: skip
    result = rs.fit(settings, callbacks=[])
    assert_close_weights(partial(reference.fedavg, settings), result.path, 1e-6)


def test_what_only_a_small_batch_does_keeps_a_segment_from_being_stacked(tmp_path: Path) -> None:
    settings, result = fit(tmp_path, "splitfed_v1", "of_small_batches")
    assert settled(tmp_path, "splitfed_v1", "of_small_batches").phones.stacked == ["a", "c"]
    assert_close_weights(partial(reference.fedavg, settings), result.path, 1e-6)


@pytest.mark.parametrize(("layer", "size"), [("of_small_batches", 16), ("bounded_bag", 8)])
def test_what_fails_only_where_phones_are_evaluated_on_their_own_is_looped_too(
    tmp_path: Path, layer: str, size: int
) -> None:
    data = {**DATA, "kwargs": {**DATA["kwargs"], "samples": 180}, "batch_size": size}
    settings, result = fit(tmp_path, "splitfed_v3", layer, data=data, phones={"held_out": 0.2, "cohort": 3})
    assert prepare(settings).settings.phones.stacked == ["a", "c"]
    assert_close_weights(lambda: reference.splitfed_v3(settings)[0], result.path, 1e-5, only=("b",))


def test_evaluating_writes_to_no_weight(tmp_path: Path) -> None:
    for schedule in ("sequential", "splitfed_v1"):
        settings = settings_of(tmp_path, schedule, "bounded")
        seldom, often = (
            rs.fit(settings.with_values(run={"eval_every": every, "name": f"{schedule}{every}"}), callbacks=[])
            for every in (2, 1)
        )
        assert_same_weights(rs.load_model(seldom.path, trust=True), often.path)
        if schedule == "sequential":
            assert_same_weights(reference.unsplit(settings), often.path)


def test_a_teacher_that_follows_later_is_handed_on_and_averages_do_not_lose_it_in_silence(tmp_path: Path) -> None:
    settings, result = fit(tmp_path, "sequential", "warmed")
    assert_same_weights(reference.unsplit(settings), result.path)
    with pytest.raises(rs.RunFailedError, match=r"b\.teacher\.weight isn't trained, and forward writes to it"):
        fit(tmp_path, "splitfed_v1", "warmed")


@pytest.mark.parametrize(
    ("optimizer", "right"), [({}, True), ({"momentum": 0.9}, False), ({"name": "adam"}, False)], ids=str
)
def test_sparse_gradients_are_for_plain_sgd(tmp_path: Path, optimizer: dict[str, Any], right: bool) -> None:
    settings = settings_of(tmp_path, "sequential", "sparse").with_values(optimizer=optimizer)
    if right:
        assert_same_weights(reference.unsplit(settings), rs.fit(settings, callbacks=[]).path)
    else:
        with pytest.raises(
            rs.SettingsError, match=r"the sparse gradients of b\.table\. Use sgd without momentum and weight decay"
        ):
            rs.fit(settings, callbacks=[])
