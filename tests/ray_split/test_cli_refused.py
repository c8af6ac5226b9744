"""What the command refuses: one line, status 2, and nothing is written."""

import json
import sys

import pytest

from ray_split import cli

MODULE = """
from torch import nn

def plain(num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, num_classes))

class Tupled(nn.Sequential):
    def forward(self, x):
        scores = super().forward(x)
        return scores, scores.mean()

def tupled(num_classes):
    return Tupled(*plain(num_classes))

def no_module():
    return 3

def failing():
    raise RuntimeError("first line\\nsecond line")

def normed(num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, num_classes))
"""


@pytest.fixture(autouse=True)
def module(tmp_path, monkeypatch):
    (tmp_path / "theirs.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("COLUMNS", "1000")
    yield
    sys.modules.pop("theirs", None)


def refused(capsys, tmp_path, *arguments):
    """The one line on stderr, once it is sure that nothing was written."""
    results = tmp_path / "results"
    place = [] if "--run.storage_path" in arguments else ["--run.storage_path", str(results)]
    assert cli.main(["train", "--cluster.backend", "inprocess", *place, *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("error: ")
    assert "Traceback" not in captured.err
    assert not results.exists()
    return captured.err


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--phones.cuont", "3"], ["--phones.cuont", "did you mean --phones.count?"]),
        (["--nonsense"], ["--nonsense", "--help"]),
        (["--phones.c", "3"], ["--phones.c"]),
        (["stray"], ["stray"]),
        (["--phones.count"], ["--phones.count", "expected one argument"]),
        (["--phones.count", "many"], ["phones.count: 'many'", "valid integer"]),
        (["--phones.count", "0"], ["phones.count: '0'", "greater than or equal to 1"]),
        (["--phones.per_round", "21"], ["phones.per_round: '21'", "at most phones.count, 20"]),
        (["--phones.cohort", "0"], ["phones.cohort: '0'", "'auto' or: greater than or equal to 1"]),
        (["--phones.cohort", "4"], ["phones.cohort: 4", "left out", "sequential"]),
        (["--phones.stacked", "a", "--schedule.name", "splitfed_v2"], ["phones.stacked: ['a']", "splitfed_v2"]),
        (["--phones.held_out", "1"], ["phones.held_out: '1'", "less than 1"]),
        (["--data.partition.name", "dirichlet", "--data.partition.alpha", "1e-3"], ["data.partition", "larger"]),
        (["--optimizer.lr", "nan"], ["optimizer.lr: 'nan'", "finite number"]),
        (["--optimizer.name", "adam", "--optimizer.momentum", "0.9"], ["optimizer.momentum", "adam has none"]),
        (["--phones.local_epochs", "1", "--phones.local_steps", "2"], ["phones.local_steps: '2'"]),
        (["--model.kwargs", "[1"], ["model.kwargs: '[1'", "a YAML mapping"]),
        (["--model.kwargs", "3"], ["model.kwargs", "valid dictionary"]),
        (["--config", "no/such.yaml"], ["--config: 'no/such.yaml'", "No such file"]),
        (["--run.name", "a/b"], ["run.name: 'a/b'", "one folder"]),
        (["--run.storage_path", "nothing://bucket"], ["run.storage_path: 'nothing://bucket'", "path, or a URI"]),
        (["--run.storage_path", "s3://b?bogus=1"], ["run.storage_path: 's3://b?bogus=1'", "a local path, or a URI"]),
        (["--config", "memory://nothing/config.yaml"], ["--config: 'memory://nothing/config.yaml'", "YAML file"]),
        (["--run.resume"], ["run.name", "the name of the run to resume"]),
        (["--run.resume", "/no/such/run"], ["run.resume", "the folder of a run"]),
        (["--data.name", "digit"], ["data.name: 'digit'", "did you mean digits?"]),
        (["--data.name", "cifar10"], ["data.path: None", "cifar-10-batches-py"]),
        (["--data.path", "/no/such/folder"], ["data.path: '/no/such/folder'", "a folder that exists"]),
        (["--data.kwargs", "{download: true}"], ["data.kwargs: 'download'"]),
        (["--data.partition.name", "idd"], ["data.partition.name: 'idd'", "did you mean iid?"]),
        (["--phones.count", "1295"], ["phones.count: 1295", "at most 1294", "1294 training samples"]),
        (["--schedule.name", "sequentail"], ["schedule.name: 'sequentail'", "did you mean sequential?"]),
        (["--schedule.kwargs", "{optimizer: new}"], ["schedule.kwargs", "handed_on"]),
        (["--schedule.kwargs", "{optimizer: [fresh]}"], ["schedule.kwargs", "handed_on"]),
        (["--schedule.name", "splitfed_v1", "--schedule.kwargs", "{statistics: mine}"], ["average or local"]),
        (["--schedule.name", "splitfed_v3", "--schedule.kwargs", "{statistics: local}"], ["may be empty"]),
        (["--aggregator.name", "median"], ["aggregator.name: 'median'", "nothing is averaged"]),
        (["--aggregator.name", "trimmed", "--schedule.name", "parallel"], ["did you mean trimmed_mean?"]),
        (
            ["--schedule.name", "splitfed_v1", "--aggregator.name", "trimmed_mean", "--aggregator.kwargs", "{trim: 1}"],
            ["aggregator.kwargs: {'trim': 1}", "below 0.5"],
        ),
        (["--aggregator.kwargs", "{trim: 0.1}"], ["aggregator.kwargs: 'trim'", "empty"]),
        (["--task.loss", "mes"], ["task.loss: 'mes'", "did you mean mse?"]),
        (["--task.loss", "mse"], ["task.loss: 'mse'", "digits has whole numbers for labels", "astype(float)"]),
        (["--model.name", "mpl"], ["model.name: 'mpl'", "did you mean mlp?"]),
        (["--model.name", "theirs:nope"], ["model.name: 'theirs:nope'", "no attribute 'nope'"]),
        (["--model.name", "no_such_module:f"], ["model.name", "No module named 'no_such_module'"]),
        (["--model.name", ":f", "--model.cuts", "0,1"], ["model.name: ':f'"]),
        (["--model.name", ".models:f", "--model.cuts", "0,1"], ["model.name: '.models:f'"]),
        (["--model.name", "theirs:", "--model.cuts", "0,1"], ["model.name: 'theirs:'"]),
        (["--model.name", "theirs:plain"], ["model.cuts: None", "two layers of your model"]),
        (["--model.name", "theirs:no_module", "--model.cuts", "0,1"], ["model.name", "a torch module, not 3"]),
        (["--model.name", "theirs:failing", "--model.cuts", "0,1"], ["model.name: 'theirs:failing'", "first line"]),
        (["--model.name", "theirs:tupled", "--model.cuts", "1,2"], ["is not possible"]),
        (["--model.name", "resnet18"], ["model.name: 'resnet18'", "batches of shape"]),
        (["--model.num_classes", "9"], ["model.num_classes: 9", "at least 10"]),
        (["--model.kwargs", "{widht: 3}"], ["model.kwargs: 'widht'", "width"]),
        (["--model.kwargs", "{width: wide}"], ["model.kwargs: {'width': 'wide'}"]),
        (["--model.kwargs", "{width: -1}"], ["model.kwargs: {'width': -1}"]),
        (["--model.cuts", "block1,nope"], ["model.cuts: 'nope'", "block1, block2, hidden, head"]),
        (["--model.cuts", "hidden,block1"], ["model.cuts", "block1, hidden"]),
        (["--model.cuts", "block1,head"], ["model.cuts: 'head'", "not the last"]),
        (
            ["--model.cuts", "block1,block2,hidden"],
            ["model.cuts: ['block1', 'block2', 'hidden']", "one layer", "or two"],
        ),
        (
            ["--phones.count", "1294", "--model.name", "theirs:normed", "--model.cuts", "1,2"],
            ["data.batch_size: 16", "BatchNorm"],
        ),
    ],
    ids=lambda value: " ".join(value)[:60],
)
def test_a_mistake_is_one_line_and_status_two(capsys, tmp_path, arguments, names):
    line = refused(capsys, tmp_path, *arguments)
    assert [name for name in names if name not in line] == [], line


@pytest.mark.parametrize("arguments", [[], ["trian"], ["--phones.count", "3"]], ids=str)
def test_a_command_that_is_none_is_one_line(capsys, arguments):
    assert cli.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert "command" in captured.err
    assert repr(" ".join(arguments)) in captured.err


@pytest.mark.parametrize("flag", ["--run.storage_path", "--run.name"])
def test_a_file_where_the_folder_should_be_is_one_line(capsys, tmp_path, flag):
    (tmp_path / "file").write_text("mine")
    place = {"--run.storage_path": str(tmp_path), "--run.name": "file"}
    if flag == "--run.storage_path":
        place = {"--run.storage_path": str(tmp_path / "file"), "--run.name": "x"}
    line = refused(capsys, tmp_path, *(word for pair in place.items() for word in pair))
    assert flag.removeprefix("--") in line
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_of_something_else_is_left_alone(capsys, tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "thesis.txt").write_text("mine")
    line = refused(capsys, tmp_path, "--run.storage_path", str(tmp_path), "--run.name", "x")
    assert "run.name: 'x'" in line
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["thesis.txt"]


def test_a_finished_run_has_status_zero_and_is_not_overwritten(capsys, tmp_path):
    small = ["--phones.count", "2", "--phones.local_steps", "1", "--run.rounds", "1"]
    where = ["--cluster.backend", "inprocess", "--run.storage_path", str(tmp_path), "--run.name", "x"]
    assert cli.main(["train", *small, *where]) == 0
    assert json.loads((tmp_path / "x" / "summary.json").read_text())["status"] == "finished"
    capsys.readouterr()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "x").rglob("*")}
    assert "run.name: 'x'" in refused(capsys, tmp_path, *small, *where)
    assert "phones.count was 2" in refused(capsys, tmp_path, *small, *where, "--run.resume", "--phones.count", "3")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "x").rglob("*")} == before
