"""FedProx, SCAFFOLD, FedDyn and the server optimizers, in whole runs, against plain references in float64."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ray_split as rs
from actors.fed_server import FedServer
from ray_split.algorithms.server_side import ServerSide
from ray_split.command_line import training as command_line
from ray_split.messages.state import Closed
from ray_split.messages.turn import Turn
from ray_split.messages.weight_checks import Expected
from tests import algorithms_reference as papers
from tests.algorithms_reference import FedAvg
from tests.test_docs import DOCS, blocks, command
from tests.tiers import thorough

LR = 0.1
DATA = {
    "name": "synthetic", "kwargs": {"samples": 80, "shape": [4], "num_classes": 3}, "batch_size": 4,
    "partition": {"name": "dirichlet", "alpha": 1.0},
}  # fmt: skip
ADAPTIVE = {"beta_1": 0.5, "beta_2": 0.9, "tau": 0.01}
METHODS: dict[str, tuple[dict[str, Any], type[FedAvg], dict[str, Any]]] = {
    "fedprox": ({"algorithm": {"name": "fedprox", "kwargs": {"mu": 0.7}}}, papers.FedProx, {"mu": 0.7}),
    "scaffold": ({"algorithm": {"name": "scaffold"}}, papers.Scaffold, {}),
    "feddyn": ({"algorithm": {"name": "feddyn", "kwargs": {"alpha": 0.3}}}, papers.FedDyn, {"alpha": 0.3}),
    "fedavgm": (
        {"server_optimizer": {"name": "fedavgm", "lr": 0.8, "kwargs": {"momentum": 0.6}}},
        papers.FedAvgM, {"lr": 0.8, "momentum": 0.6},
    ),
    "fedadam": (
        {"server_optimizer": {"name": "fedadam", "lr": 0.05, "kwargs": ADAPTIVE}},
        papers.Adaptive, {"second": "fedadam", "lr": 0.05, **ADAPTIVE},
    ),
    "fedyogi": (
        {"server_optimizer": {"name": "fedyogi", "lr": 0.05, "kwargs": ADAPTIVE}},
        papers.Adaptive, {"second": "fedyogi", "lr": 0.05, **ADAPTIVE},
    ),
    "fedadagrad": (
        {"server_optimizer": {"name": "fedadagrad", "lr": 0.05, "kwargs": {"tau": 0.01}}},
        papers.Adaptive, {"second": "fedadagrad", "lr": 0.05, "beta_1": 0.0, "tau": 0.01},
    ),
}  # fmt: skip
SOME_DROP_OUT = {"per_round": 5, "dropout": 0.2}


def fit(path: Path, schedule: str, method: str | None = None, **sections: Any) -> rs.Result:
    """Four rounds on seven uneven phones, of a model in float64."""
    named = METHODS[method][0] if method else {}
    run = {"storage_path": str(path), "name": str(len(list(path.iterdir()))), "rounds": 4, "eval_every": 4}
    settings = rs.Config(
        model=sections.pop("model", {"name": "tests.algorithms_reference:Net", "cuts": ["a", "b"]}),
        data=DATA, schedule={"name": schedule}, optimizer={"lr": LR, **sections.pop("optimizer", {})},
        phones={"count": 7, **sections.pop("phones", {})},
        cluster={"backend": "inprocess", **sections.pop("cluster", {})},
        run={**run, **sections.pop("run", {})}, **{**named, **sections},
    )  # fmt: skip
    return rs.fit(settings, callbacks=[])


def settings_of(result: rs.Result) -> rs.Config:
    return rs.Config.from_yaml(Path(result.path) / "config.yaml")


def model_bytes(result: rs.Result) -> bytes:
    return (Path(result.path) / "model.safetensors").read_bytes()


def left(result: rs.Result) -> dict[str, bytes]:
    """The model, and the last checkpoint with all that is remembered."""
    last = max(Path(result.path).glob("checkpoints/round_*"))
    return {"model": model_bytes(result), **{file.name: file.read_bytes() for file in last.glob("*.safetensors")}}


OFTEN = [
    ("splitfed_v1", "scaffold"), ("splitfed_v2", "scaffold"), ("splitfed_v3", "feddyn"), ("parallel", "fedprox"),
    ("fedavg", "fedyogi"),
]  # fmt: skip
EVERY = [(schedule, method) for schedule in papers.CORRECTED for method in METHODS]


@pytest.mark.parametrize("cohort", [3, *thorough(1)], ids=["stacked", "looped"])
@pytest.mark.parametrize(("schedule", "method"), [*OFTEN, *thorough(*[each for each in EVERY if each not in OFTEN])])
@pytest.mark.few(thorough=5)
def test_what_its_paper_writes_where_some_take_no_part_and_some_drop_out(
    tmp_path: Path, schedule: str, method: str, cohort: int
) -> None:
    stacked = {"cohort": cohort, "stacked": ["a", "b", "c"] if cohort > 1 else []}
    phones = {} if schedule == "splitfed_v2" else stacked  # there they train one by one
    result = fit(tmp_path, schedule, method, phones={**SOME_DROP_OUT, **phones})
    expected = papers.trained(settings_of(result), METHODS[method][1](**METHODS[method][2]))
    found = rs.load_model(result.path, trust=True).state_dict()
    for key, weight in expected.items():
        if schedule != "splitfed_v3" or key[0] == "b":
            assert torch.allclose(found[key], weight, rtol=1e-10, atol=1e-10), (key, found[key] - weight)


@pytest.mark.parametrize("method", ["scaffold", *thorough("fedprox", "feddyn")])
@pytest.mark.parametrize("schedule", ["splitfed_v1", *thorough("fedavg")])
def test_rates_that_have_a_schedule_are_added_up_and_corrections_come_before_clipping(
    tmp_path: Path, schedule: str, method: str
) -> None:
    halved = {"name": "ExponentialLR", "kwargs": {"gamma": 0.5}, "per": "round"}
    optimizer = {"schedule": halved, "a": {"lr": 0.3}, "clip_norm": 0.4}
    phones = {"cohort": 3, "stacked": ["a", "b"], **SOME_DROP_OUT}
    result = fit(tmp_path, schedule, method, phones=phones, optimizer=optimizer)

    def rate(key: str, number: int) -> float:
        return float((0.3 if key[0] == "a" else LR) * 0.5**number)

    expected = papers.trained(settings_of(result), METHODS[method][1](**METHODS[method][2]), rate, 0.4)
    found = rs.load_model(result.path, trust=True).state_dict()
    for key, weight in expected.items():
        assert torch.allclose(found[key], weight, rtol=1e-10, atol=1e-10), (key, found[key] - weight)


NOTHING: dict[str, dict[str, Any]] = {
    "fedprox": {"algorithm": {"name": "fedprox", "kwargs": {"mu": 0.0}}},
    "feddyn": {"algorithm": {"name": "feddyn", "kwargs": {"alpha": 0}}},
    "fedavgm": {"server_optimizer": {"name": "fedavgm", "lr": 1.0, "kwargs": {"momentum": 0.0}}},
}


@pytest.mark.parametrize("schedule", ["splitfed_v1", *thorough("fedavg", "splitfed_v2", "splitfed_v3", "parallel")])
def test_with_a_coefficient_of_nothing_the_bytes_are_those_without(tmp_path: Path, schedule: str) -> None:
    cohort = {} if schedule == "splitfed_v2" else {"cohort": 3}
    phones, single = {**cohort, **SOME_DROP_OUT}, {"name": "tests.nets:three_linear", "cuts": None}
    plain = fit(tmp_path, schedule, phones=phones, model=single)
    for sections in NOTHING.values():
        assert left(fit(tmp_path, schedule, phones=phones, model=single, **sections)).items() >= left(plain).items()


SAME = [
    ("splitfed_v1", "scaffold"),
    *thorough(("splitfed_v3", "feddyn"), ("fedavg", "fedadam"), ("parallel", "scaffold")),
]


@pytest.mark.thorough
@pytest.mark.parametrize(("schedule", "method"), SAME)
def test_resumed_on_more_clients_and_replicas_it_leaves_the_same_bytes(
    tmp_path: Path, schedule: str, method: str
) -> None:
    phones = {"cohort": 2, **SOME_DROP_OUT}
    at_once = fit(tmp_path, schedule, method, phones=phones)
    stopped = fit(tmp_path, schedule, method, phones=phones, run={"rounds": 2})
    several = {"server": {"replicas": 2}} if schedule in ("splitfed_v1", "splitfed_v3") else {}
    other = rs.fit(settings_of(stopped).with_values(run={"rounds": 4, "resume": "auto"}), callbacks=[])
    assert left(other) == left(at_once)
    spread = fit(tmp_path, schedule, method, phones=phones, cluster={"client_actors": 3}, **several)
    assert left(spread) == left(at_once)


@pytest.mark.thorough
def test_on_ray_it_leaves_the_same_bytes(tmp_path: Path, ray_session: object) -> None:
    phones, server = {"cohort": 2, **SOME_DROP_OUT}, {"replicas": 2, "num_gpus": 0}
    also = {"server_optimizer": {"name": "fedadam"}, "server": server}
    here, remote = (
        fit(tmp_path, "splitfed_v1", "scaffold", phones=phones, cluster=cluster, **also)
        for cluster in ({"client_actors": 2}, {"client_actors": 1, "backend": "ray"})
    )
    assert left(remote) == left(here)


def test_what_crosses_for_scaffold_is_counted(tmp_path: Path) -> None:
    """A and C down and up for each phone, and B once each way; the control variates are as large as the weights.

    Those of A and C that are shared cross as the weights do; of B's copies the phones' own do too.
    """
    own = {"local_steps": 1, "count": 7}
    plain, scaffold = (
        [
            row["bytes_weights"]
            for row in fit(tmp_path, "splitfed_v1", method, phones=own).metrics_dataframe.to_dict("records")
        ]
        for method in (None, "scaffold")
    )
    ends, middle = 8 * (4 * 6 + 6 + 5 * 3 + 3), 8 * (6 * 5 + 5)
    assert plain == [7 * 2 * ends + 2 * middle] * 4
    assert scaffold == [2 * 7 * 2 * ends + 2 * middle + 7 * 2 * 2 * middle] * 4


def test_a_round_that_nobody_finishes_moves_nothing(tmp_path: Path) -> None:
    weights = {"weights/x": np.array([1.0, 2.0])}
    expected = Expected({"a": frozenset(weights)}, frozenset(), 1e9, frozenset(weights))
    settings = rs.Config(server_optimizer={"name": "fedavgm", "kwargs": {"momentum": 0.5}})
    side = partial(ServerSide, settings, {"a": frozenset(weights)})
    fed_server = FedServer(tmp_path, None, 2, expected, side=side)
    fed_server.commit(0, {"a": weights}, {})

    def after(round: int, mean: list[float], phones: tuple[int, ...]) -> list[float]:
        turn = Turn(round - 1, 0, (), -1)
        if phones:
            fed_server.collect(turn, [phones], Closed(phones, {"a": {"weights/x": np.array(mean)}}, {}, 0))
        fed_server.commit(round, None, None, phones)
        return fed_server.client_state(turn._replace(round=round))["a"]["weights/x"].tolist()

    assert after(1, [2.0, 2.0], (0,)) == [2.0, 2.0]
    assert after(2, [], ()) == [2.0, 2.0]
    assert after(3, [2.0, 3.0], (1,)) == [2.5, 3.0]


def test_a_server_step_beyond_all_bounds_is_told_of_and_no_phone_is_blamed(tmp_path: Path) -> None:
    said = r"after the server's step part A .*; try a lower server_optimizer.lr"
    with pytest.raises(rs.RunFailedError, match=said):
        fit(
            tmp_path, "splitfed_v1", server_optimizer={"name": "fedavgm", "lr": 1e12},
            model={"name": "tests.nets:three_linear"}, run={"on_bad_phone": "skip", "rounds": 2},
        )  # fmt: skip


def my_prox(gradients: dict, weights: dict, start: dict, pull: float = 0.0) -> dict:
    """FedProx as somebody writes it, who knows of one phone's tensors alone."""
    assert all(tensor.dim() <= 2 for tensor in weights.values())
    return {name: gradient + pull * (weights[name] - start[name]) for name, gradient in gradients.items()}


