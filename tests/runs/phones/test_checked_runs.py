"""Runs in which nobody does anything wrong, and which the checks of what phones send must leave alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ray_split as rs
from actors.inprocess import LocalHandle
from tests.runs.equality.test_same_bytes import model_bytes
from tests.tiers import thorough


def config(path: Path, name: str, **sections: Any) -> rs.Config:
    base: dict[str, Any] = {
        "model": {"name": "tests.nets:masked", "cuts": "a,b"}, "schedule": {"name": "splitfed_v1"},
        "data": {"name": "synthetic", "kwargs": {"samples": 70, "shape": [4], "num_classes": 3}, "batch_size": 6},
        "phones": {"count": 4}, "cluster": {"backend": "inprocess"},
        "run": {"storage_path": str(path), "name": name, "rounds": 2},
    }  # fmt: skip
    return rs.Config(**base).with_values(**sections)


@pytest.mark.parametrize(
    "schedule", ["sequential", "splitfed_v1", *thorough("splitfed_v3", "parallel", "fedavg", "unsplit")]
)
def test_masks_of_minus_infinity_are_constants_and_not_weights(tmp_path: Path, schedule: str) -> None:
    result = rs.fit(config(tmp_path, "run", schedule={"name": schedule}), callbacks=[])
    assert result.metrics["status"] == "finished"


def test_a_number_that_depends_on_the_batch_size_may_cross(tmp_path: Path) -> None:
    result = rs.fit(config(tmp_path, "run", model={"name": "tests.nets:Shared", "cuts": "a,b"}), callbacks=[])
    assert result.metrics["status"] == "finished"


@pytest.mark.parametrize("schedule", [*thorough("sequential"), "splitfed_v1", *thorough("splitfed_v3")])
def test_what_adam_remembers_is_bounded_by_no_norm_of_weights(tmp_path: Path, schedule: str) -> None:
    settings = config(tmp_path, "run", schedule={"name": schedule}, optimizer={"name": "adam", "lr": 0.001})
    settings = settings.with_values(phones={"max_norm": {"weights": 5.0}}, run={"rounds": 4})
    assert rs.fit(settings, callbacks=[]).metrics["status"] == "finished"


def test_whoever_is_left_out_first_the_same_phones_remain_with_any_number_of_clients(tmp_path: Path) -> None:
    """Two phones are bad, at different steps: how many clients there are decides which one shows first."""
    original, found = LocalHandle.call, []

    def call(handle: LocalHandle, name: str, given: list[Any]) -> Any:
        result = original(handle, name, given)
        bad = handle.name.startswith("client") and name == "forward"
        if bad and (given[0].phones, given[0].step) in (((1,), 1), ((10,), 0)):
            return result._replace(groups=[np.zeros(1)])
        return result

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(LocalHandle, "call", call)
        for clients in (1, 2, 4):
            settings = config(tmp_path, f"clients_{clients}", run={"on_bad_phone": "skip", "seed": 1, "rounds": 4})
            settings = settings.with_values(
                phones={"count": 12, "per_round": 6, "cohort": 1}, cluster={"client_actors": clients},
                data={"batch_size": 2},
            )  # fmt: skip
            result = rs.fit(settings, callbacks=[])
            out = sorted((each["phone"], each["round"]) for each in result.metrics["quarantined"])
            found.append((out, model_bytes(result.path)))
    assert found[0] == found[1] == found[2]
    assert [phone for phone, _ in found[0][0]] == [1, 10]


def test_a_phone_whose_held_out_samples_are_no_good_trains_on_and_is_not_evaluated(tmp_path: Path) -> None:
    settings = config(tmp_path, "run", schedule={"name": "splitfed_v3"}, run={"on_bad_phone": "skip"})
    settings = settings.with_values(phones={"held_out": 0.4}, task={"loss": "cross_entropy"})
    original = LocalHandle.call

    def call(handle: LocalHandle, name: str, given: list[Any]) -> Any:
        if name == "evaluate_own_forward":
            labels = handle._actor._parts.train.labels
            stream = handle._actor._stream
            for part in ("val", "test"):
                labels[stream.partition.held_out_of(2, part)] = -7
        return original(handle, name, given)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(LocalHandle, "call", call)
        result = rs.fit(settings, callbacks=[])
    assert result.metrics["quarantined"] == []
    assert list(result.metrics_dataframe["left_out"]) == [0, 0] and list(result.metrics_dataframe["phones"]) == [4, 4]


def test_leaving_everybody_out_is_refused(tmp_path: Path) -> None:
    settings = config(tmp_path, "run").with_values(phones={"left_out": dict.fromkeys(range(4), 0)})
    with pytest.raises(rs.SettingsError, match=r"phones\.left_out: leaves out all phones of the first round"):
        rs.fit(settings, callbacks=[])
