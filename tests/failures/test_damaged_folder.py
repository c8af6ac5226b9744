"""What somebody else, or a disk, did to a run's folder: repaired from a checkpoint and told, or refused, in a line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pytest

import ray_split as rs
from ray_split.experiments.compare.results import read_run
from ray_split.results import rows
from tests.failures.test_cut_off import warnings
from tests.runs.storage.test_storage_runs import config, model_bytes, resumed, stopped, timeless, without_times


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped after its third round of four, with checkpoints of rounds 2 and 3, and a whole one."""
    path = tmp_path_factory.mktemp("runs")
    stopped(config(path, "run", rounds=4), 2)
    rs.fit(config(path, "whole", rounds=4), callbacks=[])
    return path


@pytest.fixture
def folder(runs: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(runs / "run", tmp_path / "run"))


def content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def goes_on(folder: Path, runs: Path) -> None:
    """To the bytes and the rows of the undisturbed run."""
    result, whole = resumed(config(folder.parent, "run", rounds=4)), rs.Result.from_path(runs / "whole")
    assert (model_bytes(result), timeless(result)) == (model_bytes(whole), timeless(whole))
    assert without_times(result.metrics) == without_times(whole.metrics)
    table = pandas.read_parquet(folder / "phones.parquet")
    assert sorted(zip(table["round"], table["phone"], strict=True)) == [(r, p) for r in range(4) for p in range(3)]


def refused(folder: Path) -> str:
    """Why resuming is refused; nothing is lost by it."""
    before = content(folder)
    with pytest.raises(rs.SettingsError) as error:
        resumed(config(folder.parent, "run", rounds=4))
    assert content(folder) == before
    assert "\n" not in str(error.value)
    return str(error.value)


def lines_of(folder: Path) -> list[str]:
    return (folder / "metrics.jsonl").read_text().splitlines(keepends=True)


def edit(number: int, change: Callable[[str], str]) -> Callable[[Path], object]:
    def do(folder: Path) -> None:
        lines = lines_of(folder)
        lines[number] = change(lines[number])
        (folder / "metrics.jsonl").write_text("".join(lines))

    return do


def without(number: int) -> Callable[[Path], object]:
    return edit(number, lambda line: "")


REPAIRED: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "a row is missing": (without(2), ["metrics.jsonl has no row of round 2, which round_000003 can't make again"]),
    "a row is garbled": (
        edit(2, lambda line: line[:30] + "\n"),
        ["metrics.jsonl has no row of round 2, which round_000003 can't make again", "line 3 is no row"],
    ),
    "a row is twice there": (edit(1, lambda line: line + line), []),
    "rows that differ": (
        edit(2, lambda line: line + line.replace('"samples": ', '"samples": 1')),
        ["has no row of round 2", "a round has two rows that differ"],
    ),
    "a broken summary": (
        lambda folder: (folder / "summary.json").write_text('{"status": "run'),
        ["summary.json is not there or can't be read: made anew from the rows"],
    ),
    "no summary": (lambda folder: (folder / "summary.json").unlink(), ["made anew from the rows"]),
    "a file of the system's": (
        lambda folder: (folder / "phones.parquet" / ".DS_Store").write_bytes(b"\0\1"),
        [".DS_Store is none of a run's files: passed over"],
    ),
    "a broken parquet file": (
        lambda folder: (folder / "phones.parquet" / "rounds_000002_000002.parquet").write_bytes(b"PAR1"),
        ["rounds_000002_000002.parquet: ", "which round_000003 can't make again"],
    ),
    "TensorBoard's leftovers": (
        lambda folder: (folder / "events.out.tfevents.1.x.1.0").write_bytes(b"\0garbage"),
        [],
    ),
    "a row beyond the checkpoint": (edit(2, lambda line: line + line.replace('"round": 2', '"round": 3')), []),
}


@pytest.mark.parametrize("what", REPAIRED)
@pytest.mark.few(5)
def test_it_is_repaired_and_told(folder: Path, runs: Path, what: str, caplog: pytest.LogCaptureFixture) -> None:
    damage, told = REPAIRED[what]
    damage(folder)
    goes_on(folder, runs)
    text = "\n".join(warnings(caplog))
    assert all(line in text for line in told) and bool(text) == bool(told), text


def remove_checkpoints(folder: Path) -> None:
    shutil.rmtree(folder / "checkpoints")


def finish_and_remove(folder: Path) -> None:
    resumed(config(folder.parent, "run", rounds=4))
    remove_checkpoints(folder)
    (folder / "metrics.jsonl").unlink()


def empty_checkpoints(folder: Path) -> None:
    """As by `rm -rf checkpoints/*`, which leaves what is hidden."""
    remove_checkpoints(folder)
    (folder / "checkpoints" / ".partial_round_000004").mkdir(parents=True)


