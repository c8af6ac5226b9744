from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

import ray_split as rs
from ray_split.callbacks import BarProgress, PlainProgress
from tests.tiers import thorough


def run(path: Path, callback: rs.Callback, schedule: str = "sequential", **phones: int) -> rs.Result:
    settings = rs.Config(
        schedule={"name": schedule},
        phones={"count": 3, "local_steps": 30, **phones},
        cluster={"backend": "inprocess"},
        run={"storage_path": str(path), "name": "r", "rounds": 2},
    )
    return rs.fit(settings, callbacks=[callback])


def test_a_log_has_one_plain_line_a_round_and_a_closing_table(tmp_path: Path) -> None:
    out = io.StringIO()
    result = run(tmp_path, PlainProgress(out))
    lines = [line for line in out.getvalue().splitlines() if line.startswith("round ")]
    assert [line.split("  ")[0] for line in lines] == ["round 1/2", "round 2/2"]
    assert all("loss " in line and "val_accuracy " in line and line.endswith("samples/s") for line in lines)
    assert "run finished" in out.getvalue() and result.path in out.getvalue()
    assert re.search(rf"│ training s +│ {result.metrics['seconds']:.1f} ", out.getvalue())
    assert f"{result.metrics['test_accuracy']:.4f}" in out.getvalue()


def test_a_terminal_has_a_bar_with_round_loss_accuracy_and_rate(tmp_path: Path) -> None:
    out = io.StringIO()
    result = run(tmp_path, BarProgress(Console(file=out, force_terminal=True, width=140)))
    shown = out.getvalue()
    assert "round 1/2" in shown and "round 2/2" in shown
    assert f"loss {result.metrics['train_loss']:.4f}" in shown
    assert f"val_accuracy {result.metrics['val_accuracy']:.4f}" in shown
    assert "samples/s" in shown and "run finished" in shown


def test_what_a_model_writes_is_one_line_in_signs_that_the_place_can_show() -> None:
    said = {"prompt": "[red]Wer", "text": " ißt\n\x1b[31m?"}
    out, raw = io.StringIO(), io.BytesIO()
    BarProgress(Console(file=out, force_terminal=True, width=10)).show_sample(said)
    assert out.getvalue() == "a sample: '[red]Wer' | ' ißt\\n\\x1b[31m?'\n"
    ascii_only = io.TextIOWrapper(raw, encoding="ascii")
    PlainProgress(ascii_only).show_sample(said)
    assert raw.getvalue() == b"a sample: '[red]Wer' | ' i\\xdft\\n\\x1b[31m?'\n"


def test_of_a_regression_loss_and_scores_are_told_instead_of_accuracy(tmp_path: Path) -> None:
    out = io.StringIO()
    settings = rs.Config(
        model={"name": "mlp"}, data={"name": "synthetic_regression", "kwargs": {"samples": 100}}, task={"loss": "mse"},
        cluster={"backend": "inprocess"}, phones={"count": 2}, run={"storage_path": str(tmp_path), "rounds": 2},
    )  # fmt: skip
    metrics = rs.fit(settings, callbacks=[PlainProgress(out)]).metrics
    shown = out.getvalue()
    assert f"val_loss {metrics['val_loss']:.4f}  val_mae {metrics['val_mae']:.4f}  val_r2 " in shown
    assert "accuracy" not in shown
    table = {name: value for name, value in re.findall(r"│ (\S[^│]*?) +│ (\S+) +│", shown)}
    assert table["best validation loss"] == f"{metrics['best_val_loss']:.4f}"
    assert table["test loss there"] == f"{metrics['test_loss_at_best_val']:.4f}"
    assert table["test r2 there"] == f"{metrics['test_r2_at_best_val']:.4f}"


@pytest.mark.parametrize(
    ("schedule", "phones"),
    [
        *thorough(("sequential", {}), ("splitfed_v1", {})), ("splitfed_v1", {"cohort": 2}),
        *thorough(
            ("splitfed_v2", {}), ("splitfed_v3", {"cohort": 1}), ("parallel", {"cohort": 2}), ("fedavg", {}),
            ("unsplit", {}),
        ),
    ],
)  # fmt: skip
def test_a_callback_is_told_of_every_part_of_a_run_in_order(tmp_path: Path, schedule: str, phones: dict) -> None:
    told: list[str] = []
    progress: dict[int, list[int]] = {}
    totals: dict[int, int] = {}

    class Teller(rs.Callback):
        def on_run_start(self, settings: rs.Config, where: list[str], first_round: int) -> None:
            told.append(f"start {first_round}")

        def on_progress(self, round: int, done: int, total: int, samples_per_second: float) -> None:
            assert 0 < done <= total and samples_per_second > 0
            totals[round] = total
            told.append(f"progress {round}")
            progress.setdefault(round, []).append(done)

        def on_round_end(self, row: dict) -> None:
            told.append(f"end {row['round']}")
            assert progress[row["round"]][-1] == totals[row["round"]] == row["samples"]

        def on_run_end(self, summary: dict, path: str) -> None:
            told.append(summary["status"])

    run(tmp_path, Teller(), schedule, **phones)
    assert list(dict.fromkeys(told)) == ["start 0", "progress 0", "end 0", "progress 1", "end 1", "finished"]
    for done in progress.values():
        assert done == sorted(done)
