"""A batch that is smaller than data.batch_size is left out, in every schedule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas
import pytest

import ray_split as rs
from tests.reference import BY_SCHEDULE, assert_close_weights, assert_same_weights, splitfed_v3
from tests.tiers import mostly_thorough


def config(path: Path, schedule: str, **sections: Any) -> rs.Config:
    """The phones have 31 or 32 samples: three batches of 10 each, and one or two more."""
    data = {"batch_size": 10, "drop_last": True}
    run = {"storage_path": str(path), "name": f"run_{len(list(path.iterdir()))}", "rounds": 2}
    told = {"phones": {"count": 41}, "data": data, "optimizer": {"lr": 0.05, "momentum": 0.9}, **sections}
    return rs.Config(cluster={"backend": "inprocess"}, schedule={"name": schedule}, run=run, **told)


@pytest.mark.parametrize("schedule", mostly_thorough(BY_SCHEDULE, "sequential"))
@pytest.mark.few(thorough=1)
def test_training_is_the_untouched_models_on_whole_batches(tmp_path: Path, schedule: str) -> None:
    settings = config(tmp_path, schedule)
    result = rs.fit(settings, callbacks=[])
    if schedule in ("sequential", "unsplit"):
        assert_same_weights(BY_SCHEDULE[schedule](settings), result.path)
    else:
        assert_close_weights(lambda: BY_SCHEDULE[schedule](settings), result.path)
    draws = list(rs.stream(settings))
    assert {len(draw.indices) for draw in draws} == {10}
    table = pandas.read_parquet(Path(result.path) / "phones.parquet")
    assert table["samples"].sum() == sum(len(draw.indices) for draw in draws) == 2 * 41 * 30


@pytest.mark.thorough
def test_where_ends_are_the_phones_own_too(tmp_path: Path) -> None:
    settings = config(tmp_path, "splitfed_v3")
    result = rs.fit(settings, callbacks=[])
    assert_close_weights(lambda: splitfed_v3(settings)[0], result.path, only=("block2", "hidden"))


@pytest.mark.thorough
@pytest.mark.parametrize("schedule", ["sequential", "parallel"])
def test_what_crosses_and_how_long_it_takes_are_those_of_the_batches_that_there_are(
    tmp_path: Path, schedule: str
) -> None:
    """As of a run that never had the samples that are left out: batches of all are of one size."""
    phones = {"count": 41, "link": "wifi", "device": "mid_range"}
    data = {
        "name": f"{__name__}:whole",
        "val_fraction": 0,
        "batch_size": 10,
        "partition": {"name": f"{__name__}:dealt"},
    }
    runs = [
        rs.fit(config(tmp_path, schedule, phones=phones, data={**data, **more}), callbacks=[])
        for more in ({"kwargs": {"rest": 5}, "drop_last": True}, {"kwargs": {"rest": 0}})
    ]
    names = ("bytes_up_total", "bytes_down_total", "samples", "exchanges", "virtual_seconds_total")
    told = [[each.metrics[name] for name in names] for each in runs]
    assert told[0] == told[1]


def whole(rest: int) -> rs.DataSet:
    """35 samples of each phone, or the 30 that make whole batches."""
    parts = rs.load_data(rs.Config().data)
    train = rs.Part(parts.train.inputs[: 41 * 30], parts.train.labels[: 41 * 30])
    again = rs.Part(*(array[[*range(41 * 30), *range(41 * rest)]] for array in train))
    return rs.DataSet(again, rs.Part(*parts.test))


def dealt(labels: Any, settings: Any, count: int, draw: Any) -> Any:
    return [i % count for i in range(len(labels))]


def test_a_phone_without_a_whole_batch_is_told_of(tmp_path: Path) -> None:
    settings = config(tmp_path, "splitfed_v1").with_values(data={"batch_size": 32})
    with pytest.raises(
        rs.SettingsError, match=r"^data\.drop_last: phone .* so of batches of 32 none is left\. Set data"
    ):
        rs.fit(settings, callbacks=[])
