"""Batches that threads make ahead: the same bits in the same order, the same errors, and no thread is left."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode

import ray_split as rs
from actors.inprocess import LocalHandle
from ray_split.data.augmentations import AUGMENTATIONS, Augmentation
from ray_split.data.batches_ahead import THREADS, BatchesAhead, decoders_of, next_in_turn
from ray_split.data.own_draws import seeded
from ray_split.data.types import LazyInputs
from ray_split.errors import ActorLostError, BadPhoneError
from ray_split.messages.turn import Turn
from ray_split.preparation.prepare import prepare
from tests.runs.server.test_one_card import told_of
from tests.tiers import mostly_thorough

SCHEDULES = ("sequential", "splitfed_v1", "splitfed_v2", "splitfed_v3", "parallel", "fedavg", "unsplit")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of three classes, as files."""
    folder, draw = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for name in ("cat", "dog", "owl"):
        (folder / name).mkdir()
        for i in range(12):
            Image.fromarray(draw.integers(0, 256, (12, 14, 3), np.uint8)).save(folder / name / f"{i}.png")
    return folder


def settings(images: Path, folder: Path, schedule: str, decoders: int | str, **data: Any) -> rs.Config:
    """Phones that draw of torch all the time: Dropout in each segment, augmented images, mixup."""
    return rs.Config(
        model={"name": f"{__name__}:drops"},
        data={
            "name": "image_folder", "path": images, "kwargs": {"size": 8}, "batch_size": 3,
            "augment": "crop_flip", "mixup": 0.4, "decoders": decoders, **data,
        },
        phones={"count": 3},
        schedule={"name": schedule},
        cluster={"backend": "inprocess", "client_actors": 2},
        run={"storage_path": str(folder), "name": f"{schedule}_{decoders}", "rounds": 2},
    )  # fmt: skip


def drops(num_classes: int) -> rs.Segments:
    nn = torch.nn
    return rs.Segments(
        nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.Dropout(0.3)),
        nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Dropout(0.3)),
        nn.Sequential(nn.Linear(16, num_classes), nn.Dropout(0.1)),
    )


def trained(asked: rs.Config) -> tuple[bytes, list[dict[str, Any]]]:
    return told_of(rs.fit(asked, callbacks=[]))


@pytest.mark.parametrize("schedule", mostly_thorough(SCHEDULES, "sequential", "splitfed_v1"))
def test_a_run_has_the_same_bytes_however_many_threads_make_batches(
    images: Path, tmp_path: Path, schedule: str
) -> None:
    without = trained(settings(images, tmp_path, schedule, 0))
    for decoders in ("auto", 3):
        assert trained(settings(images, tmp_path, schedule, decoders)) == without
    ending = [each for each in threading.enumerate() if each.name.startswith(THREADS)]  # nobody waits for them
    for each in ending:
        each.join(timeout=60)
    assert not any(each.is_alive() for each in ending)


@pytest.mark.parametrize("schedule", mostly_thorough(SCHEDULES, "splitfed_v1"))
def test_a_client_that_dies_in_the_middle_changes_nothing(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, schedule: str
) -> None:
    without, original, calls = trained(settings(images, tmp_path, schedule, 0)), LocalHandle.call, list[str]()

    def call(handle: LocalHandle, name: str, arguments: list[Any]) -> Any:
        if handle.name == "client 0" and name in ("forward", "train_alone"):
            calls.append(name)
            if len(calls) == 2:
                handle.kill()
                raise ActorLostError("killed")
        return original(handle, name, arguments)

    monkeypatch.setattr(LocalHandle, "call", call)
    asked = settings(images, tmp_path, schedule, 2).with_values(cluster={"client_actors": 1})
    result = rs.fit(asked, callbacks=[])
    assert result.metrics["recoveries"] == 1
    assert (Path(result.path) / "model.safetensors").read_bytes() == without[0]


