"""In which rounds validation and test are evaluated; what is trained doesn't depend on it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

import ray_split as rs
from ray_split.callbacks import PlainProgress
from tests.ray_split.driver.test_ending_early import config
from tests.runs.equality.test_same_bytes import model_bytes
from tests.tiers import thorough


def rows(result: rs.Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(result.path) / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("schedule", ["splitfed_v1", *thorough("splitfed_v3", "sequential", "unsplit")])
def test_with_test_every_1_each_round_has_the_test_of_a_run_that_ends_there(tmp_path: Path, schedule: str) -> None:
    phones = {"held_out": 0.3 if schedule == "splitfed_v3" else 0.0}
    every = rs.fit(config(tmp_path, "every", 4, schedule, run={"test_every": 1}, phones=phones), callbacks=[])
    plain = rs.fit(config(tmp_path, "plain", 4, schedule, phones=phones), callbacks=[])
    ends = [
        rs.fit(config(tmp_path, f"to_{rounds}", rounds, schedule, phones=phones), callbacks=[]) for rounds in (1, 2, 3)
    ]
    for row, whole in zip(rows(every), [*ends, plain], strict=True):
        last = rows(whole)[-1]
        assert {k: v for k, v in row.items() if "seconds" not in k} == {
            k: v for k, v in last.items() if "seconds" not in k
        }
        assert row["test_loss"] is not None
    assert model_bytes(every.path) == model_bytes(plain.path)
    for key in ("test_accuracy", "test_accuracy_at_best_val", "best_val_accuracy"):
        assert every.metrics[key] == plain.metrics[key]


def test_every_so_many_rounds_whatever_validation_does(tmp_path: Path) -> None:
    still = {"optimizer": {"lr": 1e-30}}  # the first round that is validated is the best
    result = rs.fit(config(tmp_path, rounds=7, run={"test_every": 3, "eval_every": 2}, **still), callbacks=[])
    found = [("v" if row["val_loss"] is not None else "") + ("t" if "test_loss" in row else "") for row in rows(result)]
    assert found == ["", "vt", "t", "v", "", "vt", "vt"]


def test_a_round_is_data_from_0_a_line_for_people_from_1_and_a_checkpoint_after_so_many(tmp_path: Path) -> None:
    out = io.StringIO()
    result = rs.fit(config(tmp_path, rounds=2), callbacks=[PlainProgress(out)])
    assert [row["round"] for row in rows(result)] == [0, 1]
    assert [line.split("  ")[0] for line in out.getvalue().splitlines() if line.startswith("round ")] == [
        "round 1/2",
        "round 2/2",
    ]
    assert result.checkpoint and Path(result.checkpoint).name == "round_000002" and result.metrics["rounds"] == 2
