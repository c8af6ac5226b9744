"""How many samples are evaluated at a time, by what a model returns of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import ray_split as rs
from ray_split.callbacks import say_start
from ray_split.preparation.prepare import prepare
from ray_split.preparation.settings.evaluation_settings import settle_evaluation

BATCH = [torch.zeros(4, 1)]


@pytest.mark.parametrize(
    ("shape", "size"),
    [((4, 10), 256), ((4, 2**18), 256), ((4, 128, 50_000), 10), ((4, 1024, 128_256), 1), ((4,), 256)],
)
def test_fewer_are_evaluated_at_a_time_where_outputs_are_large(shape: tuple[int, ...], size: int) -> None:
    found = settle_evaluation(rs.Config(), torch.empty(shape, device="meta"), BATCH)
    assert found.data.eval_batch_size == size


def test_of_several_outputs_all_count_and_a_number_that_is_set_stays() -> None:
    several: Any = {"scores": torch.empty(4, 2**18, device="meta"), "more": torch.empty(4, 2**18, device="meta")}
    assert settle_evaluation(rs.Config(), several, BATCH).data.eval_batch_size == 128
    told = rs.Config(data={"eval_batch_size": 999})
    assert settle_evaluation(told, several, BATCH) is told


@pytest.mark.parametrize(
    ("size", "said"), [(10, ["samples are evaluated 10 at a time (data.eval_batch_size)"]), (256, [])]
)
def test_the_start_says_so_where_they_are_fewer_than_usual(size: int, said: list[str]) -> None:
    lines: list[str] = []
    settings = rs.Config(data={"eval_batch_size": size}, run={"name": "r"})
    say_start(lines.append, settings, ["the actors"], 0)
    assert lines[1:-1] == ["the actors", *said]


def test_a_usual_model_has_256(tmp_path: Path) -> None:
    settings = rs.Config(cluster={"backend": "inprocess"}, run={"storage_path": str(tmp_path)})
    assert prepare(settings).settings.data.eval_batch_size == 256
