from __future__ import annotations

import json
import logging
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest

import ray_split as rs
from ray_split.costs.phone_memory import phone_memory
from ray_split.costs.position_costs import scan_of
from ray_split.errors import SettingsError
from ray_split.filesystem import place
from ray_split.preparation.prepare import prepare
from ray_split.results.records import read_rows
from tests.tiers import thorough

SMALL = {"gflops": 1, "memory_mb": 0.01}
FIGURES = ["virtual_seconds", *(f"virtual_{part}_seconds" for part in ("phone", "server", "communication", "waiting"))]


def settings_of(**sections: Any) -> rs.Config:
    given = {"data": {"name": "synthetic", "kwargs": {"samples": 200}}, "cluster": {"backend": "inprocess"}}
    return rs.Config(**{**given, "phones": {"count": 4}, **sections})


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"phones": {"count": 4, "device": "low_end"}}, ("low_end", "wifi", "rtx_2080")),
        ({"phones": {"count": 4, "link": "4g"}}, ("mid_range", "4g", "rtx_2080")),
        ({"server": {"device": "k80"}}, ("mid_range", "wifi", "k80")),
        ({}, (None, None, None)),
    ],
)
def test_whoever_describes_one_gets_sensible_others(given: dict[str, Any], found: tuple[str | None, ...]) -> None:
    settings = prepare(settings_of(**given)).settings
    assert (settings.phones.device, settings.phones.link, settings.server.device) == found


def test_a_phone_that_training_does_not_fit_is_refused() -> None:
    mix = [{"of": "mid_range", "weight": 1}, {"of": SMALL, "weight": 1}]
    with pytest.raises(SettingsError, match=r"^phones\.device: .* \d+ of 40 phones have less \(own has 0.01 MB\)"):
        prepare(settings_of(phones={"count": 40, "device": mix}))


def test_or_skipped_and_said(caplog: pytest.LogCaptureFixture) -> None:
    mix = [{"of": "mid_range", "weight": 1}, {"of": SMALL, "weight": 1}]
    phones = {"count": 40, "device": mix, "on_misfit": "skip", "left_out": {1: 3}}
    with caplog.at_level(logging.WARNING):
        prepared = prepare(settings_of(phones=phones))
    out = prepared.settings.phones.left_out
    skipped = [phone for phone, round in out.items() if round == 0]
    assert 10 < len(skipped) < 30
    assert f"{len(skipped)} of 40 phones are left out" in caplog.text
    assert not set(skipped) & set(prepared.stream.phones(0))
    assert prepare(prepared.settings).settings == prepared.settings


def test_if_none_fits_there_is_no_run() -> None:
    with pytest.raises(SettingsError, match=r"phones\.on_misfit: would leave out every phone, because training needs"):
        prepare(settings_of(phones={"count": 4, "device": SMALL, "on_misfit": "skip"}))


def test_the_limit_is_the_planners_memory() -> None:
    settings = prepare(settings_of(phones={"count": 4, "device": "laptop"}, data={"name": "digits"})).settings
    scanned = scan_of(settings.model, (1, 8, 8), settings.data.batch_size)
    cuts = settings.model.cuts or []
    places = [np.array([[cut in p.names for p in scanned.positions].index(True)]) for cut in cuts]
    needed = float(phone_memory(scanned, settings.optimizer, *places)[0]) / 1e6
    prepare(settings.with_values(phones={"device": {"gflops": 1, "memory_mb": needed * 1.001}}))
    with pytest.raises(SettingsError, match=r"phones\.device: a batch of"):
        prepare(settings.with_values(phones={"device": {"gflops": 1, "memory_mb": needed * 0.999}}))


@pytest.mark.thorough
def test_the_whole_model_needs_more() -> None:
    def needed(schedule: str) -> float:
        with pytest.raises(SettingsError) as raised:
            prepare(settings_of(phones={"count": 4, "device": SMALL}, schedule={"name": schedule}))
        return float(str(raised.value).split(" needs ")[1].split()[0])

    assert needed("fedavg") == needed("unsplit") > needed("splitfed_v1")


@pytest.mark.parametrize("schedule", ["splitfed_v1", *thorough("sequential", "fedavg")])
def test_virtual_time_is_in_all_files(schedule: str, tmp_path: Any) -> None:
    run = {"name": "x", "storage_path": str(tmp_path), "rounds": 2}
    phones = {"count": 4, "link": "5g", "per_round": 3}
    result = rs.fit(settings_of(phones=phones, run=run, schedule={"name": schedule}), callbacks=[])
    rows = read_rows(place(result.path))
    table = pyarrow.parquet.read_table(f"{result.path}/phones.parquet").to_pandas()
    for row in rows:
        of_round = table[table["round"] == row["round"]]
        assert row["virtual_seconds"] == pytest.approx(of_round["virtual_seconds"].max())
        for name in FIGURES[1:]:
            assert row[name] == pytest.approx(of_round[name].mean())
    assert np.allclose(table[FIGURES[1:]].sum(axis=1), table["virtual_seconds"])
    summary = json.loads((tmp_path / "x" / "summary.json").read_text())
    for name in FIGURES:
        assert summary[f"{name}_total"] == pytest.approx(sum(row[name] for row in rows))


@pytest.mark.thorough
def test_a_resumed_run_tells_the_same_virtual_time(tmp_path: Any) -> None:
    def run(name: str, **more: Any) -> list[float]:
        given = {"name": name, "storage_path": str(tmp_path), "seed": 4, **more}
        settings = settings_of(phones={"count": 4, "link": "3g"}, run=given)
        return [row["virtual_seconds"] for row in read_rows(place(rs.fit(settings, callbacks=[]).path))]

    whole = run("a", rounds=3)
    run("b", rounds=1)
    assert run("b", rounds=3, resume="auto") == whole


def test_without_a_description_nothing_is_told(tmp_path: Any) -> None:
    result = rs.fit(settings_of(run={"name": "x", "storage_path": str(tmp_path), "rounds": 1}), callbacks=[])
    assert not [name for name in read_rows(place(result.path))[0] if name.startswith("virtual")]
    assert not [name for name in json.loads((tmp_path / "x" / "summary.json").read_text()) if "virtual" in name]


def test_memory_of_whole_numbers_is_known_too() -> None:
    sections = {"model": {"name": "transformer"}, "data": {"name": "synthetic_tokens"}}
    sections["task"] = {"loss": "token_cross_entropy"}
    with pytest.raises(SettingsError, match=r"^phones\.device: .* but 4 of 4 phones have less"):
        prepare(settings_of(phones={"count": 4, "device": SMALL}, **sections))


def test_memory_that_can_not_be_told_is_said(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise SettingsError("model.name", "x", "a model whose forward can be traced by torch.fx")

    monkeypatch.setattr("ray_split.preparation.settings.virtual_time_settings.scan_of", fail)
    with caplog.at_level(logging.WARNING):
        assert prepare(settings_of(phones={"count": 4, "device": SMALL})).clock is not None
    assert "whether training fits the phones' memory is not known: model.name" in caplog.text
