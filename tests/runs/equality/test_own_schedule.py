"""A schedule of the user's, outside the checkout, gets what ours get: order, lateness, virtual time, kwargs checked."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

import ray_split as rs
from ray_split.preparation.prepare import prepare
from tests.reference import assert_same_weights
from tests.test_docs import DOCS, blocks

TAKES_TURNS = """
import ray_split as rs


def one_after_the_other(turn, stream, roles, optimizer="handed_on"):
    ends, sender = roles.fed_server.client_state.remote(turn), ()
    fate = stream.fate(turn.round)
    places = [phone for phone in stream.phones(turn.round) if phone in fate.reached]
    for place, phone in enumerate(places):
        client, at = roles.client(place), turn._replace(phones=(phone,))
        steps = stream.cut_short(turn.round, at.phones)
        yield client.load.remote(at, ends, None, None, rs.Start(optimizer == "fresh", sender=sender, steps=steps))
        for step in range(int(stream.taken(turn.round, at.phones)[0])):
            now = at._replace(step=step)
            hidden = roles.server.forward.remote(now, client.forward.remote(now))
            gradient = roles.server.backward.remote(now, client.loss.remote(now, hidden))
            yield client.backward.remote(now, gradient)
        if stream.finishing(turn.round, at.phones):
            ends, sender = client.state.remote(at), at.phones
        else:
            yield client.release.remote(at)
    return ends if sender else None, roles.server.state.remote(turn)


mine = rs.Schedule(
    one_after_the_other, takes={"optimizer": ("handed_on", "fresh")}, order="in_turn", averages=False,
)
number = 3
"""
SLOW = {"device": "low_end", "link": "wifi"}
LATE = {**SLOW, "dropout": 0.15, "over_select": 0.7, "per_round": 4}


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module that lies in a folder of the user's."""
    (tmp_path / "turns_of_mine.py").write_text(TAKES_TURNS)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "turns_of_mine"
    sys.modules.pop("turns_of_mine", None)


def settings_of(path: Path, named: str, name: str, **sections: Any) -> rs.Config:
    return rs.Config(
        model={"name": "mlp"}, data={"partition": {"name": "dirichlet", "alpha": 1.0}},
        schedule={"name": named, **sections.pop("schedule", {})}, optimizer={"momentum": 0.9},
        phones={"count": 7, "local_steps": 3, **sections.pop("phones", {})},
        cluster={"backend": "inprocess"}, **sections,
        run={"rounds": 4, "name": name, "storage_path": str(path / "runs")},
    )  # fmt: skip


def drawn(settings: rs.Config) -> list[tuple[Any, ...]]:
    return [(*draw[:4], draw.indices.tolist(), draw.finishes) for draw in rs.stream(settings)]


@pytest.mark.few(1)
@pytest.mark.parametrize("phones", [SLOW, LATE], ids=["all finish", "some are late or drop out"])
def test_one_that_takes_turns_is_sequential_in_bits_stream_and_virtual_time(
    tmp_path: Path, module: str, phones: dict[str, Any]
) -> None:
    both = [
        settings_of(tmp_path, name, kind, phones=phones)
        for kind, name in (("ours", "sequential"), ("theirs", f"{module}:mine"))
    ]
    ours, theirs = (rs.fit(settings, callbacks=[]) for settings in both)
    assert_same_weights(rs.load_model(ours.path), theirs.path)
    assert drawn(both[0]) == drawn(both[1])
    tables = [pandas.read_parquet(f"{run.path}/phones.parquet") for run in (ours, theirs)]
    pandas.testing.assert_frame_equal(*tables)
    assert np.nanmax(tables[0]["virtual_seconds"]) > 0
    counts = [
        [[row[f"phones_{fate}"] for fate in ("late", "dropped")] for row in map(json.loads, lines.splitlines())]
        for lines in (Path(run.path, "metrics.jsonl").read_text() for run in (ours, theirs))
    ]
    assert counts[0] == counts[1]
    assert np.all(np.sum(counts[0], axis=0) > 0) == (phones is LATE)


def test_its_kwargs_are_checked_its_phones_make_no_cohorts_and_its_server_has_no_replicas(
    tmp_path: Path, module: str
) -> None:
    name = f"{module}:mine"
    assert prepare(settings_of(tmp_path, name, "fresh", schedule={"kwargs": {"optimizer": "fresh"}}))
    for sections, line in (
        ({"schedule": {"kwargs": {"optimizer": "old"}}}, "optimizer must be handed_on or fresh, not old"),
        ({"phones": {"cohort": 2}}, "phones.cohort: can't be used with .*, which trains one phone at a time"),
        ({"server": {"replicas": 2}}, "server.replicas: must be 1 with .*, not 2"),
        ({"aggregator": {"name": "median"}}, "aggregator.name: can't be used with .*, where nothing is averaged"),
    ):
        with pytest.raises(rs.SettingsError, match=line):
            prepare(settings_of(tmp_path, name, "refused", **sections))
    with pytest.raises(rs.SettingsError, match=r"is a int\. Name a function or a ray_split\.Schedule"):
        prepare(settings_of(tmp_path, f"{module}:number", "refused"))


def test_a_bare_function_gets_the_defaults_and_is_asked_what_it_takes(tmp_path: Path, module: str) -> None:
    name = f"{module}:one_after_the_other"
    stream = prepare(settings_of(tmp_path, name, "bare", phones={"cohort": 2})).stream
    assert len(stream.cohorts(0)[0]) == 2
    with pytest.raises(rs.SettingsError, match=r"schedule\.name: .*unexpected keyword argument 'mine'"):
        prepare(settings_of(tmp_path, name, "refused", schedule={"kwargs": {"mine": 1}}))


@pytest.fixture
def copies_of_mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The docs' schedule in which each phone has its own copy of B, in a folder of the user's."""
    (tmp_path / "copies_of_mine.py").write_text("import ray_split as rs\n\n" + blocks(DOCS / "algorithm.md")[2])
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "copies_of_mine"
    sys.modules.pop("copies_of_mine", None)


def test_one_whose_phones_have_their_own_b_is_splitfed_v1_in_bits_and_virtual_time(
    tmp_path: Path, copies_of_mine: str
) -> None:
    cohorts = {**SLOW, "cohort": 3}
    ours, theirs = (
        rs.fit(settings_of(tmp_path, name, kind, phones=cohorts), callbacks=[])
        for kind, name in (("ours", "splitfed_v1"), ("theirs", f"{copies_of_mine}:theirs"))
    )
    assert Path(ours.path, "model.safetensors").read_bytes() == Path(theirs.path, "model.safetensors").read_bytes()
    tables = [pandas.read_parquet(f"{run.path}/phones.parquet") for run in (ours, theirs)]
    pandas.testing.assert_frame_equal(*tables)
    assert tables[0]["virtual_seconds"].min() > 0


def test_a_bare_function_that_opens_copies_is_told_how_to_say_so(tmp_path: Path, copies_of_mine: str) -> None:
    settings = settings_of(tmp_path, f"{copies_of_mine}:each_its_own", "bare")
    with pytest.raises(rs.SettingsError, match=r"open, which B hasn't with way='in_turn' .* Set way to 'own_copies'"):
        rs.fit(settings, callbacks=[])
