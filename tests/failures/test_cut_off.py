"""A run that was killed: what it left half-written is noticed, and it goes on to the same bytes."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pandas
import pytest

import ray_split as rs
from ray_split.preparation.run_folder import MAY_DIFFER
from tests.conftest import ROOT
from tests.runs.storage.test_storage_runs import config, model_bytes, resumed, stopped, timeless


@pytest.fixture
def whole(tmp_path: Path) -> rs.Result:
    return rs.fit(config(tmp_path, "whole"), callbacks=[])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a run that was stopped after its second round of three."""
    stopped(config(tmp_path, "run"), 1)
    return tmp_path / "run"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("cut", [40, -1])
def test_a_line_of_metrics_that_was_cut_off_is_left_out(whole: rs.Result, folder: Path, cut: int) -> None:
    metrics = folder / "metrics.jsonl"
    line = metrics.read_text().splitlines()[-1].replace('"round": 1', '"round": 2')
    metrics.write_text(metrics.read_text() + line[:cut])
    found = rs.Result.from_path(folder)
    assert [row["round"] for row in found.metrics_dataframe.to_dict("records")] == [0, 1]
    result = resumed(config(folder.parent, "run"))
    assert model_bytes(result) == model_bytes(whole)
    assert timeless(result) == timeless(whole)


def test_what_was_left_half_written_is_passed_over_and_goes(whole: rs.Result, folder: Path) -> None:
    for name in ("metrics.jsonl", "summary.json", "config.yaml", "phones.parquet/rounds_000002_000002.parquet"):
        path = folder / name
        path.with_name(f".partial_{path.name}").write_bytes(b"half")
    for name in (".partial_round_000003", ".partial_old_round_000001"):
        (folder / "checkpoints" / name).mkdir()
        (folder / "checkpoints" / name / "checkpoint.json").write_bytes(b"{")
    assert len(pandas.read_parquet(folder / "phones.parquet")) == 6
    result = resumed(config(folder.parent, "run"))
    assert model_bytes(result) == model_bytes(whole)
    assert not list(folder.rglob(".partial_*"))
    assert names(folder / "checkpoints") == ["round_000002", "round_000003"]


@pytest.mark.parametrize("name", ["a.safetensors", "checkpoint.json", None])
@pytest.mark.few(4)
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_it_taken(
    whole: rs.Result, folder: Path, caplog: pytest.LogCaptureFixture, name: str | None
) -> None:
    newest = folder / "checkpoints" / "round_000002"
    if name:
        damage(newest / name)
    else:
        (newest / "checkpoint.json").unlink()
    result = resumed(config(folder.parent, "run"))
    (line,) = warnings(caplog)
    assert line.startswith(str(newest)) and line.endswith("; going on from the checkpoint before it")
    assert model_bytes(result) == model_bytes(whole)
    assert timeless(result) == timeless(whole)
    assert len(pandas.read_parquet(folder / "phones.parquet")) == 9
    assert names(folder / "checkpoints") == ["round_000002", "round_000003"]


def test_where_no_checkpoint_is_whole_nothing_is_begun_from_zero(folder: Path) -> None:
    for path in folder.glob("checkpoints/*/b.safetensors"):
        damage(path)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    why = r"^run\.resume: the run in .* can't be resumed: none of the checkpoints in .* can be used: .*round_000001"
    with pytest.raises(rs.SettingsError, match=why):
        resumed(config(folder.parent, "run"))
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_anew(whole: rs.Result, folder: Path) -> None:
    for path in (folder / "checkpoints").iterdir():
        path.rename(path.with_name(f".partial_{path.name}"))
    result = resumed(config(folder.parent, "run"))
    assert model_bytes(result) == model_bytes(whole)
    assert timeless(result) == timeless(whole)


def test_the_docs_name_what_may_differ_when_a_run_is_resumed() -> None:
    page = (ROOT / "docs" / "resume.md").read_text()
    text = page[page.index("These settings may differ:") :].partition("which stands for both")[0]
    for name in MAY_DIFFER:
        assert f"`{name.rstrip('.')}`" in text or name == "run.resume", name


def test_the_summary_of_a_stopped_run_counts_the_rows_that_are_there(folder: Path) -> None:
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["status"], summary["rounds"]) == ("stopped", 2)
