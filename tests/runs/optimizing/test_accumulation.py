"""Accumulated gradients: a local step of k batches is the usual loop of the untouched model, loss / k, k backwards."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import nn, optim
from torch.optim import lr_scheduler

import ray_split as rs
from actors.b_ways.in_turn import InTurn
from actors.b_ways.stepping import Stepping
from ray_split.messages.turn import Accumulation, Turn
from tests import algorithms_reference as papers
from tests import reference
from tests.reference import assert_close_weights, assert_same_weights
from tests.runs.equality.test_schedules import assert_close_personal_weights, assert_same_middle, fit, model_bytes
from tests.runs.optimizing import test_algorithms as algorithms
from tests.runs.optimizing.test_optimizers import MODELS
from tests.tiers import mostly_thorough, slow, thorough

SAID = {
    "name": "adam", "lr": 0.01, "kwargs": {"eps": 0.01}, "clip_norm": 0.1,
    "schedule": {"name": "ExponentialLR", "kwargs": {"gamma": 0.9}},
}  # fmt: skip
THREE = {"accumulate": 3, "batch_size": 16}
BATCHES = 11  # of a phone's round: the last local step is of two
EACH = {"count": 1, "held_out": 0.2, "local_epochs": 1}
FRESH = ("splitfed_v1", "splitfed_v2", "splitfed_v3", "fedavg")


def usual_loop(settings: rs.Config, rounds: int) -> nn.Module:
    """The untouched model in torch's own words: Adam, its schedule and its clipping, once for three batches."""
    run = reference.Training(settings, b=MODELS[settings.model.name][1])
    optimizer = optim.Adam(run.model.parameters(), lr=0.01, eps=0.01)
    scheduler, clipped = lr_scheduler.ExponentialLR(optimizer, gamma=0.9), 0
    for round in range(rounds):
        draws = run.rounds[round]
        for start in range(0, len(draws), 3):
            some = draws[start : start + 3]
            optimizer.zero_grad()
            for draw in some:
                (run.loss(run.model, draw) / len(some)).backward()
            clipped += int(nn.utils.clip_grad_norm_(run.model.parameters(), 0.1) > 0.1)
            optimizer.step()
            scheduler.step()
    assert len(run.rounds[0]) % 3 and clipped > 2
    return run.model


@pytest.mark.few(thorough=3)
@pytest.mark.parametrize("schedule", ["sequential", *thorough(*FRESH, "unsplit")])
@pytest.mark.parametrize("model", mostly_thorough(MODELS, "digits_cnn"))
def test_one_phone_is_the_usual_loop_bit_for_bit(tmp_path: Path, model: str, schedule: str) -> None:
    rounds = 1 if schedule in FRESH else 2
    cuts = "2,8" if "batchnorm" in model else None
    data = {**THREE, "kwargs": {}, "batch_size": 96 if schedule != "splitfed_v3" else 80}
    settings, result = fit(
        tmp_path, schedule, SAID, phones=EACH, data=data, run={"rounds": rounds}, model={"name": model, "cuts": cuts}
    )
    assert_same_weights(usual_loop(settings, rounds), result.path)


MOMENTUM = {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3}
SOME_DROP_OUT = {"dropout": 0.4}
TWO = {"accumulate": 2, "batch_size": 24}


@pytest.mark.parametrize("cuts", ["block1,hidden", *thorough("block1")])
def test_several_phones_one_after_the_other_are_the_untouched_model_where_some_drop_out_in_the_middle_of_a_step(
    tmp_path: Path, cuts: str
) -> None:
    settings, result = fit(
        tmp_path, "sequential", MOMENTUM, data=TWO, phones=SOME_DROP_OUT, model={"cuts": cuts}, run={"rounds": 3}
    )
    run = reference.Training(settings, b=reference.MIDDLE)
    last = {(draw.round, draw.phone): draw for draw in rs.stream(settings)}
    assert any(not draw.finishes and not draw.step % 2 for draw in last.values())
    assert any(draw.finishes and draw.step % 2 == 0 and run.planned(draw.phone) % 2 for draw in last.values())
    assert_same_weights(
        reference.sequential(settings, b=reference.MIDDLE if "," in cuts else reference.REST), result.path
    )


