"""Whatever crosses a cut gets the gradient that it needs, and no other: the untouched model's weights, everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import torch
from torch import nn

import ray_split as rs
from ray_split.models import registry
from ray_split.preparation.prepare import prepare
from tests.crossing_nets import KINDS, WIDTH
from tests.reference import (
    assert_close_weights,
    assert_same_weights,
    fedavg,
    parallel,
    splitfed_v2,
    splitfed_v3,
    unsplit,
)
from tests.tiers import mostly_thorough, thorough

ROUGH = ("float16", "bfloat16", "float8", "complex32")  # rounding alone is a thousandth there
NOT_STACKED = ("negated", "images")  # vmap has no rule for what makes them
ALL = [kind for kind in KINDS if kind not in ROUGH]
REFERENCES = {"splitfed_v1": fedavg, "splitfed_v2": splitfed_v2, "parallel": parallel}
DOUBLE, SINGLE = ["block1", "block2"], ["block1"]


def settings_of(folder: Path, kinds: list[str], schedule: str, cuts: list[str] = DOUBLE, **phones: Any) -> rs.Config:
    return rs.Config(
        model={"name": "tests.crossing_nets:crossed", "kwargs": {"kinds": kinds}, "cuts": cuts},
        data={"name": "synthetic", "kwargs": {"samples": 90, "shape": [1, 8, 8], "num_classes": 4}, "batch_size": 8},
        phones={"count": 3, **phones},
        optimizer={"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.01},
        schedule={"name": schedule},
        run={"storage_path": str(folder), "name": "x", "rounds": 2, "eval_every": 2},
        cluster={"backend": "inprocess"},
    )


@pytest.mark.parametrize("kind", mostly_thorough(KINDS, *list(KINDS)[::2]))
@pytest.mark.few(5)
def test_in_sequence_each_kind_is_unsplit(tmp_path: Path, kind: str) -> None:
    settings = settings_of(tmp_path, [kind], "sequential").with_values(run={"rounds": 1, "eval_every": 1})
    path = rs.fit(settings, callbacks=[]).path
    if kind == "twice":  # there gradients are added in another order
        assert_close_weights(lambda: unsplit(settings), path)
    else:
        assert_same_weights(unsplit(settings), path)


@pytest.mark.parametrize("cuts", [DOUBLE, *thorough(SINGLE)], ids=["double", "single"])
@pytest.mark.parametrize("schedule", REFERENCES)
def test_all_kinds_together_are_the_untouched_models(tmp_path: Path, schedule: str, cuts: list[str]) -> None:
    own = {} if schedule == "splitfed_v2" else {"cohort": 3, "stacked": []}
    settings = settings_of(tmp_path, ALL, schedule, cuts, **own)
    assert_close_weights(lambda: REFERENCES[schedule](settings), rs.fit(settings, callbacks=[]).path, 1e-5)


@pytest.mark.parametrize("schedule", ["splitfed_v1", "parallel"])
def test_stacked_they_are_too(tmp_path: Path, schedule: str) -> None:
    kinds = [kind for kind in KINDS if kind not in NOT_STACKED]
    settings = settings_of(tmp_path, kinds, schedule, cohort=3, stacked=["a", "b", "c"])
    path = rs.fit(settings, callbacks=[]).path
    assert_close_weights(lambda: REFERENCES[schedule](settings), path, 1e-3)
    before = registry.build(settings.model.model_copy(update={"num_classes": 4}), 0)
    after = rs.load_model(path, trust=True)
    assert not torch.equal(before.block1.log_scale, after.block1.log_scale)


def test_where_ends_are_personal_they_are_too(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, ALL, "splitfed_v3", cohort=3, stacked=[])
    _, personal = splitfed_v3(settings)
    path = rs.fit(settings, callbacks=[]).path
    for phone, model in personal.items():
        own = rs.load_model(path, phone, trust=True).state_dict()
        for key, expected in model.state_dict().items():
            assert key.startswith("block2") or torch.allclose(own[key], expected, rtol=0, atol=1e-5)


PER_SAMPLE = 4 * WIDTH
COUNTED = {  # bytes of (forward, backward) beside h, of a batch of n: a gradient is of what is trained alone
    "learned number": lambda n: (4, 4),
    "whole number": lambda n: (8, 0),
    "mask": lambda n: (n * PER_SAMPLE, 0),
    "detached": lambda n: (4, 0),
    "complex": lambda n: (n * 8 * (WIDTH // 2 + 1), n * 8 * (WIDTH // 2 + 1)),
    "bfloat16": lambda n: (n * 2 * WIDTH, n * 2 * WIDTH),
    "float64": lambda n: (n * 8 * WIDTH, n * 8 * WIDTH),
}


@pytest.mark.parametrize("kind", mostly_thorough(COUNTED, "mask", "complex"))
def test_bytes_are_of_what_is_sent_and_are_those_that_are_planned(tmp_path: Path, kind: str) -> None:
    settings = settings_of(tmp_path, [kind], "splitfed_v1", device="laptop", cohort=3).with_values(run={"rounds": 1})
    prepared = prepare(settings)
    assert prepared.clock is not None
    work, stream = prepared.clock.work, prepared.stream
    table = pyarrow.parquet.read_table(f"{rs.fit(settings, callbacks=[]).path}/phones.parquet")
    for phone, up, down in zip(*(table[name].to_pylist() for name in ("phone", "bytes_up", "bytes_down")), strict=True):
        sizes = [int(stream.batch_sizes([phone], step)[0]) for step in range(int(stream.steps([phone])[0]))]
        forward = sum(n * PER_SAMPLE + COUNTED[kind](n)[0] for n in sizes)
        backward = sum(n * PER_SAMPLE + COUNTED[kind](n)[1] for n in sizes)
        assert up == down == forward + backward
        assert up == sum(work.activation.at(n) + work.hidden_gradient.at(n) for n in sizes)
        assert down == sum(work.hidden.at(n) + work.activation_gradient.at(n) for n in sizes)


class Odd(nn.Module):
    """A layer that returns something else beside its output."""

    def __init__(self, beside: str) -> None:
        super().__init__()
        self.layer, self.beside = nn.Linear(64, 8), beside

    def forward(self, x: torch.Tensor) -> Any:
        h = self.layer(x.flatten(1))
        return h, ODD[self.beside](h)


class First(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, h: torch.Tensor, beside: Any) -> torch.Tensor:
        return self.layer(h)


class Cache:
    def __init__(self, keys: torch.Tensor) -> None:
        self.keys = keys


ODD = {
    "an object": lambda h: Cache(h),
    "sparse": lambda h: h.to_sparse(),
    "numpy": lambda h: h.detach().numpy(),
    "a function": lambda h: lambda: h,
    "a number of the data": lambda h: float(h.max()),
}
REFUSED = {
    "an object": "tensors in a Cache there would get no gradient",
    "sparse": "can't convert Sparse layout tensor to numpy",
    "numpy": "a numpy array there would arrive as a tensor",
    "a function": "a function there can't be sent",
    "a number of the data": "for one phone and .* for another. Cut after another layer, return a tensor there, or set",
}


def odd(num_classes: int, beside: str) -> rs.Segments:
    return rs.Segments(Odd(beside), First(), nn.Linear(8, num_classes))


@pytest.mark.parametrize("beside", ODD)
def test_what_cannot_cross_is_refused_in_a_line(tmp_path: Path, beside: str) -> None:
    settings = settings_of(tmp_path, [], "splitfed_v1", cohort=3, stacked=[])
    model = {"name": "tests.runs.equality.test_crossing:odd", "kwargs": {"beside": beside}, "cuts": None}
    with pytest.raises(rs.SettingsError, match=REFUSED[beside]) as told:
        rs.fit(settings.with_values(model=model), callbacks=[])
    assert told.value.field == "model.cuts" and "\n" not in str(told.value)
