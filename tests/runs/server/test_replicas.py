"""Replicas of the server: the same bytes where each phone has its own B, and a plain reference where it has not."""

from __future__ import annotations

import copy
import io
import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import ray_split as rs
from actors.inprocess import LocalHandle
from ray_split.callbacks import PlainProgress
from ray_split.preparation.prepare import prepare
from tests import reference
from tests.conftest import alive_actors
from tests.reference import Training, assert_close_weights
from tests.runs.equality.test_schedules import ADAM, MOMENTUM, OPTIMIZERS, SGD, model_bytes
from tests.tiers import mostly_thorough, thorough

DATA = {"name": "synthetic", "kwargs": {"samples": 120, "shape": [4], "num_classes": 3}, "batch_size": 4}
UNEVEN = {**DATA, "partition": {"name": "dirichlet", "alpha": 1.0}}
BATCHNORM = {"name": "tests.nets:three_with_batchnorm"}
PHONES = {"count": 7, "cohort": 1}
RUNS = {
    "splitfed_v1": {},
    "splitfed_v1 single split": {"model": {"name": "tests.nets:two_linear"}},
    "splitfed_v1 cohorts": {"phones": {"count": 7, "cohort": 2}},
    "splitfed_v1 batchnorm": {"model": BATCHNORM, "data": DATA, "phones": {"count": 6, "cohort": 1, "local_steps": 2}},
    "splitfed_v1 trimmed_mean": {"aggregator": {"name": "trimmed_mean"}},
    "splitfed_v1 norm_clipping": {"aggregator": {"name": "norm_clipping"}},
    "splitfed_v1 frozen": {"model": {"name": "tests.nets:three_linear", "freeze": ["b"]}},
    "splitfed_v3": {"data": DATA},
    "splitfed_v3 single split": {"data": DATA, "model": {"name": "tests.nets:two_linear"}},
    "splitfed_v3 batchnorm": {"model": BATCHNORM, "data": DATA, "phones": {"count": 6, "cohort": 1, "local_steps": 2}},
}


def config(path: Path, schedule: str, replicas: int, **sections: Any) -> rs.Config:
    """Two rounds on seven phones of a model as small as can be."""
    run, cluster = sections.pop("run", {}), sections.pop("cluster", {})
    values = {"model": {"name": "tests.nets:three_linear"}, "data": UNEVEN, "phones": PHONES, "optimizer": MOMENTUM}
    return rs.Config(
        **{**values, **sections},
        schedule={"name": schedule.partition(" ")[0]},
        server={"replicas": replicas, "num_gpus": 0},
        run={"storage_path": str(path), "name": f"run_{len(list(path.iterdir()))}", "rounds": 2, **run},
        cluster={"backend": "inprocess", "client_actors": 2, **cluster},
    )


def fit(path: Path, schedule: str, replicas: int, **sections: Any) -> rs.Result:
    return rs.fit(config(path, schedule, replicas, **sections), callbacks=[])


def left(result: rs.Result) -> list[bytes]:
    """The model, and what is each phone's own."""
    own = sorted((Path(result.path) / "personal").glob("*.npy"))
    return [model_bytes(result), *(path.read_bytes() for path in own)]


@pytest.mark.parametrize("run", mostly_thorough(RUNS, "splitfed_v1", "splitfed_v1 trimmed_mean", "splitfed_v3"))
@pytest.mark.few(1)
def test_where_each_phone_has_its_own_b_any_number_of_replicas_gives_the_same_bytes(tmp_path: Path, run: str) -> None:
    one, two, three, more = (fit(tmp_path, run, n, **RUNS[run]) for n in (1, 2, 3, 8))
    assert left(one) == left(two) == left(three) == left(more)
    for name in ("train_loss", "val_loss", "test_loss", "test_accuracy", "bytes_up", "bytes_down"):
        assert len({result.metrics[name] for result in (one, two, three, more)}) == 1


@pytest.mark.thorough
def test_how_many_cohorts_go_abreast_changes_nothing(tmp_path: Path) -> None:
    server = {"replicas": 2, "num_gpus": 0}
    for schedule in ("splitfed_v1", "parallel"):
        base, found = config(tmp_path, schedule, 2), set()
        for lanes in (1, 2, 8):
            named = base.with_values(server={**server, "lanes": lanes}, run={"name": f"{schedule}_{lanes}"})
            found.add(model_bytes(rs.fit(named, callbacks=[])))
        assert len(found) == 1


@pytest.mark.thorough
def test_the_number_of_clients_changes_nothing(tmp_path: Path) -> None:
    for schedule in ("splitfed_v1", "splitfed_v2", "parallel"):
        runs = [fit(tmp_path, schedule, 2, cluster={"client_actors": n}) for n in (1, 3)]
        assert len({model_bytes(result) for result in runs}) == 1