def in_place_of(name: str) -> Callable[[Path], object]:
    def do(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).mkdir()

    return do


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no checkpoints": (
        remove_checkpoints,
        "checkpoints' to resume from, and what metrics.jsonl has would be lost. Put the checkpoints back, "
        "or start a new run with another run.name.",
    ),
    "no checkpoints but a half-written one": (empty_checkpoints, "run.resume: there is no checkpoint in "),
    "no checkpoints, but a model": (finish_and_remove, "and what model.safetensors has would be lost."),
    "no rows": (lambda folder: (folder / "metrics.jsonl").unlink(), "metrics.jsonl has no row of round 0"),
    "an empty file of rows": (
        lambda folder: (folder / "metrics.jsonl").write_text(""),
        "metrics.jsonl has no row of round 0",
    ),
    "the first row is missing": (without(0), "metrics.jsonl has no row of round 0, which round_000002 can't make"),
    "a row is a list": (edit(0, lambda line: f"[{line.strip()}]\n"), "metrics.jsonl has no row of round 0"),
    "a row has words for numbers": (
        edit(1, lambda line: line.replace('"samples": ', '"samples": "x", "y": ')),
        "metrics.jsonl has no row of round 1",
    ),
    "bytes that are no text": (
        lambda folder: (folder / "metrics.jsonl").write_bytes(b"\xff\xfe\n" * 3),
        "metrics.jsonl has no row of round 0",
    ),
    "no phones' lines of a round": (
        lambda folder: (folder / "phones.parquet" / "rounds_000000_000000.parquet").unlink(),
        "phones.parquet has no file of round 0",
    ),
    "a broken config": (
        lambda folder: (folder / "config.yaml").write_text("model: ["),
        """/config.yaml' is not valid YAML: "model: [". Check its brackets, braces and commas.""",
    ),
    "a config of another version": (
        lambda folder: (folder / "config.yaml").write_text("nothing: 1"),
        "/config.yaml': there is no section 'nothing'. The sections are model, data, task, ",
    ),
    "no config": (
        lambda folder: (folder / "config.yaml").unlink(),
        "/run' is not a run's folder: it has no config.yaml. Give the folder of a run. 'ray-split runs FOLDER' lists ",
    ),
    "a folder for the summary": (
        in_place_of("summary.json"),
        "/summary.json' is a folder, but must be a file. Move that folder away, or ",
    ),
    "a folder for the model": (
        in_place_of("model.safetensors"),
        "/model.safetensors' is a folder, but must be a file. Move that folder away, or ",
    ),
    "another run's summary": (
        lambda folder: (folder / "summary.json").write_text('{"status": "running", "seed": 77}'),
        "/run' is from another run, with seed 77. Remove summary.json, or start a new run with another run.name.",
    ),
    "phones that were left out, and nothing says which": (
        lambda folder: (
            (folder / "summary.json").unlink(),
            edit(1, lambda line: line.replace('"left_out": 0', '"left_out": 1'))(folder),
        ),
        "/run' can't be read, and only there it says which phones were left out. Put summary.json back, or start ",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_it_is_refused_in_one_line_and_nothing_is_lost(
    folder: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    damage, why = REFUSED[what]
    damage(folder)
    caplog.clear()
    assert why in refused(folder)
    assert not warnings(caplog)


def test_without_phones_lines_at_all_it_goes_on_and_says_so(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.rmtree(folder / "phones.parquet")
    resumed(config(folder.parent, "run", rounds=4))
    assert "phones.parquet is not there: it begins anew" in "\n".join(warnings(caplog))
    assert set(pandas.read_parquet(folder / "phones.parquet")["round"]) == {3}


def test_a_run_without_a_checkpoint_as_none_was_due_begins_anew(tmp_path: Path) -> None:
    settings = config(tmp_path, "run", rounds=4).with_values(checkpoint={"every": 3})

    class Killed(rs.Callback):
        def on_round_end(self, row: dict[str, Any]) -> None:
            shutil.copytree(tmp_path / "run", tmp_path / f"killed{row['round']}")

    whole = rs.fit(settings, callbacks=[Killed()])
    for name in ("killed0", "killed1"):
        shutil.rmtree(tmp_path / "run")
        shutil.copytree(tmp_path / name, tmp_path / "run", ignore=shutil.ignore_patterns(".owner"))
        assert rows.found(tmp_path / "run").rows and not (tmp_path / "run" / "checkpoints").exists()
        assert model_bytes(resumed(settings)) == model_bytes(whole)


def test_a_summary_from_before_checkpoints_were_told_there_is_made_up_for_by_the_rows(folder: Path) -> None:
    summary = json.loads((folder / "summary.json").read_text())
    del summary["checkpoint"]
    (folder / "summary.json").write_text(json.dumps(summary))
    remove_checkpoints(folder)
    assert refused(folder).startswith(f"run.resume: there is no checkpoint in '{folder}/checkpoints' to resume from")


def test_who_only_reads_leaves_out_what_is_no_row_and_says_so(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    edit(1, lambda line: "null\n")(folder)
    found = rs.Result.from_path(folder)
    assert found.metrics_dataframe["round"].tolist() == [0, 2]
    assert warnings(caplog)[-1] == f"{folder / 'metrics.jsonl'}: line 2 is no row; no row of round 1"
    (folder / "metrics.jsonl").write_text("")
    assert len(rs.Result.from_path(folder).metrics_dataframe) == 0
    (folder / "summary.json").write_text("[]")
    with pytest.raises(
        rs.SettingsError, match=r"/summary\.json' is not the summary of a run\. Give the folder of another run\.$"
    ):
        rs.Result.from_path(folder)
    (folder / "summary.json").unlink()
    with pytest.raises(FileNotFoundError):
        rs.Result.from_path(folder)


def test_a_comparison_counts_no_run_whose_rows_are_not_all_there(runs: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(runs / "whole", tmp_path / "sequential_seed0"))
    assert read_run(folder, "sequential", 0).error is None
    without(1)(folder)
    assert str(read_run(folder, "sequential", 0).error).endswith("metrics.jsonl: no row of round 1")
    (folder / "summary.json").write_text("{")
    assert "/summary.json' can't be read: " in str(read_run(folder, "sequential", 0).error)
