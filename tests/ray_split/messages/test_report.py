import math

import numpy as np
import pytest

from ray_split.messages.report import Report, RoundSums, Spent, Sums, best_round, mean_spent, padded_sum


def report(phones, samples, loss=0.0, correct=0, up=0, down=0, weights=0):
    columns = (samples, loss, correct, up, down, weights)
    each = [np.array(value) if isinstance(value, list) else value for value in columns]
    return Report(np.array(phones), *each)


def sums_of(*reports):
    sums = RoundSums()
    sums.extend(reports)
    return sums


TWO = (
    report([4, 1], [10, 30], [20.0, 15.0], [5, 30], [100, 300], [200, 600], 7),
    report([1, 2], [10, 0], [5.0, 0.0], [0, 0], [50, 0], [60, 0], [1, 2]),
)


def test_the_steps_of_a_cohort_add_up_and_those_with_fewer_are_its_last():
    steps = [
        report([7, 3, 5], [4, 4, 4], [1.0, 2.0, 3.0], [1, 1, 1], 0, 0),
        report([7, 3], [4, 2], [0.5, 0.25], [2, 0], 0, 0),
        report([7], [1], [8.0], [1], 0, 0),
    ]
    total = padded_sum(steps)
    assert total.phones.tolist() == [7, 3, 5]
    assert total.samples.tolist() == [9, 6, 4]
    assert total.loss.tolist() == [9.5, 2.25, 3]
    assert total.correct.tolist() == [4, 1, 1]
    assert total.bytes_up.tolist() == [0, 0, 0]
    assert (total.samples.dtype, total.loss.dtype) == (np.int64, np.float64)
    assert steps[0].samples.tolist() == [4, 4, 4]


def test_a_sum_is_over_all_reports_of_all_phones():
    sums = sums_of(*TWO, Report(bytes_weights=1000))
    assert sums.total("samples") == 50
    assert sums.total("loss") == 40
    assert sums.total("bytes_up") == 450
    assert sums.total("bytes_weights") == 7 + 3 + 1000
    assert (sums.mean_loss, sums.accuracy) == (0.8, 0.7)


def test_of_nothing_there_is_no_mean():
    for sums in (Sums(), sums_of(Report(bytes_weights=5))):
        assert (sums.mean_loss, sums.accuracy, sums.phone_mean) == (None, None, None)
        assert sums.over_phones() == {}
        assert len(sums.by_phone()[0]) == 0


def test_a_sum_over_reports_without_phones_counts_them_all():
    sums = Sums()
    for correct in ([3], [4]):
        sums.add(Report(None, np.array([5]), np.array([10.0]), np.array(correct)))
    assert (sums.mean_loss, sums.accuracy) == (2, 0.7)


def test_by_phone_adds_up_what_each_phone_reported_in_the_order_of_their_numbers():
    phones, sums = sums_of(*TWO, Report(bytes_weights=1000)).by_phone()
    assert phones.tolist() == [1, 2, 4]
    assert sums["samples"].tolist() == [40, 0, 10]
    assert sums["loss"].tolist() == [20, 0, 20]
    assert sums["bytes_up"].tolist() == [350, 0, 100]


