"""Runs whose phones are off, drop out or come late: against plain references, and the same bits whatever hosts them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ray_split as rs
from ray_split.arrays import Array
from ray_split.data.participation import Fates
from tests import reference
from tests.reference import assert_close_weights, assert_same_training, assert_same_weights, within
from tests.runs.equality.test_schedules import assert_close_personal_weights
from tests.tiers import mostly_thorough, slow, thorough

MOMENTUM = {"name": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3}
FAILING = {"dropout": 0.4, "availability": 0.8}
ALL = ("sequential", "splitfed_v1", "splitfed_v2", "splitfed_v3", "parallel", "fedavg", "unsplit")


def config(path: Path, schedule: str, name: str = "run", **sections: Any) -> rs.Config:
    """Two rounds on seven phones with uneven numbers of samples."""
    return rs.Config(
        data={"batch_size": 24, "partition": {"name": "dirichlet", "alpha": 1.0}},
        schedule={"name": schedule, "kwargs": sections.pop("kwargs", {})},
        optimizer=MOMENTUM,
        cluster={"backend": "inprocess", "client_actors": 2, **sections.pop("cluster", {})},
        phones={"count": 7, **FAILING, **sections.pop("phones", {})},
        run={"storage_path": str(path), "name": name, "rounds": 2, **sections.pop("run", {})},
        **sections,
    )


def rows(result: rs.Result) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (Path(result.path) / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if not name.endswith("_seconds")} for row in lines]


def left(result: rs.Result) -> tuple[bytes, list[dict[str, Any]]]:
    """The model and the rows of a run, without its times."""
    return (Path(result.path) / "model.safetensors").read_bytes(), rows(result)


@contextmanager
def scripted(steps: dict[int, int]) -> Iterator[None]:
    """Phones that drop out in every round before these steps, and no others."""

    def until(fates: Fates, round: int, phones: Array, planned: Array) -> Array:
        return np.minimum(planned, [steps.get(phone, 10**6) for phone in phones.tolist()])

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Fates, "_until_dropout", until)
        yield


@pytest.mark.thorough
def test_sequential_goes_on_from_the_phone_before_bit_for_bit(tmp_path: Path) -> None:
    run = config(tmp_path, "sequential", run={"rounds": 3})
    result = rs.fit(run, callbacks=[])
    assert_same_weights(reference.sequential(run), result.path)
    assert sum(row["phones_dropped"] for row in rows(result)) == 2
    everybody = config(tmp_path, "sequential", phones={"dropout": 0.0, "availability": 1.0})
    assert reference.unsplit(everybody).state_dict().keys() == reference.sequential(everybody).state_dict().keys()
    for key, value in reference.unsplit(everybody).state_dict().items():
        assert (reference.sequential(everybody).state_dict()[key] == value).all()


@pytest.mark.parametrize("cohort", [*thorough(1), 3])
@pytest.mark.parametrize("schedule", ["splitfed_v1", "fedavg"])
@pytest.mark.thorough
def test_v1_and_fedavg_average_those_who_finish(tmp_path: Path, schedule: str, cohort: int) -> None:
    run = config(tmp_path, schedule, phones={"cohort": cohort})
    assert_close_weights(lambda: reference.fedavg(run), rs.fit(run, callbacks=[]).path)


@pytest.mark.few(1)
def test_v2_keeps_the_steps_that_b_took_with_a_phone_that_dropped_out(tmp_path: Path) -> None:
    run = config(tmp_path, "splitfed_v2")
    assert_close_weights(lambda: reference.splitfed_v2(run), rs.fit(run, callbacks=[]).path)


@pytest.mark.thorough
def test_v3_leaves_a_phone_that_dropped_out_as_it_was(tmp_path: Path) -> None:
    run = config(tmp_path, "splitfed_v3", phones={"cohort": 3, "held_out": 0.2}, run={"rounds": 3})
    result = rs.fit(run, callbacks=[])
    assert_close_weights(lambda: reference.splitfed_v3(run)[0], result.path, only=reference.MIDDLE)
    assert_close_personal_weights(run, result)


@pytest.mark.parametrize("batch", ["accumulated", "joint"])
@pytest.mark.few(1)
def test_parallel_keeps_the_joint_steps_and_averages_the_ends_of_those_who_finish(tmp_path: Path, batch: str) -> None:
    run = config(tmp_path, "parallel", phones={"cohort": 3}, kwargs={"batch": batch})
    assert_close_weights(lambda: reference.parallel(run), rs.fit(run, callbacks=[]).path)


@pytest.mark.thorough
def test_unsplit_passes_over_the_batches_of_those_who_do_not_finish(tmp_path: Path) -> None:
    run = config(tmp_path, "unsplit")
    result = rs.fit(run, callbacks=[])
    model = reference.Training(run)
    optimizer = model.optimizer(model.model.parameters())
    for draw in rs.stream(run):
        if draw.finishes:
            optimizer.zero_grad()
            model.loss(model.model, draw).backward()
            optimizer.step()
    assert_same_weights(model.model, result.path)


@pytest.mark.parametrize("schedule", mostly_thorough(ALL, "sequential", "splitfed_v1", "parallel"))
@pytest.mark.few(1)
def test_a_round_in_which_all_drop_out_at_once_leaves_the_weights(tmp_path: Path, schedule: str) -> None:
    with scripted(dict.fromkeys(range(7), 0)):
        none = rs.fit(config(tmp_path, schedule, "none", phones={"availability": 1.0}, run={"rounds": 1}), callbacks=[])
    with scripted({}):  # nobody is on
        off = config(tmp_path, schedule, "off", phones={"availability": 1e-9}, run={"rounds": 1})
        empty = rs.fit(off, callbacks=[])
    first = reference.Training(off).model
    assert_same_weights(first, none.path)
    assert_same_weights(first, empty.path)
    (row,), (other,) = rows(none), rows(empty)
    assert (row["phones"], row["phones_dropped"], row["samples"], row["train_loss"]) == (7, 7, 0, None)
    assert (other["phones"], other["phones_offline"], other["samples"], other["bytes_up"]) == (0, 7, 0, 0)


@pytest.mark.parametrize("schedule", ["sequential", "splitfed_v2", "parallel"])
def test_when_all_drop_out_later_b_keeps_its_steps_and_a_and_c_are_as_before(tmp_path: Path, schedule: str) -> None:
    with scripted(dict.fromkeys(range(7), 1)):
        run = config(tmp_path, schedule, phones={"availability": 1.0, "local_steps": 3}, run={"rounds": 1})
        trained = rs.load_model(rs.fit(run, callbacks=[]).path, trust=True).state_dict()
    first = reference.Training(run).model.state_dict()
    same = {key: bool((trained[key] == first[key]).all()) for key in first}
    assert same == {key: not within(key, reference.MIDDLE) for key in first}


def tiny(path: Path, schedule: str, name: str, cohort: int, **phones: Any) -> rs.Config:
    return rs.Config(
        model={"name": "tests.nets:three_linear"},
        schedule={"name": schedule},
        data={"name": "synthetic", "kwargs": {"samples": 60, "shape": [4], "num_classes": 3}, "batch_size": 4},
        optimizer={"lr": 0.05, "momentum": 0.9},
        phones={"count": 5, "cohort": cohort, "held_out": 0.2, **phones},
        cluster={"backend": "inprocess", "client_actors": 2},
        run={"storage_path": str(path), "name": name, "rounds": 1},
    )


PATTERNS = st.dictionaries(st.integers(0, 4), st.integers(0, 1), max_size=4)


@pytest.mark.parametrize("schedule", ["splitfed_v1", *thorough("splitfed_v3", "fedavg")])
@given(dropped=PATTERNS)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.thorough
@pytest.mark.few(thorough=1)
def test_whoever_drops_out_the_weights_are_those_of_a_run_without_them(
    tmp_path: Path, schedule: str, dropped: dict[int, int]
) -> None:
    found = []
    for cohort in (1, 3):
        name = f"{len(list(tmp_path.iterdir()))}"
        with scripted(dropped):
            failing = rs.fit(tiny(tmp_path, schedule, f"failing_{name}", cohort), callbacks=[])
        without = tiny(tmp_path, schedule, f"without_{name}", cohort, left_out=dict.fromkeys(dropped, 0))
        found.append((failing, rs.fit(without, callbacks=[])))
    for one, other in found[:1]:  # phones one by one: bit for bit
        assert_same_weights(rs.load_model(other.path, trust=True), one.path)
    assert_same_training(found[1][1], found[1][0], 1e-6)


@pytest.mark.parametrize("aggregator", [*thorough("median"), "trimmed_mean", *thorough("norm_clipping")])
def test_other_aggregators_have_no_row_of_who_dropped_out(tmp_path: Path, aggregator: str) -> None:
    def run(name: str, **phones: Any) -> rs.Config:
        return tiny(tmp_path, "splitfed_v1", name, 1, **phones).with_values(aggregator={"name": aggregator})

    with scripted({0: 1, 3: 0}):
        failing = rs.fit(run("failing"), callbacks=[])
    without = rs.fit(run("without", left_out={0: 0, 3: 0}), callbacks=[])
    assert_same_weights(rs.load_model(without.path, trust=True), failing.path)


@pytest.mark.parametrize("schedule", mostly_thorough(ALL, "splitfed_v1"))
def test_the_number_of_client_actors_changes_nothing_when_phones_fail(tmp_path: Path, schedule: str) -> None:
    cohort = {} if schedule in ("sequential", "splitfed_v2", "unsplit") else {"cohort": 3}
    device = {"device": "low_end", "deadline": 0.35, "over_select": 0.5, "per_round": 4, "held_out": 0.2}
    phones = {**device, **cohort, "dropout": 0.3}
    found = [
        left(rs.fit(config(tmp_path, schedule, f"{n}", phones=phones, cluster={"client_actors": n}), callbacks=[]))
        for n in (1, 3)
    ]
    assert found[0] == found[1]


def test_a_run_tells_what_became_of_its_phones(tmp_path: Path) -> None:
    phones = {"cohort": 2, "per_round": 4, "over_select": 0.5}
    result = rs.fit(config(tmp_path, "splitfed_v1", phones=phones, run={"rounds": 4}), callbacks=[])
    table, found = pandas.read_parquet(Path(result.path) / "phones.parquet"), rows(result)
    for row in found:
        fates = table[table["round"] == row["round"]]["fate"].value_counts().to_dict()
        assert sum(fates.values()) == row["phones"] == 6 - row["phones_offline"]
        assert fates.get("dropped", 0) == row["phones_dropped"] and fates.get("late", 0) == row["phones_late"]
        assert fates.get("finished", 0) <= 4
        assert table[table["round"] == row["round"]]["samples"].sum() == row["samples"]
    for name in ("phones_offline", "phones_dropped", "phones_late"):
        assert result.metrics[name] == found[-1][name] or result.metrics[name] > 0
        assert json.loads((Path(result.path) / "summary.json").read_text())[name] == sum(row[name] for row in found)
    assert sum(row["phones_dropped"] for row in found) and sum(row["phones_offline"] for row in found)
    assert sum(row["phones_late"] for row in found)


def test_a_deadline_needs_virtual_time(tmp_path: Path) -> None:
    with pytest.raises(
        rs.SettingsError, match=r"^phones\.deadline: can't be used without virtual time\. Set phones\.device, "
    ):
        rs.fit(config(tmp_path, "splitfed_v1", phones={"deadline": 3.0}), callbacks=[])


@pytest.mark.parametrize("schedule", mostly_thorough(ALL, "sequential", "splitfed_v1"))
@pytest.mark.thorough
def test_a_round_lasts_until_its_deadline_at_most(tmp_path: Path, schedule: str) -> None:
    def run(name: str, **phones: Any) -> rs.Result:
        described = {"device": [{"of": "low_end", "weight": 1}, {"of": "high_end", "weight": 1}], "link": "4g"}
        asked = {**described, "dropout": 0.0, "availability": 1.0, **phones}
        return rs.fit(config(tmp_path, schedule, name, phones=asked, run={"rounds": 1}), callbacks=[])

    whole = run("whole")
    seconds = json.loads((Path(whole.path) / "metrics.jsonl").read_text())["virtual_seconds"]
    short = run("short", deadline=seconds * 0.6)
    row = json.loads((Path(short.path) / "metrics.jsonl").read_text())
    assert row["virtual_seconds"] == pytest.approx(seconds * 0.6)
    assert 0 < row["phones_late"] <= 7 and row["phones_dropped"] == 0
    if schedule != "fedavg":  # there it is the weights that come too late
        assert row["samples"] < rows(whole)[0]["samples"]
    assert rows(run("enough", deadline=seconds * 1.01))[0] == rows(whole)[0]


@pytest.mark.thorough
@pytest.mark.parametrize("schedule", ["splitfed_v1", *slow("sequential")])
def test_on_ray_the_same_phones_fail_and_the_weights_are_the_same(
    tmp_path: Path, ray_session: object, schedule: str
) -> None:
    cohort = {"cohort": 3} if schedule == "splitfed_v1" else {}
    phones = {"device": "low_end", "per_round": 5, "over_select": 0.4, "deadline": 2.0, **cohort}
    local, remote = (
        rs.fit(config(tmp_path, schedule, name, phones=phones, cluster={"backend": name}), callbacks=[])
        for name in ("inprocess", "ray")
    )
    assert left(local) == left(remote)
    assert sum(row["phones_dropped"] + row["phones_late"] for row in rows(local)) > 0


def thousand(path: Path, name: str, **phones: Any) -> rs.Config:
    """A thousand phones with one or two of the digits each."""
    mix = [{"of": "mid_range", "weight": 3}, {"of": "low_end", "weight": 1}]
    return rs.Config(
        model={"name": "mlp"},
        data={"batch_size": 4},
        schedule={"name": "splitfed_v1"},
        optimizer={"lr": 0.5},
        phones={"count": 1000, "local_epochs": 5, "device": mix, "link": "4g", **phones},
        cluster={"backend": "inprocess"},
        run={"storage_path": str(path), "name": name, "rounds": 20, "eval_every": 20},
        checkpoint={"every": 20},
    )


@pytest.mark.slow
def test_a_thousand_phones_of_which_a_tenth_drops_out_with_a_deadline(tmp_path: Path) -> None:
    failing = {"dropout": 0.1, "deadline": 1.9}
    one, again = (rs.fit(thousand(tmp_path, name, **failing), callbacks=[]) for name in ("one", "again"))
    whole = rs.fit(thousand(tmp_path, "whole"), callbacks=[])
    assert left(one) == left(again)

    def seconds(result: rs.Result) -> list[float]:
        return [json.loads(line)["virtual_seconds"] for line in (Path(result.path) / "metrics.jsonl").open()]

    assert seconds(one) == seconds(again) and max(seconds(one)) <= 1.9 < max(seconds(whole))
    found = rows(one)
    assert len(found) == 20 and all(row["phones"] == 1000 for row in found)
    assert sum(row["phones_dropped"] for row in found) / 20_000 == pytest.approx(0.1, abs=0.01)
    assert sum(row["phones_late"] for row in found) > 100
    accuracies = [result.metrics["test_accuracy"] for result in (one, whole)]
    assert accuracies[0] > accuracies[1] - 0.03, accuracies
