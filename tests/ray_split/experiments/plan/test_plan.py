"""The command `ray-split plan`: its table, files, and what it says to settings that are not possible."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest

from ray_split.experiments.plan.main import main

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
    assert "no plot" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == FILES - {"plan.png"}


REFUSED = [
    ("--batch 0", "error: batch: must be at least 1, not 0."),
    ("--bach 4", "error: there is no flag '--bach'. Did you mean --batch?"),
    ("--input 3xy", "error: input: must be the shape of a sample, such as 3x224x224, not '3xy'."),
    ("--input 3x8x8", "error: input: the model can't take a batch of shape (16, 3, 8, 8)"),
    ("--link.up_mbps 0", "error: link.up_mbps: must be greater than 0, not 0"),
    ("--split triple", "error: split: must be double or single, not 'triple'."),
    ("--phone.memory_mb 0.001", "error: phone.memory_mb: "),
    ("--model.name digits", "error: model.name: there is no model 'digits'"),
    ("--optimizer.name adam --optimizer.momentum 0.9", "error: optimizer.momentum"),
    ("--out /dev/null/x", "error: out: '/dev/null/x' can't be written to"),
]


@pytest.mark.parametrize(("line", "said"), REFUSED, ids=[line for line, _ in REFUSED])
def test_what_is_not_possible_is_one_line_and_status_2(
    line: str, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
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
