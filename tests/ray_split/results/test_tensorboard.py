"""What TensorBoard has of a run: every figure of its rows in a group, the settings as text and as hparams."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

import ray_split as rs
from ray_split.results.tags import tag
from tests.ray_split.driver.test_ending_early import After, config


def events(path: str) -> EventAccumulator:
    found = EventAccumulator(path, size_guidance={"tensors": 0, "scalars": 0})
    found.Reload()
    return found


def hparams(found: EventAccumulator) -> dict[str, Any]:
    """Those of the run, and how it ended."""
    read = plugin_data_pb2.HParamsPluginData.FromString
    parts = {k: read(m.plugin_data.content) for k, m in found.summary_metadata.items() if k.startswith("_hparams_")}
    start = parts["_hparams_/session_start_info"].session_start_info.hparams
    values = {name: getattr(value, value.WhichOneof("kind")) for name, value in start.items()}
    return values | {"ended": "_hparams_/session_end_info" in parts}


def test_every_figure_of_a_row_is_a_scalar_in_its_group(tmp_path: Path) -> None:
    own = {"held_out": 0.2, "link": "4g"}
    model = {"name": "mlp", "kwargs": {"inputs": 4}}
    settings = config(tmp_path, rounds=4, phones=own, model=model)
    rs.fit(settings, callbacks=[After(2)])
    result = rs.fit(settings.with_values(run={"resume": "auto"}), callbacks=[])
    found = events(result.path)
    rows = [json.loads(line) for line in (Path(result.path) / "metrics.jsonl").read_text().splitlines()]
    told = {(tag(name), row["round"]): value for row in rows for name, value in row.items() if value is not None}
    shown = {(name, e.step): e.value for name in found.Tags()["scalars"] for e in found.Scalars(name)}
    assert shown == {key: pytest.approx(value) for key, value in told.items() if key[0] != "run/round"}
    assert not [name for name in found.Tags()["scalars"] if name.startswith("run/")]  # each has a group
    assert {"train/loss", "val/accuracy", "test/accuracy", "phones/late", "bytes/up", "seconds/round"} <= {
        name for name, _ in shown
    }


def test_the_settings_are_there_as_text_and_as_hparams(tmp_path: Path) -> None:
    settings = config(tmp_path, rounds=1, optimizer={"lr": 0.25})
    found = events(rs.fit(settings, callbacks=[]).path)
    text = found.Tensors("settings/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "      lr: 0.25\n" in text and all(line.startswith("    ") for line in text.splitlines())
    values = hparams(found)
    assert (values["optimizer.lr"], values["data.kwargs.samples"], values["model.cuts"]) == (0.25, 90, "[a, b]")
    assert values["phones.device"] == "none" and values["ended"]
    assert not [name for name in values if name.startswith(("cluster.", "run.storage_path"))]


def test_a_run_that_failed_has_no_end(tmp_path: Path) -> None:
    class Fails(rs.Callback):
        def on_round_end(self, row: dict[str, Any]) -> None:
            raise ValueError

    with pytest.raises(rs.RunFailedError):
        rs.fit(config(tmp_path), callbacks=[Fails()])
    assert not hparams(events(str(tmp_path / "r")))["ended"]
