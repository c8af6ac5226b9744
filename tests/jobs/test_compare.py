"""A comparison: the numbers of its table, worked out by hand, and whole comparisons of small runs."""

from __future__ import annotations

import csv
import io
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import ray_split as rs
from jobs.submit import environment
from ray_split.experiments.compare import main as compare
from ray_split.experiments.compare import plots, tables
from ray_split.experiments.compare import results as tally
from ray_split.filesystem import children, place
from tests.conftest import ROOT, RayHead

SMALL = ["--model.name", "mlp", "--phones.count", "4", "--phones.local_steps", "2", "--run.rounds", "2"]
HERE = ["--cluster.backend", "inprocess", *SMALL]
COMPARED = ("unsplit", "splitfed_v1", "splitfed_v3")


def write_run(
    out: Path, schedule: str, seed: int, scores: list[float | None], status: str = "finished", **summary: Any
) -> None:
    """A run of 4 phones, a second a round longer than the one before, 100 + 200 + 1000 bytes a round."""
    folder = out / f"{schedule}_seed{seed}"
    folder.mkdir(parents=True)
    sizes = {"bytes_up": 100, "bytes_down": 200, "bytes_weights": 1000} | summary.pop("sizes", {})
    rows = [
        {"round": i, "val_accuracy": score, "phones": 4, "round_seconds": i + 1.0, **sizes}
        for i, score in enumerate(scores)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    figures = {"test_accuracy": 0.1, "test_accuracy_at_best_val": 0.8, "phone_rounds_per_second": 10.0}
    (folder / "summary.json").write_text(json.dumps({"status": status, "error": None, **figures, **summary}))


@pytest.fixture
def made_up(tmp_path: Path) -> list[tally.Run]:
    """unsplit reaches 0.9 twice, sequential once of two, splitfed_v3 never and once failed, parallel failed twice."""
    write_run(tmp_path, "unsplit", 0, [0.5, 0.9, 0.96], test_accuracy_at_best_val=0.8, phone_rounds_per_second=10.0)
    write_run(tmp_path, "unsplit", 1, [0.5, 0.8, 0.94], test_accuracy_at_best_val=0.9, phone_rounds_per_second=20.0)
    write_run(tmp_path, "sequential", 0, [0.3, None, 0.91])
    write_run(tmp_path, "sequential", 1, [0.3, None, 0.89], test_accuracy_at_best_val=None)
    write_run(tmp_path, "splitfed_v3", 0, [0.2, 0.2, 0.3])
    write_run(tmp_path, "splitfed_v3", 1, [0.95, 0.95], status="failed", error="Boom_1: 5 % & more\nsecond line")
    write_run(tmp_path, "parallel", 0, [0.95], status="running")
    return tally.read(tmp_path, ["unsplit", "sequential", "splitfed_v3", "parallel"], [0, 1])


def by_schedule(runs: list[tally.Run], target: float | None = 0.9) -> dict[str, tally.Line]:
    return {line.schedule: line for line in tally.lines(runs, target)}


def test_mean_and_sample_deviation_are_over_the_seeds(made_up: list[tally.Run]) -> None:
    cells = by_schedule(made_up)["unsplit"].cells
    assert cells["accuracy"] == pytest.approx((0.85, 0.1 / 2**0.5, 2))
    assert cells["phone_rounds_per_second"] == pytest.approx((15, 10 / 2**0.5, 2))


def test_what_the_target_cost_is_summed_up_to_the_round_that_reached_it(made_up: list[tally.Run]) -> None:
    cells = by_schedule(made_up)["unsplit"].cells  # in rounds 2 and 3
    assert cells["rounds_to_target"] == pytest.approx((2.5, 0.5**0.5, 2))
    assert cells["bytes_to_target"] == pytest.approx((1300 * 2.5, 1300 * 0.5**0.5, 2))
    assert cells["seconds_to_target"] == pytest.approx(((3 + 6) / 2, 3 / 2**0.5, 2))


def test_a_seed_that_did_not_reach_the_target_is_not_in_its_mean(made_up: list[tally.Run]) -> None:
    cells = by_schedule(made_up)["sequential"].cells  # the second round had no validation, and counts
    assert cells["rounds_to_target"] == (3, None, 1)
    assert cells["bytes_to_target"] == (3900, None, 1)
    assert cells["seconds_to_target"] == (6, None, 1)
    assert by_schedule(made_up)["splitfed_v3"].cells["rounds_to_target"] == (None, None, 0)


def test_bytes_are_per_phone_and_round(made_up: list[tally.Run]) -> None:
    cells = by_schedule(made_up)["unsplit"].cells
    means = {kind: cells[f"bytes_{kind}_per_phone_round"].mean for kind in ("up", "down", "weights")}
    assert means == {"up": 25, "down": 50, "weights": 250}


def test_without_validation_the_last_rounds_test_accuracy_counts(made_up: list[tally.Run]) -> None:
    assert by_schedule(made_up)["sequential"].cells["accuracy"].mean == pytest.approx((0.8 + 0.1) / 2)


def test_a_failed_run_is_left_out_of_all_means_and_named(made_up: list[tally.Run]) -> None:
    table = by_schedule(made_up)
    assert table["splitfed_v3"].finished == 1
    assert table["splitfed_v3"].failed == {1: "Boom_1: 5 % & more second line"}
    assert table["splitfed_v3"].cells["accuracy"] == (0.8, None, 1)
    assert table["parallel"].failed == {
        0: "not finished, summary.json says running",
        1: "not finished, summary.json says nothing",
    }
    assert {cell.mean for cell in table["parallel"].cells.values()} == {None}


def test_the_default_target_is_95_percent_of_unsplits_best_mean(made_up: list[tally.Run]) -> None:
    assert tally.default_target(made_up) == pytest.approx((0.95 * 0.95, "unsplit"))
    others = [run for run in made_up if run.schedule != "unsplit"]
    assert tally.default_target(others) == pytest.approx((0.95 * 0.9, "sequential"))


def test_a_personal_schedule_sets_the_target_only_for_its_own_kind(tmp_path: Path) -> None:
    write_run(tmp_path, "splitfed_v3", 0, [0.9])
    write_run(tmp_path, "parallel", 0, [0.6])
    both = tally.read(tmp_path, ["splitfed_v3", "parallel"], [0])
    assert tally.default_target(both) == pytest.approx((0.95 * 0.6, "parallel"))
    assert tally.default_target(both[:1]) == pytest.approx((0.95 * 0.9, "splitfed_v3"))


def test_without_validation_there_is_no_target(tmp_path: Path) -> None:
    write_run(tmp_path, "parallel", 0, [None, None])
    runs = tally.read(tmp_path, ["parallel"], [0])
    assert tally.default_target(runs) is None
    assert by_schedule(runs, None)["parallel"].cells["rounds_to_target"].mean is None
    assert "rounds to target" in tables.to_markdown(tally.lines(runs, None), None)


def test_the_csv_has_plain_numbers(made_up: list[tally.Run]) -> None:
    text = tables.to_csv(tally.lines(made_up, 0.9), 0.9)
    unsplit, sequential, splitfed_v3, parallel = csv.DictReader(io.StringIO(text))
    assert unsplit["schedule"] == "unsplit"
    counts = ("finished", "failed", "personal", "target", "reached")
    assert [unsplit[name] for name in counts] == ["2", "0", "0", "0.9", "2"]
    assert [splitfed_v3[name] for name in counts] == ["1", "1", "1", "0.9", "0"]
    assert float(unsplit["bytes_to_target_mean"]) == 3250
    assert float(unsplit["accuracy_std"]) == pytest.approx(0.0707106781)
    assert (sequential["rounds_to_target_mean"], sequential["rounds_to_target_std"]) == ("3.0", "")
    assert (parallel["accuracy_mean"], parallel["failed"]) == ("", "2")


def test_the_markdown_is_for_people(made_up: list[tally.Run]) -> None:
    text = tables.to_markdown(tally.lines(made_up, 0.9), 0.9)
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    assert cells == [
        ["schedule", "test accuracy", "rounds to 0.9", "kB to 0.9", "s to 0.9", "up (B)", "down (B)", "weights (B)",
         "phone-rounds/s"],
        ["-" * 13, *(":".rjust(len(rule), "-") for rule in cells[1][1:])],
        ["unsplit", "0.8500 ± 0.0707", "2.50", "3.25", "4.50", "25", "50", "250", "15"],
        ["sequential", "0.4500 ± 0.4950", "3 (1 of 2)", "3.90 (1 of 2)", "6 (1 of 2)", "25", "50", "250", "10"],
        ["splitfed_v3†‡", "0.8000", "-", "-", "-", "25", "50", "250", "10"],
        ["parallel‡", "failed", *"-------"],
    ]  # fmt: skip
    assert len({len(line) for line in text.splitlines() if line[:1] == "|"}) == 1
    assert "† accuracies are means over the phones' own models" in text
    assert "‡ splitfed_v3 seed 1 failed: Boom_1: 5 % & more second line" in text


def test_the_latex_is_a_tabular_with_nothing_unescaped(made_up: list[tally.Run]) -> None:
    text = tables.to_latex(tally.lines(made_up, 0.9), 0.9)
    assert r"\begin{tabular}{lrrrrrrrr}" in text
    assert text.index(r"\toprule") < text.index(r"\midrule") < text.index(r"\bottomrule") < text.index(r"\end{tabular}")
    assert r"unsplit & 0.8500 $\pm$ 0.0707 & 2.50 & 3.25 & 4.50 & 25 & 50 & 250 & 15 \\" in text
    assert r"splitfed\_v3$^{\dagger}$$^{\ddagger}$ & 0.8000" in text
    assert r"failed: Boom\_1: 5 \% \& more second line" in text
    rows = [line for line in text.splitlines() if " & " in line and "multicolumn" not in line]
    assert [line.count(" & ") for line in rows] == [8] * 5


def test_latex_escapes_every_sign_that_means_something() -> None:
    plain = r"a_b & 5% #1 {x} $ ~ ^ \ <>"
    expected = r"a\_b \& 5\% \#1 \{x\} \$ \textasciitilde{} \textasciicircum{} \textbackslash{} "
    assert tables.escaped(plain) == expected + r"\textless{}\textgreater{}"


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0, "0"), (12.0, "12"), (12.345, "12.3"), (1234.5, "1234"), (0.01234, "0.0123"), (1e-5, "0.0000100")],
)
def test_numbers_have_three_figures_and_no_exponent(value: float | None, text: str) -> None:
    assert tables.figures(value) == text


