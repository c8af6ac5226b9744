"""Whatever dies, at whichever call: the run goes on, and ends with the bytes of the run that nothing happened to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ray_split as rs
from actors.inprocess import InProcessBackend, LocalHandle, connect
from ray_split.driver.round_runner import RoundRunner
from ray_split.driver.training_loop import run
from ray_split.errors import ActorLostError
from ray_split.preparation.prepare import Prepared, prepare
from ray_split.results.personal_state import Personal

MIXED = {
    "schedule": {"name": "ExponentialLR", "kwargs": {"gamma": 0.7}, "warmup": 2},
    "clip_norm": 0.1,
    "a": {"name": "nadam", "lr": 0.01},
    "c": {"name": "adagrad", "schedule": {"name": "StepLR", "kwargs": {"step_size": 1}, "per": "round"}},
}
"""Optimizers of each segment's own, rates that have a schedule, and clipping by the norm of all gradients."""

SCHEDULES: dict[str, dict[str, Any]] = {
    "sequential": {},
    "splitfed_v1": {"phones": {"cohort": 2}},
    "splitfed_v1 trimmed_mean": {"phones": {"cohort": 2}, "aggregator": {"name": "trimmed_mean"}},
    "splitfed_v2": {},
    "splitfed_v3": {"phones": {"cohort": 2, "held_out": 0.2}},
    "parallel": {"phones": {"cohort": 2}},
    "parallel joint": {"phones": {"cohort": 2}, "schedule": {"kwargs": {"batch": "joint"}}},
    "splitfed_v1 replicas": {"phones": {"cohort": 2}, "server": {"replicas": 2}},
    "splitfed_v2 replicas": {"server": {"replicas": 2}},
    "parallel replicas": {"phones": {"cohort": 2}, "server": {"replicas": 2}},
    "fedavg": {"phones": {"cohort": 2}},
    "splitfed_v1 scaffold": {
        "phones": {"cohort": 2},
        "optimizer": {"momentum": 0.0},
        "algorithm": {"name": "scaffold"},
        "server_optimizer": {"name": "fedadam"},
    },
    "fedavg moon": {"phones": {"cohort": 2}, "algorithm": {"name": "moon"}},
    "splitfed_v3 feddyn": {"phones": {"cohort": 2, "held_out": 0.2}, "algorithm": {"name": "feddyn"}},
    "unsplit": {},
    "sequential mixed": {"optimizer": MIXED},
    "splitfed_v1 mixed": {"phones": {"cohort": 2, "stacked": "a,b,c"}, "optimizer": MIXED},
    "splitfed_v3 mixed": {"phones": {"cohort": 2, "held_out": 0.2}, "optimizer": MIXED},
    "splitfed_v1 accumulated": {
        "phones": {"cohort": 2, "stacked": "a,b,c"},
        "optimizer": {**MIXED, "ema_decay": 0.5},
        "data": {"batch_size": 2, "accumulate": 2},
    },
}
FAILING = {
    "splitfed_v1 failing": {"phones": {"cohort": 2, "dropout": 0.7}},
    "sequential failing": {"phones": {"dropout": 0.7}},
    "sequential failing accumulated": {"phones": {"dropout": 0.7}, "data": {"batch_size": 2, "accumulate": 2}},
}
EVERY: dict[str, dict[str, Any]] = {**SCHEDULES, **FAILING}
FEW = ("sequential", "splitfed_v1", "splitfed_v2", "splitfed_v3", "parallel")
PARTS = {"a seventh": lambda at: at % 7 == 3, "the others": lambda at: at % 7 != 3}  # of the calls; each of both kinds


WHOLE = (*FEW, "parallel joint", "splitfed_v1 failing")
"""In CI every call of these; of what is told beside a schedule, and of the baselines, a seventh."""


def tier(schedule: str, part: str) -> list[pytest.MarkDecorator]:
    """Where it runs."""
    others = part == "the others"
    if "trimmed_mean" in schedule or (others and schedule not in WHOLE):
        return [pytest.mark.slow]
    return [pytest.mark.thorough] * (others or schedule not in FEW)


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