@pytest.mark.parametrize("names", ["a,b,c", *thorough("")], ids=["stacked", "looped"])
@pytest.mark.parametrize("schedule", ["splitfed_v1", *thorough("fedavg", "splitfed_v3")])
def test_phones_at_once_are_the_untouched_model_each(tmp_path: Path, schedule: str, names: str) -> None:
    phones = {"cohort": 4, "stacked": names, "held_out": 0.2 if schedule == "splitfed_v3" else 0.0, **SOME_DROP_OUT}
    settings, result = fit(tmp_path, schedule, MOMENTUM, data=TWO, phones=phones)
    assert_close_weights(lambda: reference.trained(settings), result.path)
    if schedule == "splitfed_v3":
        assert_close_personal_weights(settings, result)


def test_in_v2_a_phones_turn_is_a_local_step_with_all_its_batches(tmp_path: Path) -> None:
    settings, result = fit(tmp_path, "splitfed_v2", MOMENTUM, data=TWO, phones={"count": 3, **SOME_DROP_OUT})
    assert_same_middle(reference.splitfed_v2(settings), result)
    assert_close_weights(lambda: reference.splitfed_v2(settings), result.path)
    order = [(draw.phone, draw.step) for draw in rs.stream(settings) if draw.round == 0]
    assert all(before == (phone, step - 1) for before, (phone, step) in pairwise(order) if step % 2)


def test_two_batches_are_one_of_their_samples_where_no_layer_mixes_them(tmp_path: Path) -> None:
    told: dict[str, Any] = {"phones": {"count": 3, "local_steps": 2}, "run": {"rounds": 1}}
    many, large = (
        rs.load_model(fit(tmp_path, "sequential", data=data, **told)[1].path).state_dict()
        for data in ({"accumulate": 2, "batch_size": 8}, {"batch_size": 16})
    )
    for key, array in many.items():
        np.testing.assert_allclose(array, large[key], rtol=1e-4, atol=1e-6)


@pytest.mark.thorough
def test_any_number_of_servers_gives_the_same_bytes(tmp_path: Path) -> None:
    phones = {"cohort": 2, **SOME_DROP_OUT}
    one, two = (
        fit(tmp_path, "splitfed_v1", SAID, data=TWO, phones=phones, server={"replicas": count})[1] for count in (1, 2)
    )
    assert model_bytes(one) == model_bytes(two)


def test_local_steps_are_the_optimizers(tmp_path: Path) -> None:
    settings, _ = fit(tmp_path, "splitfed_v1", data=TWO, phones={"local_steps": 3}, run={"rounds": 1})
    assert {draw.step for draw in rs.stream(settings)} == set(range(6))


@pytest.mark.thorough
def test_stacked_phones_are_clipped_by_the_whole_norm_of_the_accumulated_gradients_as_looped_ones(
    tmp_path: Path,
) -> None:
    said = {**MOMENTUM, "clip_norm": 0.1}
    results = [
        fit(tmp_path, schedule, said, data=TWO, phones={"cohort": 4, "stacked": names, **SOME_DROP_OUT})[1]
        for schedule, names in (("splitfed_v1", ""), ("splitfed_v1", "a,b,c"), ("fedavg", ""))
    ]
    states = [rs.load_model(result.path, trust=True).state_dict() for result in results]
    for key, array in states[0].items():
        for other in states[1:]:
            np.testing.assert_allclose(array, other[key], rtol=1e-5, atol=1e-6)
    _, without = fit(tmp_path, "splitfed_v1", MOMENTUM, data=TWO, phones={"cohort": 4, **SOME_DROP_OUT})
    steps = _updates(rs.Config.from_yaml(Path(without.path) / "config.yaml"))
    for result in results[:2]:
        more = result.metrics_dataframe["bytes_up"].sum() - without.metrics_dataframe["bytes_up"].sum()
        assert more == 4 * steps  # a number for each step, not for each batch


def _updates(settings: rs.Config) -> int:
    run = reference.Training(settings)
    return sum((draw.step + 1) % 2 == 0 or draw.step + 1 == run.planned(draw.phone) for draw in rs.stream(settings))


