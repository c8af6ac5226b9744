"""A client's GPU without room, which is injected: fewer cohorts at once, to the same bytes, or an end in order."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

import ray_split as rs
from actors.resources import gpu
from ray_split.errors import ClientMemoryError
from tests.failures.test_device_memory import fit, model_of, rows_of, summary_of
from tests.tiers import thorough

MEMORY = gpu.clients_within_memory
Inject = Callable[..., "Injected"]


class Injected:
    """Raises torch's error in the client's calls of these numbers, when all is computed; counts them.

    `part`: of calls that train this one alone.
    """

    def __init__(self, *numbers: int, part: str | None = None) -> None:
        self._numbers, self._part, self.calls = numbers, part, 0

    @contextmanager
    def clients_within_memory(
        self, drop: Callable[[], None], no_room: Callable[[str], ClientMemoryError]
    ) -> Iterator[None]:
        with MEMORY(drop, no_room):
            yield
            error = no_room("")
            self.calls += self._part is None or (self._part == error.part and bool(error.phones))
            if self.calls in self._numbers:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee documentation")


@pytest.fixture
def inject(monkeypatch: pytest.MonkeyPatch) -> Inject:
    def at(*numbers: int, part: str | None = None) -> Injected:
        injected = Injected(*numbers, part=part)
        monkeypatch.setattr(gpu, "clients_within_memory", injected.clients_within_memory)
        return injected

    return at


def calls_of(inject: Inject, path: Path, schedule: str, **sections: Any) -> tuple[int, bytes]:
    """How many calls of clients an undisturbed run has, and its model."""
    counted = inject()
    result = fit(path, schedule, **sections)
    return counted.calls, model_of(result)


ABREAST: dict[str, Any] = {"server": {"lanes": 8}, "phones": {"stacked": ["a", "b", "c"]}}


@pytest.mark.parametrize(
    ("schedule", "share"), [("splitfed_v1", 0.4), *thorough(("parallel", 0.6), ("splitfed_v1", 1))]
)
def test_first_fewer_cohorts_go_abreast_which_changes_no_byte(
    tmp_path: Path, schedule: str, share: float, inject: Inject
) -> None:
    calls, undisturbed = calls_of(inject, tmp_path, schedule, **ABREAST)
    inject(max(1, int(share * calls)))
    result = fit(tmp_path, schedule, **ABREAST)
    assert [(each["lanes"], each["chunk"]) for each in summary_of(result)["smaller"]] == [(1, None)]
    assert model_of(result) == undisturbed


def lines_of(error: Exception) -> str:
    return str(error).replace("CUDA out of memory. Tried to allocate 2.00 GiB.", "REASON")


END = "or go on with --run.resume and cluster.client_gpus 0: A and C are on CPUs then"
ONE = {"phones": {"count": 4, "local_steps": 1, "cohort": "auto"}}
COHORT = {"phones": {"count": 4, "local_steps": 1, "cohort": 4, "stacked": ["a", "b", "c"]}}


def assert_ends_in_order(
    path: Path, schedule: str, number: int, inject: Inject, sections: dict[str, Any], part: str | None = None
) -> tuple[str, bytes]:
    """What the run says whose client has no room in the call of this number, and its model, once it was resumed."""
    inject(number, part=part)
    with pytest.raises(rs.RunFailedError) as raised:
        fit(path, schedule, run={"name": f"run_{number}"}, **sections)
    assert summary_of(rs.Result.from_path(path / f"run_{number}"))["status"] == "failed"
    inject()
    resumed = fit(path, schedule, run={"name": f"run_{number}", "resume": "auto"}, **sections)
    assert [row["round"] for row in rows_of(resumed)] == [0, 1]
    return lines_of(raised.value), model_of(resumed)


def test_a_phone_alone_is_named_with_its_segment_and_what_to_set(tmp_path: Path, inject: Inject) -> None:
    said, model = assert_ends_in_order(tmp_path, "sequential", 6, inject, ONE, part="C")
    phone = said.partition(" of phone ")[2][0]
    assert phone in "0123"
    wanted = f"set a smaller data.batch_size, phones.dtype bfloat16, {END}"
    assert said == f"CPU has no room for C of phone {phone} (REASON): {wanted}"
    assert model == model_of(fit(tmp_path, "sequential", **ONE))


@pytest.mark.parametrize("part", ["A", *thorough("the copies")])
def test_of_a_cohort_all_phones_are_named(tmp_path: Path, part: str, inject: Inject) -> None:
    said, _ = assert_ends_in_order(tmp_path, "splitfed_v1", 1, inject, COHORT, part=part)
    wanted = f"set a smaller data.batch_size or phones.cohort, phones.dtype bfloat16, {END}"
    assert said == f"CPU has no room for {part} of phones 0, 1, 2, 3 (REASON): {wanted}"


@pytest.mark.slow
@pytest.mark.parametrize(("schedule", "sections"), [("sequential", ONE), ("splitfed_v1", COHORT), ("fedavg", COHORT)])
def test_without_room_in_any_call_the_run_ends_in_order(
    tmp_path: Path, schedule: str, sections: dict[str, Any], inject: Inject
) -> None:
    calls, undisturbed = calls_of(inject, tmp_path, schedule, **sections)
    found = [assert_ends_in_order(tmp_path, schedule, number, inject, sections) for number in range(1, calls + 1)]
    assert {model for _, model in found} == {undisturbed}
    assert all("has no room for" in said and said.endswith(END) for said, _ in found)
    assert any("data.eval_batch_size" in said for said, _ in found)


def test_the_error_crosses_between_processes_and_names_a_dozen_phones_briefly() -> None:
    error = pickle.loads(pickle.dumps(ClientMemoryError(tuple(range(12)), "A", "NVIDIA L4", "out of memory")))
    phones = "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ..."
    assert str(error) == f"NVIDIA L4 has no room for A of phones {phones} (out of memory)"
    assert str(ClientMemoryError((), "C", "NVIDIA L4", "full")) == "NVIDIA L4 has no room for C (full)"
