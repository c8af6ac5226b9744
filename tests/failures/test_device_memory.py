"""A GPU without room, which is injected: the round is run again with less at once, to the bytes of a run told so."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import ray_split as rs
from actors.resources import gpu

MEMORY = gpu.within_memory


class Injected:
    """Raises torch's error in the server's calls of these numbers, when all is computed; counts them."""

    def __init__(self, *numbers: int, always: Callable[[], bool] = lambda: False) -> None:
        self._numbers, self._always, self.calls = numbers, always, 0

    @contextmanager
    def within_memory(self, drop: Callable[[], None]) -> Iterator[None]:
        with MEMORY(drop):
            yield
            self.calls += 1
            if self.calls in self._numbers or self._always():
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee documentation")


@pytest.fixture
def inject(monkeypatch: pytest.MonkeyPatch) -> Callable[[Injected], Injected]:
    def at(injected: Injected) -> Injected:
        monkeypatch.setattr(gpu, "within_memory", injected.within_memory)
        return injected

    return at


def fit(path: Path, schedule: str, server: dict[str, Any] | None = None, **sections: Any) -> rs.Result:
    """Two rounds of eight phones in two cohorts, stacked; two steps each."""
    settings = rs.Config(
        model={"name": "mlp", "kwargs": {"width": 8}, **sections.pop("model", {})},
        data={"partition": {"name": "dirichlet", "alpha": 1.0}, **sections.pop("data", {})},
        schedule={"name": schedule},
        optimizer={"lr": 0.05, "momentum": 0.9},
        cluster={"backend": "inprocess", "client_actors": 1, "cpus_per_client": 1},
        server={"num_cpus": 1, "lanes": 1, **(server or {})},
        phones={"count": 8, "cohort": 4, "local_steps": 2, **sections.pop("phones", {})},
        run={
            "storage_path": str(path), "name": f"{schedule}_{len(list(path.iterdir()))}", "rounds": 2,
            **sections.pop("run", {}),
        },
        **sections,
    )  # fmt: skip
    return rs.fit(settings, callbacks=[])


def model_of(result: rs.Result) -> bytes:
    return (Path(result.path) / "model.safetensors").read_bytes()


def rows_of(result: rs.Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(result.path) / "metrics.jsonl").read_text().splitlines()]


def summary_of(result: rs.Result) -> dict[str, Any]:
    return json.loads((Path(result.path) / "summary.json").read_text())


def assert_as_told(path: Path, schedule: str, numbers: list[int], inject: Callable[[Injected], Injected]) -> None:
    """After an error in each of these calls the run is that of chunks of two phones from that round on."""
    told = dict[int, bytes]()
    for number in numbers:
        inject(Injected(number))
        result = fit(path, schedule)
        (smaller,) = summary_of(result)["smaller"]
        assert (smaller["lanes"], smaller["chunk"], summary_of(result)["recoveries"]) == (1, 2, 1), number
        inject(Injected())
        if smaller["round"] not in told:
            told[smaller["round"]] = model_of(fit(path, schedule, {"chunk": {smaller["round"]: 2}}))
        assert model_of(result) == told[smaller["round"]], number
        assert [row.get("server_chunk") for row in rows_of(result)] == [
            2 if smaller["round"] <= round else None for round in range(2)
        ]


SCHEDULES = ["splitfed_v1", "parallel"]


@pytest.mark.thorough
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_without_room_in_some_of_the_servers_calls_the_run_is_one_that_was_told_the_chunks(
    tmp_path: Path, schedule: str, inject: Callable[[Injected], Injected]
) -> None:
    counted = inject(Injected())
    fit(tmp_path, schedule)
    assert_as_told(tmp_path, schedule, [1, 2, 5, counted.calls // 2, counted.calls], inject)


@pytest.mark.thorough
@pytest.mark.few(thorough=1)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_without_room_in_any_of_the_servers_calls_the_run_is_one_that_was_told_the_chunks(
    tmp_path: Path, schedule: str, inject: Callable[[Injected], Injected]
) -> None:
    counted = inject(Injected())
    fit(tmp_path, schedule)
    assert_as_told(tmp_path, schedule, list(range(1, counted.calls + 1)), inject)


def test_without_room_again_and_again_chunks_are_halved_down_to_one_phone(
    tmp_path: Path, inject: Callable[[Injected], Injected]
) -> None:
    inject(Injected(4, 8))
    result = fit(tmp_path, "splitfed_v1")
    assert [each["chunk"] for each in summary_of(result)["smaller"]] == [2, 1]
    inject(Injected())
    assert model_of(result) == model_of(fit(tmp_path, "splitfed_v1", {"chunk": 1}))


def test_first_fewer_cohorts_go_abreast_which_changes_no_byte(
    tmp_path: Path, inject: Callable[[Injected], Injected]
) -> None:
    inject(Injected(5))
    result = fit(tmp_path, "splitfed_v1", {"lanes": 8})
    assert summary_of(result)["smaller"] == [{"round": 0, "lanes": 1, "chunk": None}]
    assert [row["server_lanes"] for row in rows_of(result)] == [1, 1]
    inject(Injected())
    assert model_of(result) == model_of(fit(tmp_path, "splitfed_v1", {"lanes": 8}))


def test_a_resumed_run_goes_on_with_the_chunks(tmp_path: Path, inject: Callable[[Injected], Injected]) -> None:
    inject(Injected(5))
    result = fit(tmp_path, "parallel", run={"rounds": 1, "name": "run"})
    inject(Injected())
    resumed = fit(tmp_path, "parallel", run={"name": "run", "resume": "auto"})
    assert resumed.path == result.path
    assert [row["server_chunk"] for row in rows_of(resumed)] == [2, 2]
    assert model_of(resumed) == model_of(fit(tmp_path, "parallel", {"chunk": 2}))


@pytest.mark.parametrize(
    ("schedule", "least"),
    [
        ("splitfed_v1", "phone by phone"),
        ("parallel", "phone by phone"),
        ("sequential", "with schedule.name sequential"),
    ],
)
def test_where_nothing_smaller_is_left_the_run_ends_with_what_to_set(
    tmp_path: Path, schedule: str, least: str, inject: Callable[[Injected], Injected]
) -> None:
    phones = {"count": 8, "local_steps": 1, "cohort": "auto" if schedule == "sequential" else 4}
    inject(Injected(always=lambda: True))
    with pytest.raises(rs.RunFailedError) as raised:
        fit(tmp_path, schedule, phones=phones)
    assert str(raised.value) == (
        f"the server's GPU has no room for B even {least} (CUDA out of memory. Tried to allocate 2.00 GiB.): set a "
        "smaller data.batch_size or data.eval_batch_size, server.dtype bfloat16, or use a GPU with more memory"
    )


def mixed(num_classes: int) -> nn.Module:
    """B has Dropout and statistics, a second forward of which must leave no trace."""
    middle = nn.Sequential(nn.Linear(16, 16), nn.BatchNorm1d(16), nn.Dropout(0.3), nn.ReLU())
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), middle, nn.Linear(16, num_classes))


MIXED = {"name": mixed, "cuts": ["1", "2"]}


@pytest.mark.parametrize("schedule", ["splitfed_v1", "splitfed_v3"])
def test_looped_copies_are_the_same_to_the_byte_in_chunks(tmp_path: Path, schedule: str) -> None:
    looped = {"count": 8, "cohort": 4, "stacked": []}
    whole, pieces = (
        fit(tmp_path, schedule, {"chunk": chunk}, phones=looped, model={**MIXED, "kwargs": {}}) for chunk in ("auto", 2)
    )
    assert model_of(whole) == model_of(pieces)


def test_looped_phones_of_a_shared_b_are_the_same_to_the_byte_in_chunks(tmp_path: Path) -> None:
    looped = {"count": 8, "cohort": 4, "stacked": [], "local_steps": 2}
    whole, pieces = (fit(tmp_path, "parallel", {"chunk": chunk}, phones=looped) for chunk in ("auto", 2))
    assert model_of(whole) == model_of(pieces)


@pytest.mark.few(1)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_stack_in_chunks_is_the_same_training(tmp_path: Path, accumulate: int) -> None:
    stacked = {"count": 8, "cohort": 4, "stacked": ["a", "b", "c"], "local_steps": 2}
    data = {"batch_size": 8, "accumulate": accumulate}
    whole, pieces = (
        fit(tmp_path, "splitfed_v1", {"chunk": chunk}, phones=stacked, data=data, model={**MIXED, "kwargs": {}})
        for chunk in ("auto", 3)
    )
    one, other = (load_file(Path(each.path) / "model.safetensors") for each in (whole, pieces))
    assert one["2.1.num_batches_tracked"] == other["2.1.num_batches_tracked"] > 0
    for name, own in one.items():
        torch.testing.assert_close(own, other[name], rtol=1e-5, atol=1e-6, msg=name)


def test_single_split_learns_in_chunks_as_it_is_told(tmp_path: Path) -> None:
    looped = {"count": 8, "cohort": 4, "stacked": [], "local_steps": 2}
    model = {"cuts": ["layers.0"]}
    whole, pieces = (fit(tmp_path, "splitfed_v1", {"chunk": c}, phones=looped, model=model) for c in ("auto", 2))
    assert model_of(whole) == model_of(pieces)


@pytest.mark.parametrize("chunk", ["0", "{0: 0}", "{-1: 3}", "{a: 3}"])
def test_a_chunk_is_auto_or_phones_or_phones_from_a_round_on(chunk: str) -> None:
    with pytest.raises(rs.SettingsError, match=r"^server\.chunk"):
        rs.Config(server={"chunk": chunk})
