"""A digest is the same while code, and what it uses, is the same: in any process, however it is written down."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ray_split.config.user_code.digest import digest, importable
from tests.conftest import ROOT

CELL = """
import numpy as np
from torch import nn

WIDTH, KINDS, TABLE = 8, {"a", "b", "c"}, np.arange(3.0)

def helper(x):
    return x * 2

class Base(nn.Module):
    scale = 1.5

class Net(Base):
    def __init__(self, num_classes):
        super().__init__()
        self.layer = nn.Linear(WIDTH, num_classes)

    def forward(self, x):
        return helper(self.layer(x)) if "a" in KINDS else x

def maker(number):
    return lambda outputs, labels, more=3: (outputs - labels).sum() * number + TABLE[0]

found = [Net, maker(2), nn.CrossEntropyLoss(label_smoothing=0.1)]
"""


def cell(text: str = CELL) -> list[Any]:
    """What a notebook's cell defines."""
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(text, "<cell>", "exec", dont_inherit=True), names)
    return list(names["found"])


@pytest.fixture(scope="module")
def usual() -> list[str]:
    return [digest(each) for each in cell()]


def test_comments_and_where_it_stands_do_not_count(usual: list[str]) -> None:
    assert [digest(each) for each in cell("\n# said\n" + CELL.replace("    scale", "    # why\n    scale"))] == usual
    assert len(set(usual)) == 3 and {len(each) for each in usual} == {12}


@pytest.mark.parametrize(
    ("was", "now", "changed"),
    [
        ("WIDTH, KINDS, TABLE = 8", "WIDTH, KINDS, TABLE = 9", [0]),
        ('"b", "c"', '"b", "d"', [0]),
        ("x * 2", "x * 3", [0]),
        ("scale = 1.5", "scale = 1.6", [0]),
        ("maker(2)", "maker(3)", [1]),
        ("more=3", "more=4", [1]),
        (").sum()", ").mean()", [1]),
        ("np.arange(3.0)", "np.arange(4.0)", [1]),
        ("smoothing=0.1", "smoothing=0.2", [2]),
    ],
)
def test_code_counts_and_all_that_it_uses(usual: list[str], was: str, now: str, changed: list[int]) -> None:
    assert was in CELL
    others = [digest(each) for each in cell(CELL.replace(was, now))]
    assert [i for i, pair in enumerate(zip(usual, others, strict=True)) if len(set(pair)) == 2] == changed


@pytest.mark.thorough
def test_it_is_the_same_in_another_process(usual: list[str], tmp_path: Path) -> None:
    tell = "\nfrom ray_split.config.user_code.digest import digest\nprint(*map(digest, found))"
    (tmp_path / "script.py").write_text(CELL + tell)
    env = {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.stdout.split() == usual, done.stderr


def test_tensors_and_arrays_count_by_their_values_and_what_has_no_inside_by_its_class() -> None:
    ones = [torch.ones(2, 3), torch.ones(3, 2), torch.ones(2, 3).double(), torch.ones(2, 3, dtype=torch.bfloat16)]
    arrays = [np.ones(6), np.ones(6, np.float32), np.zeros(6)]
    assert len({digest(each) for each in [*ones, *arrays]}) == 7
    assert digest(torch.ones(2, 3)) == digest(torch.ones(3, 2).T) == digest(ones[0])
    assert digest(threading.Lock()) == digest(threading.Lock()) != digest(threading.Event())


def test_what_holds_itself_ends() -> None:
    one: list[Any] = []
    one.append({"me": one})
    found = type("Own", (), {"me": None})
    found.me = found  # type: ignore[attr-defined]
    assert len(digest(found)) == len(digest(one)) == 12


def test_what_can_be_imported_has_a_name() -> None:
    assert importable(nn.Linear) == "torch.nn.modules.linear:Linear"
    assert importable(Path.touch) == "pathlib:Path.touch"
    assert [importable(each) for each in (*cell(), lambda: 0, nn.Linear(1, 1), 3)] == [None] * 6
