"""FLOPs and bytes of an exchange, against what a run measures and against the split planner."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow.parquet
import pytest

import ray_split as rs
from ray_split.costs.position_costs import scan_of
from ray_split.costs.workload import Line, Work
from ray_split.preparation.prepare import prepare
from tests.tiers import thorough

MODELS = [
    {"name": "digits_cnn"}, {"name": "digits_cnn", "cuts": ["block1"]}, {"name": "tiny_cnn"}, {"name": "mlp"},
    {"name": "digits_cnn", "freeze": ["a"]}, {"name": "digits_cnn", "freeze": ["c"]},
]  # fmt: skip


def settings_of(model: dict[str, Any], folder: Any = "/nowhere", **more: Any) -> rs.Config:
    run = {"rounds": 1, "name": "x", "storage_path": str(folder)}
    data = {"name": "synthetic", "kwargs": {"samples": 100}, "batch_size": 8}
    phones = {"count": 3, "device": "laptop", **more.pop("phones", {})}
    return rs.Config(model=model, data=data, run=run, phones=phones, cluster={"backend": "inprocess"}, **more)


def work_of(settings: rs.Config) -> Work:
    clock = prepare(settings).clock
    assert clock is not None
    return clock.work


@pytest.mark.few(1)
@pytest.mark.parametrize("model", [*MODELS[:2], *thorough(*MODELS[2:])])
def test_bytes_are_those_that_a_real_run_counts(model: dict[str, Any], tmp_path: Any) -> None:
    settings = settings_of(model, tmp_path, schedule={"name": "splitfed_v1"})
    stream, work = prepare(settings).stream, work_of(settings)
    result = rs.fit(settings, callbacks=[])
    table = pyarrow.parquet.read_table(f"{result.path}/phones.parquet")
    sizes = np.stack([stream.batch_sizes(np.arange(3), step) for step in range(int(stream.steps(range(3)).max()))])
    up = (work.activation.at(sizes) + work.hidden_gradient.at(sizes)).sum(axis=0)
    down = (work.hidden.at(sizes) + work.activation_gradient.at(sizes)).sum(axis=0)
    assert len(set(sizes.ravel().tolist())) > 1  # a last batch is short
    assert table["bytes_up"].to_pylist() == up.tolist()
    assert table["bytes_down"].to_pylist() == down.tolist()
    assert table["bytes_weights"].to_pylist() == [work.ends.down + work.ends.up] * 3


def test_weights_that_are_handed_on_are_counted_with_what_the_optimizer_remembers(tmp_path: Any) -> None:
    optimizer = {"name": "adam", "lr": 0.001}
    settings = settings_of({"name": "digits_cnn"}, tmp_path, schedule={"name": "sequential"}, optimizer=optimizer)
    stream, work = prepare(settings).stream, work_of(settings)
    result = rs.fit(settings, callbacks=[])
    table = pyarrow.parquet.read_table(f"{result.path}/phones.parquet")
    received = dict(zip(table["phone"].to_pylist(), table["bytes_weights"].to_pylist(), strict=True))
    first, *others = stream.phones(0)
    assert received[first] == work.ends.down
    assert [received[phone] for phone in others] == [work.ends.down + work.ends.slots] * 2


def test_flops_are_the_planners() -> None:
    settings = prepare(settings_of({"name": "digits_cnn"})).settings
    scanned = scan_of(settings.model, (1, 8, 8), 8)
    first, second = ([cut in p.names for p in scanned.positions].index(True) for cut in settings.model.cuts or ())
    work, costs = work_of(settings), scanned.costs

    def per_sample(*columns: str) -> Any:
        return scanned.up_to(sum(getattr(costs, column) for column in columns)) / 8

    forward, backward, both = per_sample("forward"), per_sample("backward"), per_sample("forward", "backward")
    assert work.a_forward == Line(forward[first])
    assert work.a_backward == Line(backward[first])
    assert work.b_forward == Line(forward[second] - forward[first])
    assert work.b_backward == Line(backward[second] - backward[first])
    assert work.c == Line((costs.forward.sum() + costs.backward.sum()) / 8 - both[second])


def test_a_frozen_a_has_no_backward_and_gets_no_gradient() -> None:
    work = work_of(settings_of({"name": "digits_cnn", "freeze": ["a"]}))
    assert (work.a_backward.at(8), work.activation_gradient.at(8)) == (0, 0)
    assert work.ends.up < work.ends.down
    assert work.hidden_gradient.at(8) > 0


def test_no_samples_are_no_work() -> None:
    assert Line(2.0, 5.0).at(np.array([0, 1, 3])).tolist() == [0, 7, 11]


def test_without_a_description_nothing_is_counted() -> None:
    settings = rs.Config(data={"name": "synthetic", "kwargs": {"samples": 100}}, phones={"count": 2})
    assert prepare(settings).clock is None
