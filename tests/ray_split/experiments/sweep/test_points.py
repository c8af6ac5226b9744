"""A sweep's points and its metric, refused before anything is started."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import ray_split as rs
from ray_split.experiments.command import parser_of
from ray_split.experiments.sweep.points import metrics_of
from ray_split.experiments.sweep.settings import sweep_of
from tests.tiers import thorough

REFUSED = [
    (["optimizer.lr=1,high"], "optimizer.lr: must be a number, not 'high'"),
    (["optimizer.lr=uniform(-1,1)"], "optimizer.lr: must be greater than 0, not -1"),
    (["phones.count=uniform(1,8)"], "a whole number, without a fraction"),
    (["phones.count=randint(0,8)"], "phones.count: must be at least 1, not 0"),
    (
        ["optimizer.lr=loguniform(1,0.1)"],
        "In loguniform(LOW, HIGH), the first number must be the lower one, and greater than 0.",
    ),
    (["optimizer.lr=uniform(1)"], "2 finite numbers"),
    (["optimizer.lr=0.1,0.2,0.1"], "has 0.1 twice. Give each value once."),
    (["optimizer.lr=1,1.0"], "gives the same settings as other values of --over"),
    (["optimizer.lrr=1"], "Did you mean optimizer.lr?"),
    (["run.name=a,b"], "can't be searched over, because the sweep sets that itself"),
    (["run.storage_path=a,b"], "can't be searched over, because the sweep sets that itself"),
    (["run.resume=auto"], "can't be searched over, because the sweep sets that itself"),
    (["cluster.backend=ray,inprocess"], "all runs share one Ray"),
    (["optimizer.name=sgd,adam", "optimizer.momentum=0,0.9"], "at optimizer.name=adam, optimizer.momentum=0.9"),
]


@pytest.mark.parametrize(("over", "said"), REFUSED, ids=lambda value: " ".join(value)[:60])
def test_a_space_that_can_not_be_is_one_line(over: list[str], said: str, tmp_path: Path) -> None:
    words = [word for axis in over for word in ("--over", axis)]
    with pytest.raises(rs.SettingsError) as caught:
        sweep_of([*words, "--out", str(tmp_path / "out")], parser_of("sweep", ""))
    assert said in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "flags",
    [
        ["--metric", "val_acuracy"], ["--metric", "val_macro_f1"], ["--task.loss", "mse"],
        ["--data.val_fraction", "0"], ["--metric", "virtual_seconds"], ["--metric", "round"],
    ],
    ids=str,
)  # fmt: skip
def test_a_metric_that_no_run_tells_is_one_line(flags: list[str]) -> None:
    with pytest.raises(rs.SettingsError, match="--metric"):
        sweep_of(["--seeds", "0,1", *flags], parser_of("sweep", ""))


def test_points_are_taken_together_and_parts_of_mappings_are_axes() -> None:
    for over in (["phones.count=100,200", "phones.per_round=50,80"], ["model.kwargs.width=8,16"]):
        words = [word for axis in over for word in ("--over", axis)]
        assert list(sweep_of(words, parser_of("sweep", "")).space) == [axis.partition("=")[0] for axis in over]
    scored = ["--seeds", "0,1", "--task.metrics", "macro_f1", "--metric", "val_macro_f1"]
    assert sweep_of(scored, parser_of("sweep", "")).flags.metric == "val_macro_f1"


@pytest.mark.parametrize(
    "sections",
    [
        {"task": {"metrics": ["macro_f1"]}, "phones": {"count": 3, "held_out": 0.2}},
        *thorough(
            {"data": {"val_fraction": 0.0}},
            {"phones": {"count": 3, "device": "low_end", "link": "tunnel"}},
            {"task": {"loss": "mse"}, "data": {"name": "synthetic_regression"}, "model": {"name": "mlp"}},
        ),
    ],
    ids=str,
)
def test_metrics_are_the_columns_that_a_run_has_numbers_in(sections: dict[str, Any], tmp_path: Path) -> None:
    run = {"storage_path": str(tmp_path), "name": "run", "rounds": 1}
    base = {"model": {"name": "mlp"}, "phones": {"count": 3}, "cluster": {"backend": "inprocess"}, "run": run}
    result = rs.fit(rs.Config(**{**base, **sections}), callbacks=[])
    row = json.loads((Path(result.path) / "metrics.jsonl").read_text())
    settings = rs.Config.from_yaml(Path(result.path) / "config.yaml")
    assert set(metrics_of(settings)) == {name for name, value in row.items() if value is not None} - {"round"}