def averaging(settings: rs.Config) -> nn.Module:
    """V2, or the parallel schedule: each replica's phones train a B of theirs; B and its optimizer are averaged."""
    run, stream, memory = Training(settings), prepare(settings).stream, {}
    run.b = ("b",)
    for round, draws in run.rounds.items():
        turns = stream.cohorts(round) if settings.schedule.name == "parallel" else [(p,) for p in stream.phones(round)]
        dealt = [
            [p for turn in turns[r :: settings.server.replicas] for p in turn] for r in range(settings.server.replicas)
        ]
        shares = [[draw for draw in draws if draw.phone in phones] for phones in dealt if phones]
        trained = [alone(settings, run, share, memory) for share in shares]
        samples = [sum(reference._samples(share)) for share in shares]
        memory = mean_of_optimizers([middle for _, _, middle in trained], [n / sum(samples) for n in samples])
        copies = {phone: model for own, _, _ in trained for phone, model in own.items()}
        reference._load_mean(run.model, [b for _, b, _ in trained], samples, only=run.b)
        ends = [copies[phone] for phone in sorted(copies)]
        reference._load_mean(run.model, ends, reference._samples(draws), skip=run.b)
    return run.model


def alone(settings: rs.Config, run: Training, draws: list[rs.Draw], memory: dict[int, Any]) -> tuple[Any, Any, Any]:
    """One replica's round: its phones' models, the one whose B they shared, and B's optimizer."""
    model = copy.deepcopy(run.model)
    middle = run.optimizer(reference._of(model, run.b))
    middle.load_state_dict({**middle.state_dict(), "state": copy.deepcopy(memory)})
    copies = {phone: reference._sharing(model, run.b) for phone in reference._phones(draws)}
    ends = {p: run.optimizer(reference._of(m, run.b, others=True)) for p, m in copies.items()}
    together = settings.schedule.name == "parallel"
    steps = [[d for d in draws if d.step == step] for step in range(1 + max(draw.step for draw in draws))]
    for now in steps if together else [[draw] for draw in draws]:
        total, gradients = sum(len(draw.indices) for draw in now), [torch.zeros_like(p) for p in middle_of(model, run)]
        for draw in now:
            middle.zero_grad()
            ends[draw.phone].zero_grad()
            run.loss(copies[draw.phone], draw).backward()
            ends[draw.phone].step()
            for gradient, parameter in zip(gradients, middle_of(model, run), strict=True):
                gradient += parameter.grad * (len(draw.indices) / total)
        for gradient, parameter in zip(gradients, middle_of(model, run), strict=True):
            parameter.grad = gradient
        middle.step()
    return copies, model, middle


def middle_of(model: nn.Module, run: Training) -> list[nn.Parameter]:
    return reference._of(model, run.b)


def mean_of_optimizers(optimizers: Sequence[torch.optim.Optimizer], shares: list[float]) -> dict[int, Any]:
    states = [optimizer.state_dict()["state"] for optimizer in optimizers]
    mean: dict[int, Any] = {}
    for parameter, slots in states[0].items():
        each = {slot: [state[parameter][slot] for state in states] for slot in slots}
        mean[parameter] = {
            slot: max(values) if slot == "step" else sum(v * s for v, s in zip(values, shares, strict=True))
            for slot, values in each.items()
        }
    return mean


@pytest.mark.few(thorough=3)
@pytest.mark.parametrize("optimizer", mostly_thorough([SGD, MOMENTUM, ADAM], ADAM), ids=OPTIMIZERS)
@pytest.mark.parametrize("replicas", mostly_thorough([2, 3, 5], 5))
@pytest.mark.parametrize("schedule", ["splitfed_v2", "parallel"])
def test_replicas_train_a_b_of_their_own_and_average_it_with_its_optimizer(
    tmp_path: Path, schedule: str, replicas: int, optimizer: dict[str, Any]
) -> None:
    phones = {"count": 7, "per_round": 4, "cohort": 1}  # of five replicas one is idle
    settings = config(tmp_path, schedule, replicas, phones=phones, optimizer=optimizer, run={"rounds": 3})
    result = rs.fit(settings, callbacks=[])
    assert_close_weights(lambda: averaging(settings), result.path)
    assert result.metrics["server_replicas"] == replicas


def test_in_parallel_replicas_are_dealt_cohorts(tmp_path: Path) -> None:
    settings = config(tmp_path, "parallel", 2, phones={"count": 7, "cohort": 2})
    assert_close_weights(lambda: averaging(settings), rs.fit(settings, callbacks=[]).path)


