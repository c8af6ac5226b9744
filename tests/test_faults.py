"""Whatever dies, at whichever call: the run goes on, and ends with the bytes of the run that nothing happened to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ray_split as rs
from actors.inprocess import LocalHandle
from ray_split.failure import ActorLostError
from ray_split.personal import Personal

SCHEDULES = {
    "sequential": {},
    "splitfed_v1": {"phones": {"cohort": 2}},
    "splitfed_v2": {},
    "splitfed_v3": {"phones": {"cohort": 2, "held_out": 0.2}},
    "parallel": {"phones": {"cohort": 2}},
    "parallel joint": {"phones": {"cohort": 2}, "schedule": {"kwargs": {"batch": "joint"}}},
    "fedavg": {"phones": {"cohort": 2}},
    "unsplit": {},
}


class Killer:
    """Kills an actor at one of all the calls of a run, before it answers: with the call done, or not."""

    def __init__(self, at: int, done: bool) -> None:
        self.at, self.done = at, done
        self.calls: list[str] = []

    def __call__(self, handle: LocalHandle, name: str, arguments: list[Any], original: Any) -> Any:
        self.calls.append(f"{handle.name}.{name}")
        if len(self.calls) - 1 != self.at:
            return original(handle, name, arguments)
        if self.done:
            original(handle, name, arguments)
        handle.kill()
        raise ActorLostError(f"{handle.name} was killed in {name}")


def fit(path: Path, schedule: str, cuts: str, killer: Killer) -> tuple[rs.Result, dict[str, bytes]]:
    """Two rounds on three phones of two small batches each."""
    sections: dict[str, Any] = {**SCHEDULES[schedule]}
    name = schedule.partition(" ")[0]
    settings = rs.Config(
        model={"name": "mlp", "cuts": cuts, "kwargs": {"width": 4, "inputs": 4}}, schedule={"name": name, **sections.pop("schedule", {})},
        data={"name": "synthetic", "kwargs": {"samples": 20, "shape": [4], "num_classes": 3}, "batch_size": 4},
        optimizer={"lr": 0.05, "momentum": 0.9}, phones={"count": 3, **sections.pop("phones", {})},
        cluster={"backend": "inprocess", "client_actors": 2}, checkpoint={"every": 2},
        run={"storage_path": str(path), "name": f"at_{killer.at}_{killer.done}", "rounds": 3},
    )  # fmt: skip
    original = LocalHandle.call
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(LocalHandle, "call", lambda handle, name, given: killer(handle, name, given, original))
        result = rs.fit(settings, callbacks=[])
    return result, dict(contents(Path(result.path)))


def contents(folder: Path) -> Iterator[tuple[str, bytes]]:
    """What a run leaves that depends on nothing but its settings."""
    yield "model", (folder / "model.safetensors").read_bytes()
    for path in sorted(folder.glob("checkpoints/round_000003/*.safetensors")):
        yield path.name, path.read_bytes()
    if (folder / "personal").exists():
        own = Personal.open(folder / "personal")
        for phone in np.flatnonzero(own.trained):
            yield f"phone {phone}", b"".join(a.tobytes() for s in own.own(int(phone)).values() for a in s.values())


TIMES = ("seconds", "samples_per_second", "phone_rounds_per_second")


def rows(result: rs.Result) -> list[dict[str, Any]]:
    table = result.metrics_dataframe
    return table[[name for name in table if not name.endswith("seconds")]].to_dict("records")


@pytest.mark.parametrize("cuts", ["layers.0,layers.1", "layers.0"], ids=["double", "single"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_an_actor_may_die_at_any_call(tmp_path: Path, schedule: str, cuts: str) -> None:
    watched = Killer(-1, False)
    undisturbed, expected = fit(tmp_path, schedule, cuts, watched)
    assert len(watched.calls) > 30
    failed = []
    for at, call in enumerate(watched.calls):
        killer = Killer(at, done=at % 2 == 0)
        result, got = fit(tmp_path, schedule, cuts, killer)
        if got != expected or rows(result) != rows(undisturbed) or result.metrics["recoveries"] != 1:
            failed.append((at, call))
    assert failed == []
