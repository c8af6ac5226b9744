"""Whole comparisons of small runs; and what is refused."""

from __future__ import annotations

import csv
import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import ray_split as rs
from ray_split.experiments.compare import runs
from ray_split.experiments.compare.main import main
from ray_split.filesystem import children, place

SMALL = ["--model.name", "mlp", "--phones.count", "4", "--phones.local_steps", "2", "--run.rounds", "2"]
HERE = ["--cluster.backend", "inprocess", *SMALL]
COMPARED = ("unsplit", "splitfed_v1", "splitfed_v3")


def arguments(out: Path, *more: str) -> list[str]:
    return [*HERE, "--schedules", ",".join(COMPARED), "--seeds", "0,1", "--out", str(out), *more]


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a comparison of three schedules over two seeds."""
    out = tmp_path_factory.mktemp("comparison") / "out"
    assert main(arguments(out, "--schedule.kwargs", "{statistics: average}")) == 0
    return out


def settings_in(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((folder / "config.yaml").read_text())
    return found


def summary_in(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


def files_of(out: Path) -> dict[Path, int]:
    """When each file of the runs was last written."""
    return {path: path.stat().st_mtime_ns for path in out.glob("*_seed*/**/*") if path.is_file()}


@pytest.mark.thorough
def test_every_schedule_is_run_with_every_seed(compared: Path) -> None:
    names = {f"{schedule}_seed{seed}" for schedule in COMPARED for seed in (0, 1)}
    written = {f"compare.{ending}" for ending in ("csv", "md", "tex", "png")}
    assert {path.name for path in compared.iterdir()} == names | written
    for name in names:
        schedule, _, seed = name.rpartition("_seed")
        settings, summary = settings_in(compared / name), summary_in(compared / name)
        assert (settings["schedule"]["name"], settings["run"]["seed"]) == (schedule, int(seed))
        assert (summary["status"], summary["rounds"]) == ("finished", 2)


def test_kwargs_go_to_the_schedules_that_take_them(compared: Path) -> None:
    kwargs = {s: settings_in(compared / f"{s}_seed0")["schedule"]["kwargs"] for s in COMPARED}
    assert kwargs == {"unsplit": {}, "splitfed_v1": {"statistics": "average"}, "splitfed_v3": {}}


def test_the_table_is_that_of_the_runs(compared: Path) -> None:
    lines = list(csv.DictReader((compared / "compare.csv").open()))
    assert [line["schedule"] for line in lines] == list(COMPARED)
    for line in lines:
        folders = [compared / f"{line['schedule']}_seed{seed}" for seed in (0, 1)]
        one, two = (summary_in(folder)["test_accuracy_at_best_val"] for folder in folders)
        assert float(line["accuracy_mean"]) == pytest.approx((one + two) / 2)
        up = sum(summary_in(folder)["bytes_up_total"] for folder in folders) / (2 * 2 * 4)
        assert float(line["bytes_up_per_phone_round_mean"]) == pytest.approx(up)


def test_a_run_is_the_one_that_train_would_make(compared: Path, tmp_path: Path) -> None:
    settings = rs.Config.from_yaml(compared / "splitfed_v1_seed1" / "config.yaml")
    alone = rs.fit(settings.with_values(run={"storage_path": str(tmp_path), "name": "alone"}), callbacks=[])
    expected = Path(alone.path, "model.safetensors").read_bytes()
    assert (compared / "splitfed_v1_seed1" / "model.safetensors").read_bytes() == expected


def test_a_finished_comparison_is_read_and_not_repeated(compared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files_of(compared)
    kept = (compared / "compare.csv").read_text()
    (compared / "compare.csv").unlink()
    assert main(arguments(compared, "--schedule.kwargs", "{statistics: average}")) == 0
    assert files_of(compared) == before
    assert (compared / "compare.csv").read_text() == kept
    printed = capsys.readouterr().out
    assert printed.count("(finished before)") == 6
    assert (compared / "compare.md").read_text() in printed


def test_without_matplotlib_a_line_says_so_and_the_tables_are_written(
    compared: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, module, None)
    (compared / "compare.tex").unlink()
    assert main(arguments(compared, "--schedule.kwargs", "{statistics: average}")) == 0
    assert (compared / "compare.tex").exists()
    assert "no plot" in (printed := capsys.readouterr().out) and "pip install 'ray-split[plot]'" in printed


class Interrupt(rs.Callback):
    """Ctrl-C after the first round."""

    def on_round_end(self, row: dict[str, Any]) -> None:
        raise rs.RunStoppedError(signal.SIGINT)


@pytest.mark.thorough
def test_an_interrupted_comparison_goes_on_where_it_stopped(
    compared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[tuple[str, int]] = []
    stop_in = {"splitfed_v1_seed0"}

    class Begun(rs.Callback):
        def on_run_start(self, settings: rs.Config, where: list[str], first_round: int) -> None:
            begun.append((str(settings.run.name), first_round))

    def fit(settings: rs.Config, callbacks: list[rs.Callback], progress: bool) -> rs.Result:
        told = [Begun(), *callbacks, *([Interrupt()] if settings.run.name in stop_in else [])]
        return rs.fit(settings, told, progress=progress)

    monkeypatch.setattr(runs, "fit", fit)
    out, flags = tmp_path / "out", ("--schedule.kwargs", "{statistics: average}")
    assert main(arguments(out, *flags)) == 130
    assert f"the same command with --out {out} goes on" in capsys.readouterr().err
    assert [name for name, _ in begun] == ["unsplit_seed0", "splitfed_v1_seed0"]
    assert not (out / "compare.csv").exists()
    finished = {path: time for path, time in files_of(out).items() if "unsplit_seed0" in path.parts}
    begun.clear()
    stop_in.clear()
    assert main(arguments(out, *flags)) == 0
    rest = ["splitfed_v3_seed0", *(f"{schedule}_seed1" for schedule in COMPARED)]
    assert begun == [("splitfed_v1_seed0", 1), *((name, 0) for name in rest)]
    assert finished
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    for name in ("splitfed_v1_seed0", "splitfed_v3_seed1"):
        assert (out / name / "model.safetensors").read_bytes() == (compared / name / "model.safetensors").read_bytes()


BREAKS = """
from ray_split.schedules.sequential import sequential

