"""What robust averaging is for: a tenth of the phones turn their gradients round (docs/robust.md has the table)."""

from __future__ import annotations

from pathlib import Path

import pytest

import ray_split as rs

# So that the aggregator is what is tested: phones that send numbers this large would be found out sooner.
WIDE = dict.fromkeys(("activation", "gradient", "weights"), 1e18)


def accuracy(path: Path, aggregator: str, hostile: float) -> float:
    settings = rs.Config(
        model={"name": "mlp"},
        schedule={"name": "splitfed_v1"},
        aggregator={"name": aggregator},
        optimizer={"lr": 0.3},
        phones={"count": 20, "hostile": hostile, "max_norm": WIDE},
        cluster={"backend": "inprocess"},
        run={"storage_path": str(path), "name": f"{aggregator}_{hostile}", "rounds": 25, "eval_every": 25},
    )
    found: float = rs.fit(settings, callbacks=[]).metrics["test_accuracy"]
    return found


@pytest.mark.thorough
def test_the_trimmed_mean_is_within_two_points_of_the_clean_run_where_the_mean_is_lost(tmp_path: Path) -> None:
    clean = accuracy(tmp_path, "mean", 0)
    assert clean >= 0.9
    assert accuracy(tmp_path, "trimmed_mean", 0.1) >= clean - 0.02
    with pytest.raises(rs.RunFailedError, match="BadPhoneError"):  # its weights grow beyond all bounds
        accuracy(tmp_path, "mean", 0.1)
