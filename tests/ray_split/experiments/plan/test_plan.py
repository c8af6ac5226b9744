"""The command `ray-split plan`: its table, files, and what it says to settings that are not possible."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ray_split.experiments.plan.main import main
from tests.tiers import thorough

MINE = """
import numpy as np
from torch import nn


def net(num_classes): return nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 4), nn.Linear(4, num_classes))
def points(samples=60): return np.zeros((samples, 2)), np.arange(samples) % 3
def values(): return np.zeros((60, 2)), np.linspace(0, 1, 60)
def uneven(): return [np.zeros((length, 2)) for length in 12 * (3, 7)], np.arange(24) % 2
"""

FILES = {"positions.csv", "pareto.csv", "plan.png"}


def read(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_a_plan_is_printed_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "plan"
    assert main(["--batch", "4", "--phone.gflops", "1", "--link.up_mbps", "5", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "recommended: --model.cuts block2,hidden.1\n" in printed
    assert {path.name for path in out.iterdir()} == FILES
    positions, pareto = read(out / "positions.csv"), read(out / "pareto.csv")
    assert [row["layer"] for row in positions if row["recommended"]] == ["block2", "hidden.1"]
    block1 = positions[1]
    assert (block1["layer"], block1["same_place"], block1["shape"]) == ("block1", "block1.1", "16x8x8")
    assert (block1["bytes_forward"], block1["parameters_before"], block1["parameters_after"]) == (
        "4096",
        "160",
        "38122",
    )
    assert [row["recommended"] for row in pareto] == ["1"] + ["0"] * (len(pareto) - 1)
    assert all(row["layer"] in printed for row in positions)
    assert (out / "plan.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A module with a model and data of one's own."""
    (tmp_path / "planned.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield
    sys.modules.pop("planned", None)


PLANNED_FOR = [
    (
        "--model.name planned:net --input 2 --model.num_classes 3 --batch 4",
        "for 3 classes, inputs of 2, batch 4 (--model.num_classes, --input, --batch)",
    ),
    (
        "--model.name planned:net --data.name planned:points",
        "for 3 classes, inputs of 2, batch 16 (--data.name, --batch)",
    ),
    *thorough(
        ("--model.name mlp", "for 10 classes, inputs of 1x8x8, batch 16 (--model.num_classes, --input, --batch)"),
        ("--model.name mlp --model.kwargs {num_classes:\xa03}", "for inputs of 1x8x8, batch 16 (--input, --batch)"),
        (
            "--model.name planned:net --data.name planned:points --model.num_classes 5",
            "for 5 classes, inputs of 2, batch 16 (--model.num_classes, --data.name, --batch)",
        ),
        (
            "--model.name planned:net --data.name planned:values",
            "for 1 output, inputs of 2, batch 16 (--data.name, --batch)",
        ),
        (
            "--model.name lstm --data.name planned:uneven --input 7x2",
            "for 2 classes, inputs of 7x2, batch 16 (--data.name, --input, --batch)",
        ),
    ),
]


@pytest.mark.usefixtures("mine")
@pytest.mark.few(thorough=5)
@pytest.mark.parametrize(("line", "said"), PLANNED_FOR)
def test_the_first_line_says_what_is_planned_for(line: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*(word.replace("\xa0", " ") for word in line.split(" ") if word), "--out", "out"]) == 0
    assert capsys.readouterr().out.startswith(f"{said}\n")


@pytest.mark.usefixtures("mine")
def test_a_plan_for_data_is_that_for_its_shape_and_classes(tmp_path: Path) -> None:
    told = ["--model.name", "planned:net", "--out"]
    assert main([*told, "data", "--data.name", "planned:points", "--data.kwargs", "{samples: 90}"]) == 0
    assert main([*told, "set", "--input", "2", "--model.num_classes", "3"]) == 0
    assert read(tmp_path / "data" / "positions.csv") == read(tmp_path / "set" / "positions.csv")
    first = read(tmp_path / "data" / "positions.csv")[0]
    assert first["parameters_after"] == str(8 * 4 + 4 + 4 * 3 + 3)


@pytest.mark.thorough
def test_of_data_alone_the_model_is_the_one_that_is_trained(tmp_path: Path) -> None:
    assert main(["--data.name", "synthetic_regression", "--out", str(tmp_path)]) == 0
    assert [row["layer"] for row in read(tmp_path / "positions.csv")][:2] == ["flatten", "layers.0"]


def test_a_single_split_recommends_one_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--split", "single", "--optimizer.name", "adam", "--out", str(tmp_path)]) == 0
    assert "recommended: --model.cuts hidden.1\n" in capsys.readouterr().out
    assert {row["seconds_as_second"] for row in read(tmp_path / "positions.csv")} == {""}


def test_without_matplotlib_a_line_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, module, None)
    assert main(["--out", str(tmp_path)]) == 0
    assert "no plot" in (printed := capsys.readouterr().out) and "; pip install 'ray-split[plot]'\n" in printed
    assert {path.name for path in tmp_path.iterdir()} == FILES - {"plan.png"}


REFUSED = [
    ("--batch 0", "error: batch: must be at least 1, not 0."),
    ("--bach 4", "error: there is no flag '--bach'. Did you mean --batch?"),
    ("--input 3xy", "error: input: must be the shape of a sample, such as 3x224x224, not '3xy'."),
    ("--input 3x8x8", "error: input: the model can't take a batch of shape (16, 3, 8, 8)"),
    (
        "--model.name planned:net",
        "error: input: is not set, so 1x8x8 is assumed, and the model can't take a batch of shape (16, 1, 8, 8): ",
    ),
    (
        "--model.name planned:net --data.name digits",
        "error: model.name: the samples of digits have the shape 1x8x8, and the model can't take a batch of shape",
    ),
    (
        "--data.name planned:uneven --model.name lstm",
        "error: data.name: the samples of planned:uneven have different lengths. Add --input with the shape of a long "
        "one, such as --input 7x2.",
    ),
    ("--data.name digit", "error: data.name: there is no data set 'digit'. Did you mean digits?"),
    ("--data.path /tmp", "error: data.path: needs the name of a data set. Add --data.name NAME."),
    (
        "--data.name text --data.max_length 32",
        "error: data.max_length: can't be set beside data.name. Write --data.kwargs '{max_length: 32}', if text takes",
    ),
    ("--data.name digits --model.num_classes 3", "error: model.num_classes: is 3, but the labels have 10 classes."),
    ("--link.up_mbps 0", "error: link.up_mbps: must be greater than 0, not 0"),
    ("--split triple", "error: split: must be double or single, not 'triple'."),
    ("--phone.memory_mb 0.001", "error: phone.memory_mb: "),
    ("--model.name digits", "error: model.name: there is no model 'digits'"),
    ("--optimizer.name adam --optimizer.momentum 0.9", "error: optimizer.momentum"),
    ("--out /dev/null/x", "error: out: '/dev/null/x' can't be written to"),
]


@pytest.mark.usefixtures("mine")
@pytest.mark.parametrize(("line", "said"), REFUSED, ids=[line for line, _ in REFUSED])
def test_what_is_not_possible_is_one_line_and_status_2(
    line: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(line.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith(said)
    assert error.count("\n") == 1


def test_help_tells_every_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    text = capsys.readouterr().out
    assert ended.value.code == 0
    assert "--phone.memory_mb" in text
    assert "million bits a second from the phone (default: 20.0)" in " ".join(text.split())