def breaks(turn, stream, roles):
    if turn.round:
        raise RuntimeError("first line\\nsecond line")
    return (yield from sequential(turn, stream, roles))
"""


def test_a_failed_run_does_not_keep_the_others_and_gives_status_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "breaking.py").write_text(BREAKS)
    monkeypatch.syspath_prepend(tmp_path)
    out = tmp_path / "out"
    flags = ["--schedules", "breaking:breaks,unsplit", "--seeds", "0", "--out", str(out)]
    assert main([*HERE, *flags]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "1/2 breaks_seed0: failed: RuntimeError: first line second line"
    assert lines[1].startswith("2/2 unsplit_seed0: test accuracy ")
    broken, unsplit = csv.DictReader((out / "compare.csv").open())
    assert (broken["schedule"], broken["failed"], unsplit["finished"]) == ("breaking:breaks", "1", "1")
    assert "‡ breaks seed 0 failed: RuntimeError: first line second line" in lines


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1 and captured.err.startswith("error: ")
    return captured.err


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        (
            ["--schedules", "splitfed_v9"],
            ["--schedules: there is no schedule 'splitfed_v9'", "Did you mean splitfed_v"],
        ),
        (
            ["--schedules", "unsplit,unsplit"],
            ["--schedules: must be a list such as a,b, with each name once, not 'unsplit,unsplit'."],
        ),
        (
            ["--seeds", "0,x"],
            ["--seeds: must be whole numbers of 0 or more, such as 0,1,2, with each once, not '0,x'."],
        ),
        (["--seeds", "1,01"], ["--seeds: must be whole numbers of 0 or more", "with each once, not '1,01'."]),
        (["--seeds", ""], ["--seeds: is empty"]),
        (["--target", "90"], ["--target: must be an accuracy greater than 0 and at most 1, not 90."]),
        (["--target"], ["--target: needs a value"]),
        (
            ["--schedule.name", "parallel"],
            ["--schedule.name: can't be used with compare, which sets the schedule", "Use --schedules"],
        ),
        (["--run.seed=1"], ["--run.seed: can't be used with compare, which sets the seed", "Use --seeds"]),
        (["--run.resume", "somewhere"], ["run.resume: can't be used with compare, which resumes its own runs."]),
        (
            ["--schedule.kwargs", "{optimiser: fresh}"],
            ["schedule.kwargs: none of the schedules takes an argument 'optimiser'. They take ", "optimizer"],
        ),
        (["--phones.cuont", "3"], ["--phones.cuont", "--phones.count"]),
        (
            ["--model.name", "mpl"],
            ["model.name: there is no model 'mpl'", "Did you mean mlp?", "(in sequential_seed0)"],
        ),
        (["--schedules", "unsplit,splitfed_v3", "--phones.held_out", "0"], ["phones.held_out", "splitfed_v3_seed0"]),
        (
            ["--out", "nothing://bucket"],
            ["--out: 'nothing://bucket' can't be written to", "Name another folder or URI"],
        ),
    ],
    ids=" ".join,
)
def test_a_bad_setting_is_one_line_and_status_two_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], names: list[str]
) -> None:
    results = tmp_path / "results"
    place = [] if "--out" in flags else ["--out", str(results)]
    schedules = [] if "--schedules" in flags else ["--schedules", "sequential,parallel"]
    line = refused(capsys, *HERE, *place, *schedules, *flags)
    assert [name for name in names if name not in line] == [], line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "was"),
    [
        (["--optimizer.lr", "0.2"], "optimizer.lr was 0.1"),
        (["--run.rounds", "3"], "run.rounds: is 3, but was 2 when the comparison in this folder was started"),
    ],
    ids=["a setting", "rounds"],
)
def test_other_settings_than_those_of_the_finished_runs_are_refused(
    compared: Path, capsys: pytest.CaptureFixture[str], flags: list[str], was: str
) -> None:
    before = files_of(compared)
    assert was in refused(capsys, *arguments(compared, "--schedule.kwargs", "{statistics: average}", *flags))
    assert files_of(compared) == before


def test_a_regression_which_has_no_accuracy_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    of_values = ("--task.loss", "mse", "--data.name", "synthetic_regression", "--model.name", "mlp")
    line = refused(capsys, *arguments(tmp_path / "out", *of_values))
    assert "task.loss: " in line and "a regression has none" in line


def test_a_runs_own_folder_is_refused(compared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, *arguments(compared / "unsplit_seed0"))
    assert "--out" in line and "is the folder of a single run" in line


def test_inside_a_job_a_relative_folder_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert "--out: in a Ray job, 'results' would be in Ray's cache" in refused(capsys, *arguments(Path("results")))


def test_cohorts_and_replicas_are_left_to_the_schedules_that_have_some(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--schedules", "sequential,parallel", "--seeds", "0", "--phones.cohort", "2", "--print-config"]
    flags += ["--server.replicas", "2"]
    assert main([*HERE, *flags, "--run.storage_path", str(tmp_path), "--run.name", "mine"]) == 0
    sequential, parallel = yaml.safe_load_all(capsys.readouterr().out)
    assert (sequential["phones"]["cohort"], parallel["phones"]["cohort"]) == (1, 2)
    assert (sequential["server"]["replicas"], parallel["server"]["replicas"]) == (1, 2)
    assert sequential["run"]["storage_path"] == str(tmp_path / "mine")
    assert list(tmp_path.iterdir()) == []


def test_a_comparison_may_lie_at_a_uri(capsys: pytest.CaptureFixture[str]) -> None:
    flags = [*HERE, "--schedules", "splitfed_v1", "--seeds", "0", "--out", "memory://store/compared"]
    assert main(flags) == 0
    out = place("memory://store/compared")
    assert [path.name for path in children(out)] == [
        "compare.csv", "compare.md", "compare.png", "compare.tex", "splitfed_v1_seed0",
    ]  # fmt: skip
    assert (out / "compare.png").read_bytes().startswith(b"\x89PNG")
    capsys.readouterr()
    assert main(flags) == 0
    assert "(finished before)" in capsys.readouterr().out