@pytest.mark.parametrize("cohort", [3, *thorough(1)], ids=["stacked", "looped"])
@pytest.mark.parametrize(("schedule", "method"), [("splitfed_v1", "scaffold"), *thorough(("splitfed_v3", "feddyn"))])
def test_what_corrects_gradients_does_so_once_a_step(
    tmp_path: Path, schedule: str, method: str, cohort: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(algorithms, "DATA", {**algorithms.DATA, "accumulate": 2})
    phones = {**algorithms.SOME_DROP_OUT, "cohort": cohort, "stacked": ["a", "b", "c"] if cohort > 1 else []}
    result = algorithms.fit(tmp_path, schedule, method, phones=phones)
    _, kind, kwargs = algorithms.METHODS[method]
    expected = papers.trained(algorithms.settings_of(result), kind(**kwargs))
    found = rs.load_model(result.path, trust=True).state_dict()
    for key, weight in expected.items():
        if schedule != "splitfed_v3" or key[0] == "b":
            assert torch.allclose(found[key], weight, rtol=1e-10, atol=1e-10), (key, found[key] - weight)


@pytest.mark.thorough
def test_resumed_in_the_middle_and_with_other_clients_it_is_the_same_bytes(tmp_path: Path) -> None:
    for schedule, phones in (("sequential", {}), ("splitfed_v1", {"cohort": 2, "stacked": "a,b,c"})):
        told: dict[str, Any] = {"data": TWO, "phones": {"count": 5, **SOME_DROP_OUT, **phones}}
        _, whole = fit(tmp_path, schedule, SAID, **told, run={"rounds": 3})
        fit(tmp_path, schedule, SAID, **told, run={"rounds": 1, "name": schedule})
        again = {"rounds": 3, "name": schedule, "resume": "auto"}
        _, part = fit(tmp_path, schedule, SAID, **told, run=again, cluster={"client_actors": 1})
        assert model_bytes(part) == model_bytes(whole)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["splitfed_v1", *slow("sequential", "splitfed_v2")])
def test_on_ray_it_is_the_same_bytes(tmp_path: Path, ray_session: object, schedule: str) -> None:
    phones = {"count": 5, **SOME_DROP_OUT, **({"cohort": 2} if schedule == "splitfed_v1" else {})}
    here, there = (
        fit(tmp_path, schedule, SAID, data=TWO, phones=phones, cluster={"backend": backend})[1]
        for backend in ("inprocess", "ray")
    )
    assert model_bytes(there) == model_bytes(here)


def by_itself(turn: Turn, stream: Any, roles: Any) -> Any:
    """A schedule that knows nothing of it."""
    yield from ()
    return None, None


def test_where_it_makes_no_sense_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        rs.SettingsError,
        match=(r"data\.accumulate: can't be used with schedule\.name " r"parallel, .* Set data\.batch_size instead"),
    ):
        fit(tmp_path, "parallel", data=TWO)
    with pytest.raises(rs.SettingsError, match=r"data\.accumulate: .* doesn't say accumulates=True in its rs"):
        fit(tmp_path, "tests.runs.optimizing.test_accumulation:by_itself", data=TWO)


def test_of_a_b_that_all_share_a_step_that_another_phone_breaks_into_is_refused() -> None:
    way = InTurn(cast(Any, None), 0, cast(Any, None), Stepping(waits=False))
    turns = [Turn(0, 0, (phone,), 0, accumulation=Accumulation(2, (4,))) for phone in (1, 2)]
    way.begin({})
    for at in turns:
        way.admit(at, "learn")
    with pytest.raises(RuntimeError, match=r"learn of phone 1 .* step 1, .* another's was in between"):
        way.admit(_at(turns[0])(1), "learn")
    way.admit(_at(turns[0])(2), "learn")


def test_a_turn_says_who_steps_after_it_and_of_how_many_batches() -> None:
    turn = Turn(0, 0, (4, 5, 6), 0, accumulation=Accumulation(2, (5, 4, 1)))
    said = [(at.begins_update, at.updates_any, at.updating(3), at.parts(3)) for at in map(_at(turn), range(2))]
    assert said == [(True, True, [2], [2, 2, 1]), (False, True, [0, 1, 2], [2, 2, 1])]
    assert [_at(turn)(4).updating(1), _at(turn)(4).parts(1), _at(turn)(4).update] == [[0], [1], 2]
    assert not _at(turn)(2).updates_any
    assert Accumulation(2, (5, 4, 5, 3)).updates([5, 4, 3, 3]) == [3, 2, 1, 2]


def _at(turn: Turn) -> Any:
    return lambda step: turn._replace(step=step)