def test_batchnorm_statistics_of_b_are_averaged_like_weights(tmp_path: Path) -> None:
    phones = {"count": 5, "cohort": 1, "local_steps": 2}
    settings = config(tmp_path, "splitfed_v2", 2, model=BATCHNORM, data=DATA, phones=phones)
    trained = rs.fit(settings, callbacks=[])
    assert_close_weights(lambda: averaging(settings), trained.path)
    # Three phones with two steps at one replica, and then, from the largest count, again.
    assert int(rs.load_model(trained.path, trust=True).state_dict()["b.0.num_batches_tracked"]) == 12


def test_where_all_are_served_by_one_the_others_change_nothing(tmp_path: Path) -> None:
    for schedule in ("splitfed_v2", "parallel"):
        phones = {"count": 1, "cohort": 1, "local_steps": 3}
        one, three = (fit(tmp_path, schedule, n, data=DATA, phones=phones) for n in (1, 3))
        assert model_bytes(one) == model_bytes(three)


@pytest.mark.parametrize("schedule", ["sequential", "unsplit", "fedavg"])
def test_a_schedule_that_has_no_use_for_replicas_refuses_them(tmp_path: Path, schedule: str) -> None:
    with pytest.raises(
        rs.SettingsError, match=(rf"server\.replicas: must be 1 with " rf"schedule\.name {schedule}, .*, not 2\.")
    ):
        fit(tmp_path, schedule, 2)
    assert not list(tmp_path.iterdir())
    with pytest.raises(rs.SettingsError, match=r"server\.replicas: must be at least 1, not 0"):
        fit(tmp_path, schedule, 0)


def test_every_replica_serves_and_evaluates_its_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: set[tuple[str, str]] = set()
    original = LocalHandle.call

    def watched(handle: LocalHandle, name: str, arguments: list[Any]) -> Any:
        calls.add((handle.name, name))
        return original(handle, name, arguments)

    monkeypatch.setattr(LocalHandle, "call", watched)
    for schedule in ("splitfed_v1", "splitfed_v2", "parallel"):
        calls.clear()
        fit(tmp_path, schedule, 2, data={**DATA, "eval_batch_size": 6})
        servers = {name: {called for who, called in calls if who == name} for name in ("server 0", "server 1")}
        assert all({"load", "forward", "evaluate"} <= called for called in servers.values())
        assert "server" not in {name for name, _ in calls}


def test_a_run_may_be_resumed_with_other_replicas_where_they_give_the_same_bytes(tmp_path: Path) -> None:
    def again(result: rs.Result, schedule: str, replicas: int) -> rs.Result:
        return fit(tmp_path, schedule, replicas, run={"name": Path(result.path).name, "rounds": 3, "resume": "auto"})

    whole = fit(tmp_path, "splitfed_v1", 1, run={"rounds": 3})
    assert model_bytes(again(fit(tmp_path, "splitfed_v1", 1), "splitfed_v1", 2)) == model_bytes(whole)
    with pytest.raises(rs.SettingsError, match=r"server.replicas was 1"):
        again(fit(tmp_path, "splitfed_v2", 1), "splitfed_v2", 2)


def test_the_replicas_are_told_of(tmp_path: Path) -> None:
    out = io.StringIO()
    result = rs.fit(config(tmp_path, "parallel", 2), callbacks=[PlainProgress(out)])
    assert json.loads((Path(result.path) / "summary.json").read_text())["server_replicas"] == 2
    assert "server 0, server 1, fed server" in out.getvalue()
    assert "server replicas" in out.getvalue()


@pytest.mark.parametrize("schedule", [pytest.param("splitfed_v1", marks=pytest.mark.slow), *thorough("splitfed_v2")])
def test_on_ray_any_replica_may_die_and_the_bytes_are_those_of_this_process(
    tmp_path: Path, ray_session: object, schedule: str
) -> None:
    class Kill(rs.Callback):
        where: list[str]
        recovered: list[str] = []  # noqa: RUF012

        def on_run_start(self, settings: rs.Config, where: list[str], first_round: int) -> None:
            self.where, self.recovered = where, []

        def on_round_end(self, row: dict[str, Any]) -> None:
            if row["round"] == 0:
                os.kill(next(actor.pid for actor in alive_actors() if actor.class_name == "Server"), signal.SIGKILL)

        def on_recovery(self, round: int, lost: list[str]) -> None:
            self.recovered += lost

    seen = Kill()
    local = fit(tmp_path, schedule, 2)
    remote = rs.fit(config(tmp_path, schedule, 2, cluster={"backend": "ray"}), callbacks=[seen])
    assert model_bytes(local) == model_bytes(remote)
    assert local.metrics["test_loss"] == remote.metrics["test_loss"]
    assert len(seen.recovered) == 1 and seen.recovered[0] in ("server 0", "server 1")
    assert all(f"server {i} on CPU" in seen.where[0] for i in (0, 1))