def test_the_plot_has_a_line_a_schedule_and_none_against_bytes_where_nothing_crossed(tmp_path: Path) -> None:
    nothing = {"bytes_up": 0, "bytes_down": 0, "bytes_weights": 0}
    for seed in (0, 1):
        write_run(tmp_path, "unsplit", seed, [0.5, 0.7 + seed / 10], sizes=nothing)
        write_run(tmp_path, "parallel", seed, [0.4, None, 0.6])
    runs = tally.read(tmp_path, ["unsplit", "parallel"], [0, 1])
    against_rounds, against_bytes = plots.figure_of(runs, 0.7).axes
    drawn = {line.get_label(): line for line in against_rounds.lines}
    assert list(drawn) == ["unsplit", "parallel", "target 0.7"]
    assert [*np.asarray(drawn["unsplit"].get_ydata())] == [0.5, 0.75]
    assert [*np.asarray(drawn["parallel"].get_xdata())] == [1, 3]
    assert [line.get_label() for line in against_bytes.lines] == ["parallel", "target 0.7"]
    assert np.asarray(against_bytes.lines[0].get_xdata()) == pytest.approx([1300 / 1e6, 3900 / 1e6])
    plots.plot(runs, 0.7, tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_a_plot_of_failed_runs_alone_is_empty(tmp_path: Path) -> None:
    plots.plot(tally.read(tmp_path, ["unsplit"], [0]), None, tmp_path / "x.png")


# Whole comparisons.


def arguments(out: Path, *more: str) -> list[str]:
    return [*HERE, "--schedules", ",".join(COMPARED), "--seeds", "0,1", "--out", str(out), *more]


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a comparison of three schedules over two seeds."""
    out = tmp_path_factory.mktemp("comparison") / "out"
    assert compare.main(arguments(out, "--schedule.kwargs", "{statistics: average}")) == 0
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
    assert compare.main(arguments(compared, "--schedule.kwargs", "{statistics: average}")) == 0
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
    assert compare.main(arguments(compared, "--schedule.kwargs", "{statistics: average}")) == 0
    assert (compared / "compare.tex").exists()
    assert "no plot" in (printed := capsys.readouterr().out) and "pip install matplotlib" in printed


class Interrupt(rs.Callback):
    """Ctrl-C after the first round."""

    def on_round_end(self, row: dict[str, Any]) -> None:
        raise rs.RunStoppedError(signal.SIGINT)


def test_an_interrupted_comparison_goes_on_where_it_stopped(
    compared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[tuple[str, int]] = []
    stop_in = {"splitfed_v1_seed0"}

    class Begun(rs.Callback):
        def on_run_start(self, settings: rs.Config, where: list[str], first_round: int) -> None:
            begun.append((str(settings.run.name), first_round))

    def fit(settings: rs.Config, callbacks: list[rs.Callback]) -> rs.Result:
        return rs.fit(settings, [Begun(), *callbacks, *([Interrupt()] if settings.run.name in stop_in else [])])

    monkeypatch.setattr(compare, "fit", fit)
    out, flags = tmp_path / "out", ("--schedule.kwargs", "{statistics: average}")
    assert compare.main(arguments(out, *flags)) == 130
    assert f"the same command with --out {out} goes on" in capsys.readouterr().err
    assert [name for name, _ in begun] == ["unsplit_seed0", "splitfed_v1_seed0"]
    assert not (out / "compare.csv").exists()
    finished = {path: time for path, time in files_of(out).items() if "unsplit_seed0" in path.parts}
    begun.clear()
    stop_in.clear()
    assert compare.main(arguments(out, *flags)) == 0
    rest = ["splitfed_v3_seed0", *(f"{schedule}_seed1" for schedule in COMPARED)]
    assert begun == [("splitfed_v1_seed0", 1), *((name, 0) for name in rest)]
    assert finished
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    for name in ("splitfed_v1_seed0", "splitfed_v3_seed1"):
        assert (out / name / "model.safetensors").read_bytes() == (compared / name / "model.safetensors").read_bytes()


BREAKS = """
def breaks(turn, stream, roles):
    yield roles.fed_server.client_state.remote(turn)
    raise RuntimeError("first line\\nsecond line")
"""


def test_a_failed_run_does_not_keep_the_others_and_gives_status_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "breaking.py").write_text(BREAKS)
    monkeypatch.syspath_prepend(tmp_path)
    out = tmp_path / "out"
    flags = ["--schedules", "breaking:breaks,unsplit", "--seeds", "0", "--out", str(out)]
    assert compare.main([*HERE, *flags]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "1/2 breaks_seed0: failed: RuntimeError: first line second line"
    assert lines[1].startswith("2/2 unsplit_seed0: test accuracy ")
    broken, unsplit = csv.DictReader((out / "compare.csv").open())
    assert (broken["schedule"], broken["failed"], unsplit["finished"]) == ("breaking:breaks", "1", "1")
    assert "‡ breaks seed 0 failed: RuntimeError: first line second line" in lines


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert compare.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1 and captured.err.startswith("error: ")
    return captured.err


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        (["--schedules", "splitfed_v9"], ["--schedules: 'splitfed_v9'", "did you mean splitfed_v"]),
        (["--schedules", "unsplit,unsplit"], ["--schedules: 'unsplit,unsplit'", "each once"]),
        (["--seeds", "0,x"], ["--seeds: '0,x'", "whole numbers"]),
        (["--seeds", "1,01"], ["--seeds: '1,01'", "each once"]),
        (["--seeds", ""], ["--seeds: ''"]),
        (["--target", "90"], ["--target: '90'", "at most 1"]),
        (["--target"], ["--target", "expected one argument"]),
        (["--schedule.name", "parallel"], ["'--schedule.name'", "--schedules"]),
        (["--run.seed=1"], ["'--run.seed=1'", "--seeds"]),
        (["--run.resume", "somewhere"], ["run.resume: 'somewhere'"]),
        (["--schedule.kwargs", "{optimiser: fresh}"], ["schedule.kwargs: {'optimiser': 'fresh'}", "optimizer"]),
        (["--phones.cuont", "3"], ["--phones.cuont", "--phones.count"]),
        (["--model.name", "mpl"], ["model.name: 'mpl'", "did you mean mlp?", "(in sequential_seed0)"]),
        (["--schedules", "unsplit,splitfed_v3", "--phones.held_out", "0"], ["phones.held_out", "splitfed_v3_seed0"]),
        (["--out", "nothing://bucket"], ["--out: 'nothing://bucket'", "a local path"]),
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
    [(["--optimizer.lr", "0.2"], "optimizer.lr was 0.1"), (["--run.rounds", "3"], "run.rounds: 3 is not possible")],
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
    assert "task.loss: 'mse'" in line and "a regression has none" in line


def test_a_runs_own_folder_is_refused(compared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, *arguments(compared / "unsplit_seed0"))
    assert "--out" in line and "a run's own" in line


def test_inside_a_job_a_relative_folder_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert "--out: 'results' is not possible; it may be absolute" in refused(capsys, *arguments(Path("results")))


def test_cohorts_and_replicas_are_left_to_the_schedules_that_have_some(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--schedules", "sequential,parallel", "--seeds", "0", "--phones.cohort", "2", "--print-config"]
    flags += ["--server.replicas", "2"]
    assert compare.main([*HERE, *flags, "--run.storage_path", str(tmp_path), "--run.name", "mine"]) == 0
    sequential, parallel = yaml.safe_load_all(capsys.readouterr().out)
    assert (sequential["phones"]["cohort"], parallel["phones"]["cohort"]) == (1, 2)
    assert (sequential["server"]["replicas"], parallel["server"]["replicas"]) == (1, 2)
    assert sequential["run"]["storage_path"] == str(tmp_path / "mine")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_all_runs_share_one_ray(tmp_path: Path, ray_session: RayHead) -> None:
    from ray.util.state import list_actors, list_jobs

    there = {"address": ray_session.dashboard, "limit": 1000}

    def servers() -> dict[str, str]:
        return {actor.actor_id: actor.job_id for actor in list_actors(**there) if actor.class_name == "Server"}

    before, jobs = servers(), len(list_jobs(**there))
    flags = ["--schedules", "unsplit,splitfed_v1", "--seeds", "0", "--out", str(tmp_path / "out")]
    command = [sys.executable, "-m", "jobs.compare", *SMALL, *flags, "--run.rounds", "1", "--server.num_gpus", "0"]
    env = environment(RAY_ADDRESS=ray_session.address)
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    new = {actor: job for actor, job in servers().items() if actor not in before}
    assert (len(new), len(set(new.values())), len(list_jobs(**there)) - jobs) == (2, 1, 1)
    assert done.stdout.splitlines()[1].startswith("2/2 splitfed_v1_seed0: test accuracy ")
    assert {summary_in(path)["status"] for path in (tmp_path / "out").glob("*_seed0")} == {"finished"}


def test_a_comparison_may_lie_at_a_uri(capsys: pytest.CaptureFixture[str]) -> None:
    flags = [*HERE, "--schedules", "splitfed_v1", "--seeds", "0", "--out", "memory://store/compared"]
    assert compare.main(flags) == 0
    out = place("memory://store/compared")
    assert [path.name for path in children(out)] == [
        "compare.csv", "compare.md", "compare.png", "compare.tex", "splitfed_v1_seed0",
    ]  # fmt: skip
    assert (out / "compare.png").read_bytes().startswith(b"\x89PNG")
    capsys.readouterr()
    assert compare.main(flags) == 0
    assert "(finished before)" in capsys.readouterr().out