def test_an_image_that_cannot_be_read_ends_the_run_with_the_same_line(images: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(images, tmp_path / "images")
    lines = []
    for decoders in (0, 2):
        asked = settings(folder, tmp_path, "splitfed_v1", decoders)
        stream, inputs = prepare(asked).stream, rs.load_data(asked.data).train.inputs
        if not decoders:  # the first samples are tried before a run begins
            (folder / os.fsdecode(inputs.keys[stream.partition.indices[-1]])).write_bytes(b"nothing")  # type: ignore[union-attr]
        with pytest.raises((BadPhoneError, rs.RunFailedError)) as raised:
            rs.fit(asked, callbacks=[])
        lines.append(str(raised.value))
    assert lines[0] == lines[1] and "its data can't be read" in lines[0]


def test_the_next_batch_is_made_while_nobody_waits_for_it() -> None:
    ahead, made, at = BatchesAhead(1), threading.Event(), Turn(0, 0, (1,), 0)
    ahead.begin(at, lambda: made.set() or threading.current_thread().name)
    assert made.wait(60)
    assert ahead.take(at, lambda: "made anew").startswith(THREADS)
    ahead.end()


def test_what_was_begun_for_an_attempt_that_failed_is_dropped() -> None:
    ahead, at = BatchesAhead(1), Turn(0, 0, (1,), 0)
    ahead.begin(at, lambda: "before")
    ahead.begin(at._replace(phones=(2,)), lambda: "another's")
    ahead.drop((1,))
    assert ahead.take(at, lambda: "after") == "after"
    assert ahead.take(at._replace(phones=(2,)), lambda: "anew") == "another's"
    ahead.end()


def lazy(thread_safe: bool) -> LazyInputs:
    return LazyInputs(lambda key: key, np.arange(3), (1,), thread_safe=thread_safe)


@pytest.mark.parametrize(
    ("asked", "inputs", "threads"),
    [
        ("auto", np.zeros((3, 1)), 0), ("auto", lazy(False), 0), ("auto", lazy(True), 1),
        (0, lazy(True), 0), (4, lazy(False), 4), (2, np.zeros((3, 1)), 2),
    ],
)  # fmt: skip
def test_by_default_a_thread_makes_batches_only_where_samples_are_read_and_threads_may(
    asked: Any, inputs: Any, threads: int
) -> None:
    assert decoders_of(asked, inputs) == threads
    assert not isinstance(inputs, LazyInputs) or inputs.subset(np.array([1])).thread_safe == inputs.thread_safe


def test_phones_in_turn_are_dealt_to_clients_in_their_order() -> None:
    stream = prepare(rs.Config(phones={"count": 5}, run={"name": "x"})).stream
    first, *rest = stream.phones(1)
    turn = Turn(1, 0, (first,), 3)
    assert next_in_turn(stream, turn, 1) == Turn(1, 0, (rest[0],), 0)
    assert next_in_turn(stream, turn, 2) == Turn(1, 0, (rest[1],), 0)
    assert next_in_turn(stream, turn._replace(phones=(rest[-1],)), 1) is None


class EachDraw(TorchDispatchMode):
    """Refuses what draws from torch's default generator, and counts what draws from another."""

    count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.Tag.nondeterministic_seeded in function.tags:
            given = [*args, *(kwargs or {}).values()]
            assert any(isinstance(value, torch.Generator) for value in given), function
            self.count += 1
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_our_augmentations_draw_the_same_from_a_generator_of_their_own_and_from_no_other(name: str) -> None:
    change = Augmentation(name, (3, 10, 12))
    images = np.random.default_rng(0).integers(0, 256, (1, 60, 3, 10, 12), np.uint8)
    labels, seeds = np.zeros((1, 60), int), np.arange(60, dtype=np.uint64)[None]
    expected, before = change(images, labels, seeds)[0], torch.get_rng_state()
    with EachDraw() as draws:
        found = change(images, labels, seeds, beside=True)[0]
    assert (found == expected).all() and not (found == images).all()
    assert draws.count >= 60 and torch.equal(torch.get_rng_state(), before)


def test_an_augmentation_of_the_users_is_left_to_the_clients_own_thread() -> None:
    assert not Augmentation("tests.nets:smaller_images", (3, 10, 12)).may_be_beside


def test_seeds_of_a_thread_of_its_own_are_torchs() -> None:
    drawn = []
    for beside in (False, True):
        with seeded(beside) as seed:
            seed(7)
            drawn.append([torch.rand(3), torch.empty(2).uniform_(1, 2), torch.randint(9, (4,)), torch.randperm(5)])
    assert all(torch.equal(*pair) for pair in zip(*drawn, strict=True))
