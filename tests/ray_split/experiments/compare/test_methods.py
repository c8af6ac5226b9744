"""What a comparison compares: schedules, with an algorithm or a server optimizer added."""

from __future__ import annotations

from pathlib import Path

import pytest

import ray_split as rs
from ray_split.command_line.parser import Parser
from ray_split.errors import SettingsError
from ray_split.experiments.compare.methods import method_of
from ray_split.experiments.compare.results import folder_name, is_personal
from ray_split.experiments.compare.settings import comparison_of


def test_what_is_added_to_a_schedule_is_an_algorithm_and_a_server_optimizer() -> None:
    assert method_of("fedavg") == ("fedavg", {})
    assert method_of("fedavg+feddyn") == ("fedavg", {"algorithm": "feddyn"})
    both = {"algorithm": "scaffold", "server_optimizer": "fedavgm"}
    assert (
        method_of("splitfed_v1+scaffold+fedavgm") == method_of("splitfed_v1+fedavgm+scaffold") == ("splitfed_v1", both)
    )
    assert is_personal("splitfed_v3+fedprox")
    assert folder_name("package.module:mine+fedprox", 3) == "mine+fedprox_seed3"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("fedavg+fedprx", "fedprx"),
        ("fedavg+fedprox+scaffold", "scaffold"),
        ("fedavgg+fedprox", "fedavgg"),
    ],
)
def test_what_can_not_be_added_is_refused(text: str, line: str) -> None:
    with pytest.raises(SettingsError, match=line):
        method_of(text)


def test_each_run_has_what_is_added_with_the_kwargs_that_are_its_own(tmp_path: Path) -> None:
    flags = ["--schedules", "unsplit,fedavg,splitfed_v1+fedprox,fedavg+fedadam", "--seeds", "0", "--out", str(tmp_path)]
    own = ["--cluster.backend", "inprocess", "--model.name", "mlp", "--phones.count", "3"]
    given = ["--algorithm.name", "fedprox", "--algorithm.kwargs", "{mu: 0.5}"]
    runs = comparison_of([*flags, *own, *given], Parser()).runs
    found = {name: (run.algorithm.name, run.algorithm.kwargs, run.server_optimizer.name) for name, run in runs.items()}
    assert found == {
        "unsplit_seed0": (None, {}, None),
        "fedavg_seed0": ("fedprox", {"mu": 0.5}, None),
        "splitfed_v1+fedprox_seed0": ("fedprox", {"mu": 0.5}, None),
        "fedavg+fedadam_seed0": ("fedprox", {"mu": 0.5}, "fedadam"),
    }
    assert isinstance(runs["unsplit_seed0"], rs.Config)
