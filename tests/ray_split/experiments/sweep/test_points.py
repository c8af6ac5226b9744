"""A sweep's points and its metric, refused before anything is started."""

from __future__ import annotations

from pathlib import Path

import pytest

import ray_split as rs
from ray_split.experiments.command import parser_of
from ray_split.experiments.sweep.settings import sweep_of

REFUSED = [
    (["optimizer.lr=1,high"], "optimizer.lr: 'high' is not possible; it may be a valid number"),
    (["optimizer.lr=uniform(-1,1)"], "optimizer.lr: -1 is not possible"),
    (["phones.count=uniform(1,8)"], "a valid integer, without a fraction"),
    (["phones.count=randint(0,8)"], "phones.count: 0 is not possible"),
    (["optimizer.lr=loguniform(1,0.1)"], "the first the lowest"),
    (["optimizer.lr=uniform(1)"], "2 finite numbers"),
    (["optimizer.lr=0.1,0.2,0.1"], "0.1 is there twice"),
    (["optimizer.lr=1,1.0"], "the settings are the same"),
    (["optimizer.lrr=1"], "did you mean optimizer.lr?"),
    (["run.name=a,b"], "names and folders of their own"),
    (["run.storage_path=a,b"], "names and folders of their own"),
    (["run.resume=auto"], "names and folders of their own"),
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
