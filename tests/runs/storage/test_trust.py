"""Nothing that a folder names is imported or unpickled, unless it is trusted; names of ours need no trust."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import ray_split as rs
from jobs import forgetting
from ray_split import cli
from ray_split.command_line.flags import merged
from ray_split.experiments.sweep import main as sweep
from ray_split.experiments.trace.main import main as trace_main
from ray_split.experiments.trace.round import trace
from tests.runs.storage.test_storage_runs import config

TOUCH = "pathlib:Path.touch"
NAMES = {
    "model.name": {"model": {"name": TOUCH, "kwargs": {"self": "X"}}},
    "data.name": {"data": {"name": TOUCH}},
    "data.augment": {"data": {"augment": TOUCH}},
    "data.partition.name": {"data": {"partition": {"name": TOUCH}}},
    "schedule.name": {"schedule": {"name": TOUCH}},
    "task.loss": {"task": {"loss": TOUCH}},
    "task.metrics": {"task": {"metrics": [TOUCH]}},
    "aggregator.name": {"aggregator": {"name": TOUCH}},
}


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose settings name nothing but ours."""
    path = tmp_path_factory.mktemp("runs")
    settings = rs.Config(
        data={"name": "synthetic", "kwargs": {"samples": 60}}, cluster={"backend": "inprocess"},
        phones={"count": 5, "local_steps": 1, "link": "4g", "held_out": 0.2}, schedule={"name": "splitfed_v1"},
        run={"storage_path": str(path), "name": "ours", "rounds": 1},
    )  # fmt: skip
    return Path(rs.fit(settings, callbacks=[]).path)


@pytest.fixture
def naming(ours: Path, tmp_path: Path) -> Any:
    """The run's folder, copied, with other settings."""

    def copy(values: dict[str, Any]) -> Path:
        folder = tmp_path / "copied"
        folder.mkdir()
        for path in ours.iterdir():
            if path.is_file():
                (folder / path.name).write_bytes(path.read_bytes())
        found = merged(yaml.safe_load((ours / "config.yaml").read_text()), values)
        (folder / "config.yaml").write_text(yaml.safe_dump(found))
        return folder

    return copy


def test_names_of_ours_need_no_trust(ours: Path, tmp_path: Path) -> None:
    assert isinstance(rs.load_model(ours), torch.nn.Module)
    assert trace_main([str(ours), "--out", str(tmp_path)]) == 0
    assert forgetting.main([str(ours)]) == 0


@pytest.mark.parametrize("field", NAMES)
def test_what_a_folder_names_is_not_imported_to_trace_a_round(
    naming: Any, field: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Path, "touch", lambda *_: pytest.fail("it was called"))
    folder = naming(NAMES[field])
    assert trace_main([str(folder)]) == 2
    error = capsys.readouterr().err
    assert error == (
        f"error: {field}: {folder} names {TOUCH!r}, which is imported only if you trust whoever wrote that folder. "
        "If you do, add --trust to the command, or trust=True in Python.\n"
    )


def test_callbacks_that_a_folder_names_are_not_imported_to_look_at_its_run(
    naming: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "touch", lambda *_: pytest.fail("it was called"))
    folder = naming({"run": {"callbacks": [TOUCH, "nowhere:Nobody"]}})
    assert isinstance(rs.load_model(folder), torch.nn.Module)
    assert trace_main([str(folder), "--out", str(tmp_path)]) == 0


def test_a_model_that_a_folder_names_is_imported_with_trust_alone(
    naming: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = naming(
        {"model": {"name": "os:system", "num_classes": None, "kwargs": {"command": f"touch {tmp_path}/ran"}}}
    )
    with pytest.raises(rs.SettingsError, match=r"model\.name: .* names 'os:system', .* only if you trust"):
        rs.load_model(folder)
    assert not (tmp_path / "ran").exists()
    mine = rs.fit(config(tmp_path, "mine", rounds=1), callbacks=[])
    with pytest.raises(rs.SettingsError, match=r"'tests\.nets:three_linear', .* only if you trust"):
        rs.load_model(mine.path)
    assert isinstance(rs.load_model(mine.path, trust=True), torch.nn.Module)


def test_trust_is_of_one_call(ours: Path, tmp_path: Path) -> None:
    mine = rs.fit(config(tmp_path, "mine", rounds=1), callbacks=[])
    rs.load_model(mine.path, trust=True)
    with pytest.raises(rs.SettingsError, match="only if you trust"):
        rs.load_model(mine.path)
    rs.fit(config(tmp_path, "again", rounds=1), callbacks=[])  # a run's own settings are its maker's


def test_data_that_a_folder_names_is_not_imported_to_look_for_forgetting(
    naming: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert forgetting.main([str(naming(NAMES["data.name"]))]) == 2
    assert "only if you trust" in capsys.readouterr().err


def test_resuming_compares_a_folders_settings_and_imports_nothing(
    naming: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Path, "touch", lambda *_: pytest.fail("it was called"))
    folder = naming(NAMES["data.name"])
    flags = ["--data.name", "synthetic", "--data.kwargs", "{samples: 60}", "--phones.count", "3"]
    assert cli.main(["train", "--cluster.backend", "inprocess", *flags, "--run.resume", str(folder)]) == 2
    assert "data.name was 'pathlib:Path.touch', not 'synthetic'" in capsys.readouterr().err


def test_a_sweeps_pickles_are_not_read_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sweep, "connect", lambda _: pytest.fail("it went on"))
    (tmp_path / "tune").mkdir()
    (tmp_path / "tune" / "tuner.pkl").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    assert sweep.main(["--seeds", "1,2", "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "resuming the sweep loads " in error and "Add --trust if you trust" in error and error.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tune"]


def test_garbage_in_a_folder_is_one_line(naming: Any, capsys: pytest.CaptureFixture[str]) -> None:
    folder = naming({})
    (folder / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(rs.SettingsError, match=r"model\.safetensors can't be read"):
        rs.load_model(folder)
    (folder / "config.yaml").write_text("model: [")
    for load in (rs.load_model, lambda path: trace(path, 0)):
        with pytest.raises(rs.SettingsError):
            load(folder)
    (folder / "personal").mkdir()
    (folder / "config.yaml").write_text(json.dumps({}))
    (folder / "personal" / "trained.npy").write_bytes(b"\x93NUMPY")
    (folder / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(rs.SettingsError):
        rs.load_model(folder, phone=1)
    assert capsys.readouterr().out == ""


def test_a_model_that_brings_its_own_code_is_not_loaded_of_a_folder_that_nobody_trusts(naming: Any) -> None:
    pytest.importorskip("transformers", reason="transformers isn't installed")
    folder = naming({"model": {"name": "hf:no/model/anywhere", "kwargs": {"trust_remote_code": True}}})
    with pytest.raises(
        rs.SettingsError, match=r"^model\.kwargs: .* names 'trust_remote_code', which is done only if you"
    ):
        rs.load_model(folder)
    with pytest.raises(rs.SettingsError, match=r"^model\.name: no/model/anywhere can't be loaded: "):
        rs.load_model(folder, trust=True)