def test_a_hook_of_the_users_is_served_as_ours_but_one_phone_at_a_time(tmp_path: Path) -> None:
    ours = fit(tmp_path, "splitfed_v1", "fedprox", phones={"cohort": 3, "stacked": []}, run={"rounds": 2})
    named = {"name": "tests.runs.optimizing.test_algorithms:my_prox", "kwargs": {"pull": 0.7}}
    mine = fit(tmp_path, "splitfed_v1", algorithm=named, phones={"cohort": 3}, run={"rounds": 2})
    assert settings_of(mine).phones.stacked == []
    assert model_bytes(mine) == model_bytes(ours)
    with pytest.raises(
        rs.SettingsError,
        match=(r"phones\.stacked: can't contain a, because .*my_prox " r"corrects phones one by one\. Remove a from"),
    ):
        fit(tmp_path, "splitfed_v1", algorithm=named, phones={"cohort": 3, "stacked": ["a", "b", "c"]})


def test_the_page_s_own_methods_are_trained_by_its_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_methods.py").write_text(blocks(DOCS / "algorithms.md")[0])
    monkeypatch.syspath_prepend(str(tmp_path))
    arguments = command(DOCS / "algorithms.md", "train --schedule.name splitfed_v1 --algorithm.name my_methods")
    settings, _ = command_line.settings_of(arguments[1:])
    assert settings.algorithm.kwargs == {"mu": 0.05} and settings.server_optimizer.kwargs == {"momentum": 0.3}
    result = fit(
        tmp_path, settings.schedule.name, algorithm=settings.algorithm.model_dump(),
        server_optimizer=settings.server_optimizer.model_dump(), run={"rounds": 2},
    )  # fmt: skip
    assert "server_optimizer.safetensors" in left(result)
