"""runs, show, diff, export: on runs in process, one of them below another folder, one killed, one with no summary."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import pytest
import yaml

import ray_split as rs
from ray_split import cli
from ray_split.experiments.runs.columns import COLUMNS, shown
from ray_split.experiments.runs.show import BARS, curve, spread, table_of_rounds


def trained(storage: Path, name: str, lr: float, rounds: int) -> Path:
    settings = rs.Config(
        model={"name": "mlp"}, phones={"count": 2}, optimizer={"lr": lr}, cluster={"backend": "inprocess"},
        run={"storage_path": str(storage), "name": name, "rounds": rounds},
    )  # fmt: skip
    return Path(rs.fit(settings, callbacks=[]).path)


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("storage")
    first = trained(folder, "low", 0.01, 2)
    trained(folder / "lr" / "runs", "high", 0.1, 3)
    shutil.copytree(first, folder / "killed")
    dead = json.loads((first / "summary.json").read_text())
    dead |= {"status": "running", "ended": None, "started": "2026-01-02T03:04:05Z"}
    (folder / "killed" / "summary.json").write_text(json.dumps(dead))
    (folder / "broken").mkdir()
    (folder / "broken" / "summary.json").write_text("{")
    (folder / "plain").mkdir()
    return folder


def said(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What a command prints, ending well."""
    assert cli.main([str(each) for each in arguments]) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line in which a command is refused."""
    assert cli.main([str(each) for each in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    return captured.err


def listed(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(said(capsys, "runs", *arguments, "--json"))
    return found


def test_runs_are_found_the_latest_first_wherever_they_lie(storage, capsys):
    rows = listed(capsys, storage)
    assert [(row["run"], row["status"], row["rounds"]) for row in rows] == [
        ("lr/runs/high", "finished", 3), ("low", "finished", 2), ("killed", "killed", 2),
    ]  # fmt: skip


def test_a_row_has_what_the_run_wrote(storage, capsys):
    row = listed(capsys, storage, "--columns", "run,val_accuracy,best_val_accuracy,optimizer.lr,seed")[0]
    rows = [json.loads(line) for line in (storage / "lr/runs/high/metrics.jsonl").read_text().splitlines()]
    assert row["val_accuracy"] == rows[-1]["val_accuracy"]
    assert row["best_val_accuracy"] == max(each["val_accuracy"] for each in rows)
    assert (row["optimizer.lr"], row["seed"]) == (0.1, 0)


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        (["--where", "status=finished"], ["lr/runs/high", "low"]),
        (["--where", "status!=finished"], ["killed"]),
        (["--where", "status == finished"], ["lr/runs/high", "low"]),
        (["--where", "started=2026-01-02"], ["killed"]),
        (["--where", "started>=2026-01-03"], ["lr/runs/high", "low"]),
        (["--where", "started<=2026-01", "--where", "started!=2026-01-01"], ["killed"]),
        (["--where", "optimizer.lr>=0.1"], ["lr/runs/high"]),
        (["--where", "optimizer.lr=0.01", "--where", "rounds < 3"], ["low", "killed"]),
        (["--where", "model.cuts=[layers.0, layers.1]"], ["lr/runs/high", "low", "killed"]),
        (["--where", "error=none", "--limit", "1"], ["lr/runs/high"]),
        (["--where", "schedule=parallel"], []),
        (["--sort", "started"], ["lr/runs/high", "low", "killed"]),
        (["--reverse"], ["killed", "low", "lr/runs/high"]),
        (["--sort", "optimizer.lr", "--where", "status=finished"], ["low", "lr/runs/high"]),
        (["--sort", "optimizer.lr", "--reverse", "--limit", "1"], ["lr/runs/high"]),
        (["--sort", "val_accuracy", "--limit", "1"], ["lr/runs/high"]),
        (["--sort", "train_loss", "--limit", "1"], ["lr/runs/high"]),
    ],
)
def test_they_are_chosen_and_put_in_order(storage, capsys, flags, names):
    assert [row["run"] for row in listed(capsys, storage, *flags)] == names


def test_the_table_has_a_line_a_run_and_what_can_not_be_read_is_told(storage, capsys, caplog):
    head, *lines = said(capsys, "runs", storage).splitlines()
    assert head.split()[:4] == ["run", "status", "started", "host"]
    assert [line.split()[0] for line in lines] == ["lr/runs/high", "low", "killed"]
    assert "broken" in caplog.text
    assert said(capsys, "runs", storage / "plain") == f"no runs in {storage / 'plain'}\n"


def test_a_run_is_shown_by_name_by_folder_or_as_the_latest(storage, capsys):
    latest = said(capsys, "show", "--storage", storage)
    assert latest == said(capsys, "show", storage / "lr/runs/high")
    assert latest == said(capsys, "show", "lr/runs/high", "--storage", storage)
    assert latest.startswith(f"{storage / 'lr/runs/high'}: finished, 3 rounds\n")
    settings = latest.partition("settings that are not the defaults\n")[2].partition("\nresults")[0]
    assert "  model.name" in settings
    assert "data.batch_size" not in settings
    assert "data.batch_size" in said(capsys, "show", "low", "--all", "--storage", storage)


def test_of_many_rounds_some_are_shown_the_first_and_the_last_among_them():
    assert spread(5, 12) == [0, 1, 2, 3, 4]
    assert spread(101, 3) == [0, 50, 100]
    assert curve([0.0, 0.5, 1.0]) == BARS[0] + BARS[4] + BARS[7]
    assert curve([2.0, 2.0]) == BARS[0] * 2


def test_rounds_are_counted_from_1_and_it_is_said_how_many_are_not_shown():
    rows = [{"round": i, "train_loss": 1.0} for i in range(15)]
    assert table_of_rounds(rows[:2]).split() == ["round", "train_loss", "1", "1", "2", "1"]
    *lines, last = table_of_rounds(rows).splitlines()
    assert last == "  12 of 15 rounds shown"
    assert [int(line.split()[0]) for line in lines[1:]] == [1, 2, 4, 5, 6, 7, 9, 10, 11, 12, 14, 15]


def test_a_difference_is_told_apart_from_noise(storage, capsys):
    text = said(capsys, "diff", "low", "lr/runs/high", "--storage", storage)
    settings, _, below = text.partition("\n\n")
    head, *lines = [line.split() for line in settings.splitlines()]
    assert head == ["low", "high"]
    assert lines == [["optimizer.lr", "0.01", "0.1"], ["run.rounds", "2", "3"]]
    results = dict(line.split(maxsplit=1) for line in below.splitlines() if line)
    assert results["rounds"].split() == ["2", "3"]
    assert below.splitlines()[-1].endswith("(--all): run.name, run.storage_path")
    assert "run.name " in said(capsys, "diff", "low", "lr/runs/high", "--all", "--storage", storage)
    assert "no setting differs" in said(capsys, "diff", "low", "killed", "--storage", storage)


def test_runs_are_exported_with_the_settings_that_differ(storage, tmp_path, capsys):
    rows = list(csv.DictReader(io.StringIO(said(capsys, "export", storage, "--format", "csv"))))
    assert [(row["run"], row["optimizer.lr"]) for row in rows] == [
        ("lr/runs/high", "0.1"), ("low", "0.01"), ("killed", "0.01"),
    ]  # fmt: skip
    out = tmp_path / "new" / "table.tex"
    said(capsys, "export", "low", "--columns", "run,val_accuracy", "--storage", storage, "--out", out)
    assert r"run & val\_accuracy \\" in out.read_text()
    said(capsys, "export", "low", "--columns", "run,rounds", "--storage", storage, "--out", tmp_path / "t.md")
    assert (tmp_path / "t.md").read_text() == "| run | rounds |\n| --- | --- |\n| low |      2 |\n"


def test_the_runs_to_export_are_chosen_and_put_in_order_as_those_to_list(storage, capsys):
    flags = ["--columns", "run", "--where", "rounds>=2", "--sort", "optimizer.lr", "--reverse", "--limit", "2"]
    assert said(capsys, "export", storage, *flags).split() == [
        "run",
        *(r["run"] for r in listed(capsys, storage, *flags)),
    ]
    assert said(capsys, "export", storage / "low", storage, "--columns", "run", "--limit", "1").split() == [
        "run",
        "low",
    ]


def test_rounds_are_exported_as_they_are(storage, capsys):
    text = said(capsys, "export", "low", storage / "lr/runs/high", "--rounds", "--storage", storage)
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [(row["run"], row["round"]) for row in rows] == [("low", "0"), ("low", "1")] + [
        ("high", str(round)) for round in range(3)
    ]
    first = json.loads((storage / "low/metrics.jsonl").read_text().splitlines()[0])
    assert float(rows[0]["train_loss"]) == first["train_loss"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["runs", "nowhere"], ["there is no folder 'nowhere'. Check the path."]),
        (["runs", "{}", "--where", "optimizer.rl=1"], ["--where", "Did you mean optimizer.lr?"]),
        (["runs", "{}", "--where", "lr"], ["--where", "optimizer.lr>=0.1"]),
        (["runs", "{}", "--where", "rounds<many"], ["--where: < needs a number after it, not 'many'"]),
        (["runs", "{}", "--sort", "best"], ["--sort: there is no column 'best'. You can use any setting, "]),
        (
            ["runs", "{}", "--columns", "run,run"],
            ["--columns: must be a list such as a,b, with each name once, not 'run,run'"],
        ),
        (["runs", "{}", "--limit", "0"], ["--limit"]),
        (
            ["show", "lwo", "--storage", "{}"],
            ["there is no run 'lwo' in ", "Did you mean low?", "lists the runs there"],
        ),
        (["show", "low", "--storage", "{}/nowhere"], ["there is no run 'low' in ", "--storage FOLDER"]),
        (["show", "{}/broken"], ["broken/summary.json' can't be read"]),
        (["show", "--storage", "{}/plain"], ["there is no run in ", "ray-split train"]),
        (["diff", "low", "--storage", "{}"], ["diff needs two runs or more, but was given only 'low'"]),
        (["export", "{}/plain", "--storage", "{}"], ["is not a run's folder: it has no summary.json"]),
        (["export", "{}", "--rounds", "--columns", "run"], ["--columns", "--rounds"]),
        (["export", "{}", "--out", "{}/t.xlsx"], ["--out", ".xlsx is a file of another kind", ".csv, .md, .tex"]),
        (["export", "{}", "--where", "rounds>9"], ["--where", "none of these runs meets it"]),
        (["export", "{}", "--out", "{}/low/summary.json/x.csv"], ["--out", "can't be written"]),
    ],
)
def test_what_can_not_be_is_refused_in_a_line(storage, capsys, arguments, words):
    line = refused(capsys, *(each.replace("{}", str(storage)) for each in arguments))
    assert all(word in line for word in words), line


def test_a_value_is_shown_as_people_read_it():
    texts = [shown(value) for value in (None, True, 0.123456, 12, "word", ["a", "b"], {"x": 0.1})]
    assert texts == ["-", "true", "0.1235", "12", "word", "[a, b]", "{x: 0.1}"]
    assert shown(None, full=True) == "none"


def test_a_column_of_ours_hides_no_key_of_the_summary(storage):
    summary = json.loads((storage / "low/summary.json").read_text())
    assert {"run", "train_loss", "val_loss", "val_accuracy"}.isdisjoint(summary)
    assert set(COLUMNS) - set(summary) == {"run", "train_loss", "val_loss", "val_accuracy"}


def test_an_older_run_without_provenance_is_listed_too(storage, tmp_path, capsys):
    shutil.copytree(storage / "low", tmp_path / "old")
    summary = json.loads((tmp_path / "old/summary.json").read_text())
    for key in ("started", "ended", "host", "command", "git_commit", "git_changes"):
        del summary[key]
    (tmp_path / "old/summary.json").write_text(json.dumps(summary))
    assert [row["started"] for row in listed(capsys, tmp_path)] == [None]
    config = yaml.safe_load((tmp_path / "old/config.yaml").read_text())
    config["optimizer"]["gone"] = 1  # a setting of another version
    (tmp_path / "old/config.yaml").write_text(yaml.safe_dump(config))
    assert "optimizer.lr" in said(capsys, "show", tmp_path / "old")
