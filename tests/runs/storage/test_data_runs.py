"""Whole runs on natural partitions, on images in folders, and with maps of pixels as labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from PIL import Image

import ray_split as rs
from tests import reference
from tests.reference import assert_same_weights
from tests.tiers import on_ray


def fit(path: Path, **sections: Any) -> tuple[rs.Config, rs.Result]:
    run = {"storage_path": str(path), "name": "run", "rounds": 1}
    settings = rs.Config(cluster={"backend": "inprocess", "client_actors": 1}, run=run, **sections)
    return settings, rs.fit(settings, callbacks=[])


@pytest.mark.parametrize("schedule", ["sequential", "splitfed_v3"])
def test_a_phone_trains_on_its_users_samples_alone(tmp_path: Path, schedule: str) -> None:
    settings, result = fit(
        tmp_path,
        data={
            "name": "synthetic", "kwargs": {"samples": 300, "users": 6}, "val_fraction": 0.2,
            "partition": {"name": "natural", "by": "user"},
        },
        phones={"count": 6},
        schedule={"name": schedule},
    )  # fmt: skip
    users = rs.load_data(settings.data).groups["user"]
    draws = list(rs.stream(settings))
    assert all((users[draw.indices] == draw.phone).all() for draw in draws)
    trained = [sum(len(draw.indices) for draw in draws if draw.phone == phone) for phone in range(6)]
    table = pandas.read_parquet(Path(result.path) / "phones.parquet").sort_values("phone")
    assert table["samples"].tolist() == trained
    if schedule == "sequential":
        assert trained == np.bincount(users).tolist()


SPEAKERS = np.array(["anna", "bo", "cy"])


def spoken(broken: bool = False) -> rs.DataSet:
    """Samples of three speakers, of whom one has a value that is no number."""
    draw = np.random.default_rng(0)
    inputs, labels = draw.normal(size=(90, 1, 8, 8)).astype(np.float32), np.arange(90) % 4
    ids = SPEAKERS[np.arange(90) % 3]
    inputs[ids == "bo"] *= np.nan if broken else 1
    return rs.DataSet(
        rs.Part(inputs, labels), rs.Part(inputs[ids != "bo"], labels[ids != "bo"]), groups={"speaker": ids}
    )


def told(settings: dict[str, Any]) -> dict[str, Any]:
    data = {"name": f"{__name__}:spoken", "partition": {"name": "natural"}, "val_fraction": 0, **settings}
    return {"data": data, "phones": {"count": 3}, "schedule": {"name": "splitfed_v1"}}


def test_phones_whose_ids_are_text_are_called_by_them(tmp_path: Path) -> None:
    _, result = fit(tmp_path, **told({}))
    table = pandas.read_parquet(Path(result.path) / "phones.parquet")
    assert dict(zip(table["phone"], table["group"], strict=True)) == dict(enumerate(SPEAKERS))


def test_a_phone_that_is_left_out_is_called_by_its_id(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sections = told({"kwargs": {"broken": True}})
    with pytest.raises(rs.SettingsError, match=r"returned nan in the training inputs, .* of phone 1 \(speaker bo\), "):
        fit(tmp_path, **sections)
    run = {"storage_path": str(tmp_path), "name": "skip", "rounds": 2, "on_bad_phone": "skip"}
    result = rs.fit(rs.Config(cluster={"backend": "inprocess", "client_actors": 1}, run=run, **sections))
    (left_out,) = result.metrics["quarantined"]
    assert (left_out["phone"], left_out["group"]) == (1, "bo") and left_out["reason"].startswith("speaker bo: its ")
    assert "without phone 1: speaker bo: its " in capsys.readouterr().out


def write_images(folder: Path) -> None:
    draw = np.random.default_rng(0)
    for i in range(60):
        file = folder / "train" / "ab"[i % 2] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (30, 40, 3), np.uint8)).save(file)


def test_images_in_folders_train_the_unsplit_model_bit_for_bit(tmp_path: Path) -> None:
    write_images(tmp_path)
    settings, result = fit(
        tmp_path,
        model={"name": "tests.nets:coloured", "cuts": "1,4"},
        data={"name": "image_folder", "path": tmp_path, "kwargs": {"size": 16}, "augment": "random_resized_crop"},
        phones={"count": 3},
    )
    assert_same_weights(reference.unsplit(settings), result.path)
    assert 0 <= result.metrics["test_accuracy"] <= 1


def test_an_image_that_breaks_during_a_run_ends_it_with_its_name(tmp_path: Path) -> None:
    write_images(tmp_path)
    data = {"name": "image_folder", "path": tmp_path, "kwargs": {"size": 16}, "batch_size": 4}
    settings = rs.Config(data=data, phones={"count": 3})
    last = list(rs.stream(settings.with_values(run={"rounds": 1})))[-1].indices[-1]
    broken = rs.load_data(settings.data).train.inputs.keys[last].decode()
    (tmp_path / broken).write_bytes(b"")
    with pytest.raises(rs.RunFailedError, match=f"{broken} can't be read as an image"):
        fit(tmp_path, model={"name": "tests.nets:coloured", "cuts": "1,4"}, data=data, phones={"count": 3})


def test_maps_of_pixels_are_augmented_with_their_images_in_training(tmp_path: Path) -> None:
    settings, result = fit(
        tmp_path,
        model={"name": "tests.nets:per_pixel", "cuts": "0,2"},
        data={"name": "tests.nets:rows_and_columns", "augment": "crop_flip"},
        phones={"count": 2},
    )
    assert_same_weights(reference.unsplit(settings), result.path)


NAMES = np.array(["cat", "dog", "owl"])


def numbered(named: bool = True) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    inputs, labels = draw.normal(size=(90, 4)).astype(np.float32), draw.integers(0, 3, 90)
    return (inputs.astype(">f8"), NAMES[labels]) if named else (inputs, labels)


@pytest.mark.slow
@pytest.mark.parametrize("cluster", [{}, on_ray({"backend": "ray", "client_actors": 2})], ids=["in process", "on Ray"])
def test_classes_with_names_are_trained_as_their_numbers_and_named_in_the_results(
    tmp_path: Path, cluster: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    if cluster:
        request.getfixturevalue("ray_session")
    found = []
    for named in (True, False):
        settings = rs.Config(
            model={"name": "tests.nets:three_linear"}, phones={"count": 3}, cluster={"backend": "inprocess", **cluster},
            data={"name": "tests.runs.storage.test_data_runs:numbered", "kwargs": {"named": named}, "batch_size": 8},
            run={"storage_path": str(tmp_path), "name": str(named), "rounds": 2},
        )  # fmt: skip
        found.append((settings, rs.fit(settings, callbacks=[])))
    (settings, result), (_, plain) = found
    assert_same_weights(reference.unsplit(settings), result.path)
    assert (Path(result.path) / "model.safetensors").read_bytes() == (
        Path(plain.path) / "model.safetensors"
    ).read_bytes()
    assert rs.Result.from_path(result.path).classes == result.metrics["classes"] == NAMES.tolist()
    assert plain.classes is None and "classes" not in plain.metrics
    assert result.metrics["test_accuracy"] == plain.metrics["test_accuracy"]


def test_classes_of_folders_are_named_by_them(tmp_path: Path) -> None:
    write_images(tmp_path)
    data = {"name": "image_folder", "path": tmp_path, "kwargs": {"size": 16}}
    _, result = fit(tmp_path, model={"name": "tests.nets:coloured", "cuts": "1,4"}, data=data, phones={"count": 3})
    assert result.classes == ["a", "b"]