def test_the_phones_accuracies_are_told_by_mean_tenth_percentile_and_worst():
    sums = sums_of(report(list(range(11)), [100] * 11, 0.0, [10 * i for i in range(11)]), report([3, 50], [100, 0]))
    # The fourth phone has 30 of 200 right; the last one no sample, and counts for nothing.
    each = np.array([0, 0.1, 0.2, 0.15, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    assert sums.phone_mean == pytest.approx(each.mean())
    found = sums.over_phones()
    assert found["phone_accuracy_mean"] == pytest.approx(each.mean())
    assert found["phone_accuracy_p10"] == pytest.approx(0.1)
    assert found["phone_accuracy_worst"] == 0


def test_phones_of_any_size_count_alike_in_the_mean_over_phones():
    sums = sums_of(report([0, 1], [1, 999], 0.0, [1, 0]))
    assert (sums.phone_mean, sums.accuracy) == (0.5, 0.001)


def test_a_rounds_row_has_its_sums_and_where_the_time_went():
    sums = sums_of(*TWO)
    sums.spent = {"server": Spent(1.0, 2.0, 3.0), "client": Spent(4.0, 5.0, 6.0)}
    assert sums.row(3, 2.5) == {
        "round": 3, "train_loss": 0.8, "val_loss": None, "val_accuracy": None, "phones": 3, "samples": 50,
        "exchanges": 4, "round_seconds": 2.5, "bytes_up": 450, "bytes_down": 860, "bytes_weights": 10,
        "server_compute_seconds": 1.0, "server_waiting_seconds": 2.0, "server_transfer_seconds": 3.0,
        "client_compute_seconds": 4.0, "client_waiting_seconds": 5.0, "client_transfer_seconds": 6.0,
    }  # fmt: skip


def test_a_rounds_phone_table_has_a_row_for_each_phone():
    table = sums_of(*TWO).phone_table(5)
    assert table["round"].tolist() == [5, 5, 5]
    assert table["phone"].tolist() == [1, 2, 4]
    assert table["samples"].tolist() == [40, 0, 10]
    assert table["loss"][[0, 2]].tolist() == [0.5, 2]
    assert table["accuracy"][[0, 2]].tolist() == [0.75, 0.5]
    assert math.isnan(table["loss"][1]) and math.isnan(table["accuracy"][1])
    assert table["bytes_up"].tolist() == [350, 0, 100]
    assert table["bytes_down"].tolist() == [660, 0, 200]
    assert table["bytes_weights"].tolist() == [8, 2, 7]
    assert np.isnan(table["test_accuracy"]).all() and np.isnan(table["test_loss"]).all()


def test_phones_that_were_only_evaluated_have_a_row_too():
    own = Sums()
    own.add(report([4, 9], [5, 10], [5.0, 30.0], [4, 1]))
    table = sums_of(*TWO).phone_table(0, own)
    assert table["phone"].tolist() == [1, 2, 4, 9]
    assert table["samples"].tolist() == [40, 0, 10, 0]
    assert np.isnan(table["loss"]).tolist() == [False, True, False, True]
    assert table["test_accuracy"][2:].tolist() == [0.8, 0.1]
    assert table["test_loss"][2:].tolist() == [1, 3]
    assert np.isnan(table["test_accuracy"][:2]).all()
    assert len({len(column) for column in table.values()}) == 1


def test_the_mean_of_where_time_went_is_over_the_actors_that_did_something():
    assert mean_spent([Spent(2, 4, 6), Spent(4, 0, 0), Spent(0, 100, 0)]) == Spent(3, 2, 3)
    assert mean_spent([Spent(), Spent()]) == Spent(0, 0, 0)


def test_the_best_round_is_the_first_with_the_highest_validation_accuracy():
    rows = [{"round": i, "val_accuracy": value} for i, value in enumerate([None, 0.5, 0.7, None, 0.7, 0.6])]
    assert best_round(rows)["round"] == 2
    assert best_round(rows[:1]) is None
    assert best_round([]) is None


def test_without_accuracy_the_best_round_is_the_first_with_the_lowest_validation_loss():
    losses = [None, 0.5, 0.3, None, math.nan, 0.3, 0.4]
    rows = [{"round": i, "val_accuracy": None, "val_loss": value} for i, value in enumerate(losses)]
    assert best_round(rows)["round"] == 2
    assert best_round(rows[:1]) is None


def test_where_nothing_can_be_right_there_is_no_accuracy():
    sums = sums_of(report([4, 1], [10, 30], [20.0, 15.0], [math.nan, math.nan]), Report(bytes_weights=5))
    assert (sums.mean_loss, sums.accuracy, sums.phone_mean, sums.over_phones()) == (0.875, None, None, {})
    assert np.isnan(sums.phone_table(0)["accuracy"]).all()
    assert sums.phone_table(0)["loss"].tolist() == [0.5, 2]


def test_tallies_are_added_up_by_name():
    sums = Sums()
    for tallies in ({"classes": np.array([1, 2])}, None, {"classes": np.array([3, 4]), "own:x": np.array([0.5])}):
        sums.add(Report(tallies=tallies))
    assert {name: tally.tolist() for name, tally in sums.tallies.items()} == {"classes": [4, 6], "own:x": [0.5]}
    assert Sums().tallies == {}