class Rows:
    """Stands for the run's records."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: list[dict[str, Any]] = []
        self.last: dict[str, Any] = {}
        self.stopped_by: str | None = None

    def ended_with(self, rounds: int) -> str | None:
        return None

    def would_be_best(self, row: dict[str, Any]) -> bool:
        return True

    def round(self, row: dict[str, Any], phones: dict[str, Any], flush: bool) -> None:
        self.last = row
        times = {name for name in row if name.endswith("seconds")}
        self.rows.append({name: value for name, value in row.items() if name not in times})
        self.rows.append({name: str(values.tolist()) for name, values in phones.items() if "test" not in name})

    def summary(self, status: str, recoveries: int) -> None:
        pass


def prepared(path: Path, schedule: str, cuts: str) -> Prepared:
    """Two rounds on three phones with one or two batches each; a checkpoint after the second."""
    sections: dict[str, Any] = {**EVERY[schedule]}
    settings = rs.Config(
        model={"name": f"tests.nets:{cuts}_linear"},
        schedule={"name": schedule.partition(" ")[0], **sections.pop("schedule", {})},
        data={
            "name": "synthetic", "kwargs": {"samples": 16, "shape": [4], "num_classes": 3}, "batch_size": 4,
            **sections.pop("data", {}),
        },
        optimizer={"lr": 0.05, "momentum": 0.9, **sections.pop("optimizer", {})},
        phones={"count": 3, **sections.pop("phones", {})},
        cluster={"backend": "inprocess", "client_actors": 2}, checkpoint={"every": 2},
        run={"storage_path": str(path), "name": "run", "rounds": 2}, **sections,
    )  # fmt: skip
    found = prepare(settings)
    return found._replace(settings=connect(settings.cluster).resolve(found.settings))


def fit(what: Prepared, folder: Path, killer: Killer) -> tuple[list[dict[str, Any]], dict[str, bytes], int]:
    """The run's rows, what it leaves, and how often it recovered."""
    settings = what.settings.with_values(run={"storage_path": str(folder.parent), "name": folder.name})
    backend, records, original = InProcessBackend(), Rows(folder), LocalHandle.call
    loop = RoundRunner(settings, what.stream, backend, [])
    sizes = {"val": len(what.parts.val.inputs), "test": len(what.parts.test.inputs)}
    folder.mkdir()
    backend.start(settings, *what[1:4])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(LocalHandle, "call", lambda handle, name, given: killer(handle, name, given, original))
        run(loop, settings, records, sizes, loop.start())  # type: ignore[arg-type]
    return records.rows, dict(contents(folder)), loop.recoveries


def contents(folder: Path) -> Iterator[tuple[str, bytes]]:
    """What a run leaves that depends on nothing but its settings."""
    yield "model", (folder / "model.safetensors").read_bytes()
    for path in sorted(folder.glob("checkpoints/round_000002/*.safetensors")):
        yield path.name, path.read_bytes()
    if (adapters := folder / "adapter" / "adapter_model.safetensors").exists():
        yield "adapter", adapters.read_bytes()
    if (folder / "personal").exists():
        own = Personal.open(folder / "personal")
        for phone in np.flatnonzero(own.trained):
            yield f"phone {phone}", b"".join(a.tobytes() for s in own.own(int(phone)).values() for a in s.values())


@pytest.mark.few(1, thorough=3)
@pytest.mark.parametrize("cuts", ["three", pytest.param("two", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("schedule", "part"), [pytest.param(name, part, marks=tier(name, part)) for part in PARTS for name in EVERY]
)
def test_an_actor_may_die_at_any_call(tmp_path: Path, schedule: str, cuts: str, part: str) -> None:
    what, watched = prepared(tmp_path, schedule, cuts), Killer(-1, False)
    rows, left, _ = fit(what, tmp_path / "undisturbed", watched)
    assert len(watched.calls) > 30
    for at, call in enumerate(watched.calls):
        if not PARTS[part](at):
            continue
        assert fit(what, tmp_path / f"at_{at}", Killer(at, done=at % 2 == 0)) == (rows, left, 1), (at, call)
