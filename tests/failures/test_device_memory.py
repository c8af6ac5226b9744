"""A GPU without room, which is injected: the round is run again with less at once, to the bytes of a run told so."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

import ray_split as rs
from actors import gpu
from tests.tiers import thorough

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


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_without_room_in_some_of_the_servers_calls_the_run_is_one_that_was_told_the_chunks(
    tmp_path: Path, schedule: str, inject: Callable[[Injected], Injected]
) -> None:
    counted = inject(Injected())
    fit(tmp_path, schedule)
    assert_as_told(tmp_path, schedule, [1, 2, 5, counted.calls // 2, counted.calls], inject)


@pytest.mark.thorough
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_without_room_in_any_of_the_servers_calls_the_run_is_one_that_was_told_the_chunks(
    tmp_path: Path, schedule: str, inject: Callable[[Injected], Injected]
) -> None:
    counted = inject(Injected())
    fit(tmp_path, schedule)
    assert_as_told(tmp_path, schedule, list(range(1, counted.calls + 1)), inject)
