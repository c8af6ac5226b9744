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
        (["--phones.cuont", "3"], ["--phones.cuont", "Did you mean --phones.count?"]),
        (["--nonsense"], ["there is no flag '--nonsense'", "--help-all"]),
        (["--phones.c", "3"], ["--phones.c"]),
        (["stray"], ["stray"]),
        (["--phones.count"], ["--phones.count", "needs a value, a whole number"]),
        (["--phones.count", "many"], ["phones.count: must be a whole number, not 'many'."]),
        (["--phones.count", "0"], ["phones.count: must be at least 1, not 0."]),
        (["--phones.per_round", "21"], ["phones.per_round: is 21, but there are only 20 phones."]),
        (["--phones.cohort", "0"], ["phones.cohort: must be auto or at least 1, not 0."]),
        (
            ["--phones.cohort", "4"],
            ["phones.cohort: can't be used with schedule.name sequential, which trains one phone at a time."],
        ),
        (
            ["--phones.stacked", "a", "--schedule.name", "splitfed_v2"],
            ["phones.stacked: can't be used with schedule.name splitfed_v2, which trains one phone at a time"],
        ),
        (["--phones.held_out", "1"], ["phones.held_out: must be less than 1, not 1."]),
        (
            ["--data.partition.name", "dirichlet", "--data.partition.alpha", "1e-3"],
            ["data.partition", "raise data.partition.alpha"],
        ),
        (["--optimizer.lr", "nan"], ["optimizer.lr: must be a finite number, not 'nan'."]),
        (
            ["--optimizer.name", "adam", "--optimizer.momentum", "0.9"],
            ["optimizer.momentum", "can't be used with adam, which has no momentum"],
        ),
        (
            ["--phones.local_epochs", "1", "--phones.local_steps", "2"],
            ["phones.local_steps: can't be used together with phones.local_epochs."],
        ),
        (["--model.kwargs", "[1"], ['model.kwargs: is not valid YAML: "[1".']),
        (["--model.kwargs", "3"], ["model.kwargs", "a mapping, such as '{width: 3}'"]),
        (["--config", "no/such.yaml"], ["--config: there is no file 'no/such.yaml'."]),
        (["--run.name", "a/b"], ["run.name: 'a/b' contains a slash."]),
        (
            ["--run.storage_path", "nothing://bucket"],
            ["run.storage_path: 'nothing://bucket'", "can't be written to", "to a local path, or another URI."],
        ),
        (
            ["--run.storage_path", "s3://b?bogus=1"],
            ["run.storage_path: 's3://b?bogus=1'", "to a local path, or another URI."],
        ),
        (
            ["--config", "memory://nothing/config.yaml"],
            ["--config: there is no file 'memory://nothing/config.yaml'. Check the path."],
        ),
        (["--run.resume"], ["run.resume: needs the name of the run to resume."]),
        (["--run.resume", "/no/such/run"], ["run.resume", "Give the folder of a run"]),
        (["--data.name", "digit"], ["data.name: there is no data set 'digit'", "Did you mean digits?"]),
        (["--data.name", "cifar10"], ["data.path: is not set, and cifar10 needs it", "cifar-10-batches-py"]),
        (
            ["--data.path", "/no/such/folder"],
            ["data.path: there is no file or folder '/no/such/folder'. Check the path."],
        ),
        (["--data.kwargs", "{download: true}"], ["data.kwargs: digits takes no argument 'download'"]),
        (["--data.partition.name", "idd"], ["data.partition.name: there is no partition 'idd'", "Did you mean iid?"]),
        (["--phones.count", "1295"], ["phones.count: is 1295", "1294 training samples", "Use 1294 or fewer"]),
        (
            ["--schedule.name", "sequentail"],
            ["schedule.name: there is no schedule 'sequentail'", "Did you mean sequential?"],
        ),
        (["--schedule.kwargs", "{optimizer: new}"], ["schedule.kwargs", "handed_on"]),
        (["--schedule.kwargs", "{optimizer: [fresh]}"], ["schedule.kwargs", "handed_on"]),
        (["--schedule.name", "splitfed_v1", "--schedule.kwargs", "{statistics: mine}"], ["average or local"]),
        (
            ["--schedule.name", "splitfed_v3", "--schedule.kwargs", "{statistics: local}"],
            ["schedule.kwargs: splitfed_v3 takes no argument 'statistics'. splitfed_v3 takes nothing."],
        ),
        (
            ["--aggregator.name", "median"],
            ["aggregator.name: can't be used with schedule.name sequential, where nothing is averaged"],
        ),
        (["--aggregator.name", "trimmed", "--schedule.name", "parallel"], ["Did you mean trimmed_mean?"]),
        (
            ["--schedule.name", "splitfed_v1", "--aggregator.name", "trimmed_mean", "--aggregator.kwargs", "{trim: 1}"],
            ["aggregator.kwargs: must be a trim greater than 0 and less than 0.5, not {'trim': 1}"],
        ),
        (
            ["--aggregator.kwargs", "{trim: 0.1}"],
            ["aggregator.kwargs: mean takes no argument 'trim'. mean takes nothing."],
        ),
        (["--task.loss", "mes"], ["task.loss: there is no loss 'mes'", "Did you mean mse?"]),
        (
            ["--task.loss", "mse"],
            ["task.loss: mse needs labels that are real numbers", "those of digits are whole numbers", "astype(float)"],
        ),
        (["--model.name", "mpl"], ["model.name: there is no model 'mpl'", "Did you mean mlp?"]),
        (["--model.name", "theirs:nope"], ["model.name: the module 'theirs' has no function 'nope'."]),
        (["--model.name", "no_such_module:f"], ["model.name", "there is no Python module 'no_such_module'"]),
        (["--model.name", ":f", "--model.cuts", "0,1"], ["model.name: '' is not the name of a Python module"]),
        (
            ["--model.name", ".models:f", "--model.cuts", "0,1"],
            ["model.name: '.models' is not the name of a Python module"],
        ),
        (
            ["--model.name", "theirs:", "--model.cuts", "0,1"],
            ["model.name: 'theirs:' lacks the name of a function after the colon"],
        ),
        (
            ["--model.name", "theirs:plain"],
            ["model.cuts: is not set, and theirs:plain has no cuts of its own.", "two to make three parts"],
        ),
        (
            ["--model.name", "theirs:no_module", "--model.cuts", "0,1"],
            ["model.name: theirs:no_module returned 3. Return a torch.nn.Module."],
        ),
        (
            ["--model.name", "theirs:failing", "--model.cuts", "0,1"],
            ["model.name: theirs:failing failed at theirs.py:", "first line"],
        ),
        (["--model.name", "theirs:tupled", "--model.cuts", "1,2"], ["task.loss: cross_entropy can't take outputs"]),
        (
            ["--model.name", "resnet18"],
            ["model.name: resnet18 can't take this data, batches of shape (N, 1, 8, 8) of float32: "],
        ),
        (["--model.num_classes", "9"], ["model.num_classes: is 9, but the labels have 10 classes. Set 10 or more."]),
        (["--model.kwargs", "{widht: 3}"], ["model.kwargs: digits_cnn takes no argument 'widht'. Did you mean width?"]),
        (["--model.kwargs", "{width: wide}"], ["model.kwargs: with {'width': 'wide'}, digits_cnn failed at "]),
        (["--model.kwargs", "{width: -1}"], ["model.kwargs: width must be at least 1, not -1."]),
        (
            ["--model.cuts", "block1,nope"],
            ["model.cuts: there is no layer 'nope'. The layers are block1, block2, hidden and head."],
        ),
        (["--model.cuts", "hidden,block1"], ["model.cuts: block1 runs before hidden. Write block1,hidden."]),
        (["--model.cuts", "block1,head"], ["model.cuts: can't cut after 'head', because it is the last layer"]),
        (
            ["--model.cuts", "block1,block2,hidden"],
            ["model.cuts: has 3 layers, but must have one or two. Name one layer", "or two"],
        ),
        (
            ["--phones.count", "1294", "--model.name", "theirs:normed", "--model.cuts", "1,2"],
            ["data.batch_size: ", "BatchNorm"],
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
    assert "The commands are train, compare, " in captured.err
    assert (f"there is no command {arguments[0]!r}" if arguments else "no command was given") in captured.err


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
    assert f"run.name: the folder '{tmp_path / 'x'}' exists and is not a run's. Choose another run.name." in line
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["thesis.txt"]


def test_a_finished_run_has_status_zero_and_is_not_overwritten(capsys, tmp_path):
    small = ["--phones.count", "2", "--phones.local_steps", "1", "--run.rounds", "1"]
    where = ["--cluster.backend", "inprocess", "--run.storage_path", str(tmp_path), "--run.name", "x"]
    assert cli.main(["train", *small, *where]) == 0
    assert json.loads((tmp_path / "x" / "summary.json").read_text())["status"] == "finished"
    capsys.readouterr()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "x").rglob("*")}
    assert f"run.name: '{tmp_path / 'x'}' already holds a run. Choose another" in refused(
        capsys, tmp_path, *small, *where
    )
    assert "phones.count was 2" in refused(capsys, tmp_path, *small, *where, "--run.resume", "--phones.count", "3")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "x").rglob("*")} == before
