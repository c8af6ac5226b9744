"""Adapters beside a frozen base, when actors die: the base is made anew, and the bytes are the undisturbed run's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import ray_split as rs
from actors.inprocess import connect
from ray_split.preparation.prepare import Prepared, prepare
from tests.failures.test_faults import Killer, contents, fit
from tests.failures.test_kills import ROUNDS
from tests.failures.test_kills import Killer as ProcessKiller
from tests.runs.equality.test_same_bytes import rows, timeless

pytest.importorskip("transformers", reason="transformers isn't installed")
pytest.importorskip("peft", reason="peft isn't installed")

TINY = {
    "model_type": "llama", "hidden_size": 8, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 12,
    "vocab_size": 61, "tie_word_embeddings": True,
}  # fmt: skip
OPTIMIZERS = {"sgd": {"lr": 0.1, "momentum": 0.9}, "adamw": {"name": "adamw", "lr": 0.01}}
SCHEDULES = {"sequential": {}, "splitfed_v1": {"cohort": 2}, "splitfed_v3": {"cohort": 2, "held_out": 0.2}}


def config(path: Path, name: str, schedule: str, optimizer: str, **sections: Any) -> rs.Config:
    """Three phones with one or two batches of tokens each."""
    return rs.Config(
        model={"name": "hf-config:" + json.dumps(TINY), "lora": {"r": 2, "dropout": 0.1}},
        data={"name": "tests.runs.language.test_adapters:next_tokens", "batch_size": 10, "val_fraction": 0.2},
        task={"loss": "token_cross_entropy"}, schedule={"name": schedule}, optimizer=OPTIMIZERS[optimizer],
        phones={"count": 3, **SCHEDULES[schedule]},
        **{
            "cluster": {"backend": "inprocess", "client_actors": 2}, "checkpoint": {"every": 2},
            "run": {"storage_path": str(path), "name": name, "rounds": 2}, **sections,
        },
    )  # fmt: skip


def prepared(path: Path, schedule: str, optimizer: str) -> Prepared:
    found = prepare(config(path, "run", schedule, optimizer))
    return found._replace(settings=connect(found.settings.cluster).resolve(found.settings))


CASES = [("splitfed_v1", "adamw"), ("sequential", "sgd"), ("splitfed_v1", "sgd"), ("sequential", "adamw"),
         ("splitfed_v3", "adamw")]  # fmt: skip


@pytest.mark.parametrize(
    ("every", "schedule", "optimizer"),
    [
        *(pytest.param(23, *case, marks=pytest.mark.thorough) for case in CASES[:2]),
        *(pytest.param(1, *case, marks=pytest.mark.slow) for case in CASES),
    ],
)
def test_a_client_or_the_server_may_die_at_any_call_and_the_adapters_are_the_same(
    tmp_path: Path, schedule: str, optimizer: str, every: int
) -> None:
    what, watched = prepared(tmp_path, schedule, optimizer), Killer(-1, False)
    lines, left, _ = fit(what, tmp_path / "undisturbed", watched)
    assert len(watched.calls) > 30
    assert {name.partition(".")[0].rstrip("0123456789 ") for name in watched.calls} >= {"client", "server"}
    for at, call in list(enumerate(watched.calls))[3::every]:
        assert fit(what, tmp_path / f"at_{at}", Killer(at, done=at % 2 == 0)) == (lines, left, 1), (at, call)


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
@pytest.mark.parametrize("schedule", ["splitfed_v1", "sequential"])
def test_killed_processes_leave_the_bytes_of_the_undisturbed_run(
    ray_session: Any, tmp_path: Path, schedule: str
) -> None:
    def run(name: str, backend: str) -> rs.Config:
        told = {"storage_path": str(tmp_path), "name": name, "rounds": ROUNDS, "max_failures": -1}
        return config(tmp_path, name, schedule, "adamw", cluster={"backend": backend, "client_actors": 2}, run=told)

    whole = rs.fit(run("whole", "inprocess"), callbacks=[])
    killer = ProcessKiller(seed=1, kills=3)
    result = rs.fit(run("killed", "ray"), callbacks=[killer])
    print(f"\n{schedule}: killed {killer.killed}; replaced {killer.lost}")
    assert killer.lost and result.metrics["recoveries"] == len(killer.lost)
    assert dict(contents(Path(result.path))) == dict(contents(Path(whole.path)))
    assert "adapter" in dict(contents(Path(whole.path)))
    assert [timeless(row) for row in rows(result.path)] == [timeless(row) for row in rows(whole.path)]
