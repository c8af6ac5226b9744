"""Nearly sixty lines that a person may meet, each whole: what is wrong, in words, and what to do."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from ray_split import cli

MINE = """
import numpy as np
import torch
from torch import nn


def net(num_classes): return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Linear(8, num_classes))
def broken(num_classes): raise RuntimeError("no such file: weights.bin")
def number(num_classes): return 3
def hole(): return np.where(np.arange(200).reshape(50, 4) == 30, np.nan, 0.0), np.arange(50) % 2
def short(): return np.zeros((50, 4)), np.arange(49) % 2
def from_one(): return np.zeros((50, 4)), np.arange(50) % 2 + 1
def detached(outputs, labels): return outputs.detach().sum()
"""
FILES = {
    "mine.py": MINE,
    "typo.yaml": "phones: {cuont: 3}\n",
    "low.yaml": "phones:\n  count: 0\n",
    "broken.yaml": "phones:\n  count: [1,\n",
    "twice.yaml": "phones: {count: 3}\nphones: {count: 4}\n",
    "thesis/chapter.txt": "mine",
}
LINES = {
    # The command line.
    "trian": (
        "there is no command 'trian'. Did you mean train? The commands are train, compare, sweep, plan, trace, runs, "
        "show, diff, export, device, devices and paper."
    ),
    "train stray": (
        "unexpected argument 'stray'. Remove it, or if it is the value of a flag, put it right after that flag."
    ),
    "train --phones.cuont 3": "there is no flag '--phones.cuont'. Did you mean --phones.count?",
    "train --data.max_length 32": "there is no flag '--data.max_length'. Write --data.kwargs '{max_length: 32}'.",
    "plan --model.width 8": "there is no flag '--model.width'. Write --model.kwargs '{width: 8}'.",
    "train --phones.count": "--phones.count: needs a value, a whole number.",
    "train --help optimiser": (
        "--help: there is no section 'optimiser'. Did you mean optimizer? The sections are model, data, task, phones, "
        "schedule, aggregator, algorithm, server_optimizer, optimizer, server, cluster, gateway, checkpoint and run."
    ),
    "--completion tcsh": "--completion: there is no completion script for 'tcsh'. Choose bash, zsh or fish.",
    "runs --limit many": "--limit: must be a whole number, not 'many'.",
    "export": (
        "export needs the run to export: its folder, or its name with --storage FOLDER. 'ray-split runs FOLDER' "
        "lists the runs in a folder."
    ),
    "export x --format pdf": "--format: must be csv, md or latex, not 'pdf'.",
    "trace": "trace needs the folder of a run. 'ray-split runs FOLDER' lists the runs in a folder.",
    # Files of settings.
    "train --config none.yaml": "--config: there is no file 'none.yaml'. Check the path.",
    "train --config broken.yaml": (
        "--config: line 2 of 'broken.yaml' is not valid YAML: \"count: [1,\". Check its brackets, braces and commas."
    ),
    "train --config twice.yaml": (
        "--config: 'twice.yaml' has 'phones' twice, on lines 1 and 2. Merge them into one, or delete one."
    ),
    "train --config typo.yaml": "line 1 of 'typo.yaml': there is no setting 'phones.cuont'. Did you mean phones.count?",
    "train --config low.yaml": "phones.count: must be at least 1, not 0 (line 2 of 'low.yaml').",
    # Values.
    "train --phones.count many": "phones.count: must be a whole number, not 'many'.",
    "train --phones.count 0": "phones.count: must be at least 1, not 0.",
    "train --optimizer.lr 0": "optimizer.lr: must be greater than 0, not 0.",
    "train --model.kwargs 3": "model.kwargs: must be a mapping, such as '{width: 3}', not 3.",
    "train --run.name a/b": "run.name: 'a/b' contains a slash. Use a single folder name, such as a-b.",
    "train --phones.per_round 21": (
        "phones.per_round: is 21, but there are only 20 phones. Use 20 or fewer, or raise phones.count."
    ),
    "train --phones.count 1295": (
        "phones.count: is 1295, but there are only 1294 training samples and every phone needs at least one. Use "
        "1294 or fewer."
    ),
    "train --phones.local_steps 5 --phones.local_epochs 2": (
        "phones.local_steps: can't be used together with phones.local_epochs. Remove one of the two."
    ),
    "train --model.kwargs '{width: [1}'": (
        'model.kwargs: is not valid YAML: "{width: [1}". Check its brackets, braces and commas.'
    ),
    "train --phones.device '{gflop: 5}'": (
        "phones.device: the mapping can't have 'gflop'. Did you mean gflops? The mapping may have gflops and memory_mb."
    ),
    # Names.
    "train --model.name mpl": (
        "model.name: there is no model 'mpl'. Did you mean mlp? The built-in models are digits_cnn, tiny_cnn, cnn, "
        "cnn1d, lstm, char_lstm, mlp, unet and transformer. You can also name a torchvision or timm model, or your own "
        "function as package.module:function."
    ),
    "train --schedule.name sequentail": (
        "schedule.name: there is no schedule 'sequentail'. Did you mean sequential? The schedules are fedavg, "
        "parallel, sequential, splitfed_v1, splitfed_v2, splitfed_v3 and unsplit. You can also name your own as "
        "package.module:function."
    ),
    "train --schedule.name splitfed": (
        "schedule.name: there is no schedule 'splitfed'. Did you mean splitfed_v1? The schedules are fedavg, "
        "parallel, sequential, splitfed_v1, splitfed_v2, splitfed_v3 and unsplit. You can also name your own as "
        "package.module:function."
    ),
    "train --model.name nowhere:net": (
        "model.name: there is no Python module 'nowhere'. Check the spelling, run ray-split from the folder that "
        "holds nowhere.py, or install the module."
    ),
    "train --model.name mine:nett": (
        "model.name: the module 'mine' has no function 'nett'. Did you mean mine:net? It has broken, detached, "
        "from_one, hole, net, number and short."
    ),
    "train --model.name mine.py:net": "model.name: write mine:net, without .py, instead of 'mine.py:net'.",
    "train --model.kwargs '{widht: 3}'": "model.kwargs: digits_cnn takes no argument 'widht'. Did you mean width?",
    "train --task.loss cros_entropy": (
        "task.loss: there is no loss 'cros_entropy'. Did you mean cross_entropy? The losses are "
        "binary_cross_entropy, cross_entropy, huber, l1, mse and token_cross_entropy. You can also name your own as "
        "package.module:function."
    ),
    # Models and cuts.
    "train --model.cuts block1,nope": (
        "model.cuts: there is no layer 'nope'. The layers are block1, block2, hidden and head."
    ),
    "train --model.cuts hidden,block1": "model.cuts: block1 runs before hidden. Write block1,hidden.",
    "train --model.cuts block1,head": (
        "model.cuts: can't cut after 'head', because it is the last layer. Make the second cut after block2 or "
        "hidden, for example block1,hidden."
    ),
    "train --model.name mine:net": (
        "model.cuts: is not set, and mine:net has no cuts of its own. Name the layers to cut after: two to make "
        "three parts, such as --model.cuts 0,1, or one to make two parts, such as --model.cuts 0. You can cut after "
        "the layers 0 and 1."
    ),
    "train --model.name mine:broken --model.cuts 1": (
        "model.name: mine:broken failed at mine.py:8 with RuntimeError: no such file: weights.bin. Fix the function, "
        "or name another."
    ),
    "train --model.name mine:number --model.cuts 1": "model.name: mine:number returned 3. Return a torch.nn.Module.",
    # Data and tasks.
    "train --model.name mlp --data.name mine:hole": (
        "data.name: mine:hole returned nan in the validation inputs, at row 7, column 2 (counting from 0). Fill in "
        "missing values (for example with numpy.nan_to_num), or drop those rows."
    ),
    "train --model.name mlp --data.name mine:short": (
        "data.name: mine:short returned 50 inputs but 49 labels. Return one label for each input."
    ),
    "train --model.name mlp --data.name mine:from_one": (
        "data.name: the labels of mine:from_one go from 1 to 2, but must start at 0. Return labels - 1. If class 0 "
        "exists but has no samples here, set model.num_classes to 3 instead."
    ),
    "train --data.name cifar10": (
        "data.path: is not set, and cifar10 needs it. If you have the data, add --data.path FOLDER, where FOLDER "
        "contains cifar-10-batches-py. To download it into FOLDER, add --data.path FOLDER --data.kwargs '{download: "
        "true}'."
    ),
    "train --data.group_by_length": (
        "data.group_by_length: can't be used with digits, whose samples are all of one length. Leave it out."
    ),
    "train --task.loss mine:detached": (
        "task.loss: the loss from mine:detached has no gradient. Compute it from the model's outputs with torch "
        "functions only, without detach, item, argmax or no_grad."
    ),
    "train --task.class_weights 1,2": (
        "task.class_weights: has 2 weights, but there are 10 classes. Give 10 weights, one for each class."
    ),
    "train --task.loss mse": (
        "task.loss: mse needs labels that are real numbers, but those of digits are whole numbers. Set task.loss to "
        "cross_entropy for classes, or return labels.astype(float) for values."
    ),
    # What does not go together.
    "train --phones.cohort 4": (
        "phones.cohort: can't be used with schedule.name sequential, which trains one phone at a time. Remove "
        "phones.cohort, or choose another schedule, such as parallel."
    ),
    "train --run.stop '{test_accuracy: 0.9}'": (
        "run.stop: can't use test_accuracy, because test results must not influence training. Use a training or "
        "validation column, such as val_accuracy."
    ),
    "train --server_optimizer.lr 0.5": (
        "server_optimizer.lr: is set, but server_optimizer.name is not. Set server_optimizer.name to fedavgm, "
        "fedadam, fedyogi, fedadagrad or your own package.module:function, or remove server_optimizer.lr."
    ),
    "train --optimizer.name adam --optimizer.momentum 0.9": (
        "optimizer.momentum: can't be used with adam, which has no momentum. Remove momentum, or choose sgd or rmsprop."
    ),
    "train --algorithm.name fedprox": (
        "algorithm.name: fedprox can't be used with schedule.name sequential, where nothing is averaged and so "
        "phones don't drift apart. Remove algorithm.name, or choose another schedule, such as fedavg."
    ),
    "train --server.replicas 2 --schedule.name sequential": (
        "server.replicas: must be 1 with schedule.name sequential, which can't use more, not 2. The schedules that "
        "can are splitfed_v1, splitfed_v2, splitfed_v3 and parallel."
    ),
    "train --phones.remote 1 --gateway.node edge": (
        "gateway.node: can't be used with cluster.backend inprocess, where all is in one process. Leave it out."
    ),
    "train --optimizer.schedule.name StepLR": (
        "optimizer.schedule.kwargs: StepLR needs step_size. Add --optimizer.schedule.kwargs '{step_size: VALUE}'."
    ),
    # Runs.
    "train --run.resume": (
        "run.resume: needs the name of the run to resume. Add --run.name NAME. 'ray-split runs' lists the names."
    ),
    "show nothing --storage .": (
        "there is no run 'nothing' in '.'. Give the folder of a run, or say with --storage FOLDER where your runs are."
    ),
    "runs . --where optimizer.rl=1": (
        "--where: there is no column 'optimizer.rl'. Did you mean optimizer.lr? You can use any setting, any key in "
        "summary.json, or run, status, schedule, phones, rounds, train_loss, val_loss or val_accuracy."
    ),
    "compare --run.seed 3": (
        "--run.seed: can't be used with compare, which sets the seed of each run. Use --seeds instead, for example "
        "--seeds 3 for seed 3 alone."
    ),
    "trace thesis": (
        "'thesis' is not a run's folder: it has no config.yaml. Give the folder of one run. 'ray-split runs thesis' "
        "lists the runs in it."
    ),
    "runs . --where optimizer.lr": (
        "--where: 'optimizer.lr' is not a condition. Write a column, one of = == != < <= > >=, and a value, such "
        "as 'optimizer.lr>=0.1'."
    ),
    "diff thesis": (
        "diff needs two runs or more, but was given only 'thesis'. Add another run. 'ray-split runs FOLDER' lists "
        "the runs in a folder."
    ),
}
"""What somebody types, and the line that comes, after `error: `."""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    import sys

    sys.modules.pop("mine", None)


@pytest.mark.parametrize("command", LINES)
def test_what_somebody_mistypes_is_told_in_a_line_to_act_on(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(command)
    here = ["--cluster.backend", "inprocess", "--run.storage_path", "results", "--print-config"]
    alone = words[0] != "train" or words[-1] in ("--phones.count", "--run.resume") or "--help" in words
    assert cli.main([*words, *([] if alone else here)]) == 2
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", f"error: {LINES[command]}\n")
