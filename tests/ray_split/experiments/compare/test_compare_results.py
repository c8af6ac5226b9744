"""The numbers of a comparison's table, worked out by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from ray_split.experiments.compare import tables
from ray_split.experiments.compare.results import Run, default_target, lines, read
from tests.ray_split.experiments.compare.made_up_runs import by_schedule, write_run


def test_mean_and_sample_deviation_are_over_the_seeds(made_up: list[Run]) -> None:
    cells = by_schedule(made_up)["unsplit"].cells
    assert cells["accuracy"] == pytest.approx((0.85, 0.1 / 2**0.5, 2))
    assert cells["phone_rounds_per_second"] == pytest.approx((15, 10 / 2**0.5, 2))


def test_what_the_target_cost_is_summed_up_to_the_round_that_reached_it(made_up: list[Run]) -> None:
    cells = by_schedule(made_up)["unsplit"].cells  # in rounds 2 and 3
    assert cells["rounds_to_target"] == pytest.approx((2.5, 0.5**0.5, 2))
    assert cells["bytes_to_target"] == pytest.approx((1300 * 2.5, 1300 * 0.5**0.5, 2))
    assert cells["seconds_to_target"] == pytest.approx(((3 + 6) / 2, 3 / 2**0.5, 2))


def test_a_seed_that_did_not_reach_the_target_is_not_in_its_mean(made_up: list[Run]) -> None:
    cells = by_schedule(made_up)["sequential"].cells  # the second round had no validation, and counts
    assert cells["rounds_to_target"] == (3, None, 1)
    assert cells["bytes_to_target"] == (3900, None, 1)
    assert cells["seconds_to_target"] == (6, None, 1)
    assert by_schedule(made_up)["splitfed_v3"].cells["rounds_to_target"] == (None, None, 0)


def test_bytes_are_per_phone_and_round(made_up: list[Run]) -> None:
    cells = by_schedule(made_up)["unsplit"].cells
    means = {kind: cells[f"bytes_{kind}_per_phone_round"].mean for kind in ("up", "down", "weights")}
    assert means == {"up": 25, "down": 50, "weights": 250}


def test_without_validation_the_last_rounds_test_accuracy_counts(made_up: list[Run]) -> None:
    assert by_schedule(made_up)["sequential"].cells["accuracy"].mean == pytest.approx((0.8 + 0.1) / 2)


def test_a_failed_run_is_left_out_of_all_means_and_named(made_up: list[Run]) -> None:
    table = by_schedule(made_up)
    assert table["splitfed_v3"].finished == 1
    assert table["splitfed_v3"].failed == {1: "Boom_1: 5 % & more second line"}
    assert table["splitfed_v3"].cells["accuracy"] == (0.8, None, 1)
    assert table["parallel"].failed == {
        0: "not finished, summary.json says running",
        1: "not finished, summary.json says nothing",
    }
    assert {cell.mean for cell in table["parallel"].cells.values()} == {None}


def test_the_default_target_is_95_percent_of_unsplits_best_mean(made_up: list[Run]) -> None:
    assert default_target(made_up) == pytest.approx((0.95 * 0.95, "unsplit"))
    others = [run for run in made_up if run.schedule != "unsplit"]
    assert default_target(others) == pytest.approx((0.95 * 0.9, "sequential"))


def test_a_personal_schedule_sets_the_target_only_for_its_own_kind(tmp_path: Path) -> None:
    write_run(tmp_path, "splitfed_v3", 0, [0.9])
    write_run(tmp_path, "parallel", 0, [0.6])
    both = read(tmp_path, ["splitfed_v3", "parallel"], [0])
    assert default_target(both) == pytest.approx((0.95 * 0.6, "parallel"))
    assert default_target(both[:1]) == pytest.approx((0.95 * 0.9, "splitfed_v3"))


def test_without_validation_there_is_no_target(tmp_path: Path) -> None:
    write_run(tmp_path, "parallel", 0, [None, None])
    runs = read(tmp_path, ["parallel"], [0])
    assert default_target(runs) is None
    assert by_schedule(runs, None)["parallel"].cells["rounds_to_target"].mean is None
    assert "rounds to target" in tables.to_markdown(lines(runs, None), None)
