from __future__ import annotations

from pathlib import Path

import pandas
import pytest

import ray_split as rs
from jobs.forgetting import by_fifths, main, places


def test_accuracy_is_told_by_the_phones_place_in_the_rounds_order(tmp_path: Path, capsys) -> None:
    settings = rs.Config(
        phones={"count": 10, "held_out": 0.2}, cluster={"backend": "inprocess"},
        run={"storage_path": str(tmp_path), "name": "run", "rounds": 1},
    )  # fmt: skip
    folder = Path(rs.fit(settings, callbacks=[]).path)
    own = pandas.read_parquet(folder / "phones.parquet").set_index("phone")["test_accuracy"]
    order = list(dict.fromkeys(draw.phone for draw in rs.stream(rs.Config.from_yaml(folder / "config.yaml"))))
    assert sorted(places(folder)) == sorted((place / 10, own[phone]) for place, phone in enumerate(order))
    fifths = [(own[order[i]] + own[order[i + 1]]) / 2 for i in range(0, 10, 2)]
    assert by_fifths([folder]) == pytest.approx(fifths)
    assert main([str(folder)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"phones  80 % to 100 % of the order: {fifths[-1]:.4f}"


def test_a_folder_that_is_no_run_and_a_run_without_own_samples_are_a_line(tmp_path: Path, capsys) -> None:
    settings = rs.Config(
        model={"name": "mlp"}, phones={"count": 2}, cluster={"backend": "inprocess"},
        run={"storage_path": str(tmp_path), "name": "run", "rounds": 1},
    )  # fmt: skip
    folder = Path(rs.fit(settings, callbacks=[]).path)
    assert main([str(tmp_path)]) == main([str(folder)]) == 2
    first, second = capsys.readouterr().err.splitlines()[-2:]
    assert "is not a run's folder: there is no config.yaml in it" in first
    assert "phones.held_out" in second
    assert main(["--help"]) == 0


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_run_whose_phones_do_not_fill_the_fifths_is_a_line(tmp_path: Path, capsys, count: int) -> None:
    settings = rs.Config(
        model={"name": "mlp"}, phones={"count": count, "held_out": 0.2, "local_steps": 1},
        cluster={"backend": "inprocess"}, run={"storage_path": str(tmp_path), "name": "run", "rounds": 1},
    )  # fmt: skip
    folder = rs.fit(settings, callbacks=[]).path
    capsys.readouterr()
    assert main([str(folder)]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert f"no phone is in {5 - count} of the fifths. Name folders of runs with 5 phones a round or more." in said.err
