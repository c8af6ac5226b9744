"""Rounds of many phones against a plain PyTorch loop over the same phones, and against one big batch."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch.nn import functional

import ray_split as rs
from actors import cluster
from jobs.measures.timing import Row, interleaved, ratio
from ray_split import models
from ray_split.optimizers import OPTIMIZERS
from ray_split.prepare import Prepared, prepare, resolve
from ray_split.training import RoundLoop


def settings_of(model: str, phones: int, samples: int, schedule: str, **sections: Any) -> rs.Config:
    """`phones` phones with `samples` samples of 1x8x8 each, all of them in every round."""
    return rs.Config(
        model={"name": model},
        data={
            "name": "synthetic",
            "kwargs": {"samples": phones * samples},
            "val_fraction": 0,
            **sections.pop("data", {}),
        },
        phones={"count": phones, **sections.pop("phones", {})},
        schedule={"name": schedule},
        optimizer={"lr": 0.05},
        server={"num_gpus": 0},
        cluster={"client_actors": 1, **sections.pop("cluster", {})},
        run={"name": "bench", "storage_path": tempfile.mkdtemp(prefix="rs_bench")},
        **sections,
    )


class Rounds:
    """A run on Ray whose rounds are called for one by one."""

    def __init__(self, settings: rs.Config) -> None:
        prepared = prepare(settings)
        self._wiring, resources = cluster.connect(settings.cluster)
        self.prepared = prepared._replace(settings=resolve(prepared.settings, resources))
        self._wiring.start(*self.prepared)
        self._loop = RoundLoop(self.prepared.settings, prepared.stream, self._wiring, [])
        self._loop.start(None)
        self._round = 0
        self.rows: list[dict[str, Any]] = []

    def __call__(self) -> None:
        sums = self._loop.transaction(self._round, self._loop.train)
        self.rows.append(sums.row(self._round, 0.0))
        self._round += 1

    def spent(self) -> dict[str, float]:
        """Medians over the rounds of where the actors' time went, in milliseconds."""
        names = [name for name in self.rows[0] if name.endswith("_seconds") and name != "round_seconds"]
        return {name[:-8] + "_ms": round(median(row[name] for row in self.rows) * 1e3, 2) for name in names}

    def stop(self) -> None:
        """End its actors."""
        self._wiring.stop()


class Plain:
    """The same round in this process: for each phone load the global weights, local SGD; then the average."""

    def __init__(self, prepared: Prepared) -> None:
        settings = prepared.settings
        self._parts, self._stream = prepared.parts, prepared.stream
        self._phones = range(settings.phones.count)
        self._model = models.build(settings.model, settings.run.seed).train()
        self._start = copy.deepcopy(self._model.state_dict())
        self._optimizer = OPTIMIZERS[settings.optimizer.name](self._model.parameters(), settings.optimizer)
        self._data = {p: [self._batch(i) for i in self._stream.batches(0, p)] for p in self._phones}

    def _batch(self, indices: Any) -> tuple[torch.Tensor, torch.Tensor]:
        inputs, labels = self._parts.batch("train", indices)
        return torch.from_numpy(inputs), torch.from_numpy(labels)

    def loop(self, threads: int) -> Callable[[], None]:
        """One round over the phones."""

        def run() -> None:
            torch.set_num_threads(threads)
            total = {key: torch.zeros_like(value) for key, value in self._start.items()}
            for phone in self._phones:
                self._model.load_state_dict(self._start)
                for batch in self._data[phone]:
                    self._step(*batch)
                for key, value in self._model.state_dict().items():
                    total[key] += value / len(self._phones)

        return run

    def big_batch(self, threads: int) -> Callable[[], None]:
        """One step of one model on all phones' first batches."""
        batches = [self._data[phone][0] for phone in self._phones]
        inputs, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))

        def run() -> None:
            torch.set_num_threads(threads)
            self._step(inputs, labels)

        return run

    def one_pass(self, threads: int) -> Callable[[], None]:
        """One model over all phones' batches: unsplit training."""

        def run() -> None:
            torch.set_num_threads(threads)
            for phone in self._phones:
                for batch in self._data[phone]:
                    self._step(*batch)

        return run

    def _step(self, inputs: torch.Tensor, labels: torch.Tensor) -> None:
        self._optimizer.zero_grad()
        functional.cross_entropy(self._model(inputs), labels).backward()
        self._optimizer.step()


def faster(times: dict[str, list[float]], name: str) -> str:
    """The name of the faster of a case's variants with 1 and with 2 threads."""
    return min(
        (f"{name}_{threads}", median(times[f"{name}_{threads}"])) for threads in (1, 2) if f"{name}_{threads}" in times
    )[0]


def rounds_row(schedules: tuple[str, ...], repeats: int, against: str, **settings: Any) -> Row:
    """Rounds of each schedule, in turn with the plain loop and the floor, with 1 and 2 threads."""
    runs = {name: Rounds(settings_of(schedule=name, **settings)) for name in schedules}
    first = next(iter(runs.values()))
    plain = Plain(first.prepared)
    cases: dict[str, Callable[[], Any]] = dict(runs)
    for threads in (1, 2):
        cases[f"plain_{threads}"] = plain.loop(threads)
        cases[f"big_batch_{threads}"] = plain.big_batch(threads)
        if against == "one_pass":
            cases[f"one_pass_{threads}"] = plain.one_pass(threads)
    times = interleaved(cases, repeats, 1)
    torch.set_num_threads(1)
    phones = first.prepared.settings.phones
    row: Row = {
        "median_ms": {name: round(median(t) * 1e3, 2) for name, t in times.items()},
        "phone_rounds_per_second": {
            name: round(phones.count / median(times[name]), 1) for name in times if "big" not in name
        },
        "spent": {name: run.spent() for name, run in runs.items()},
        "cohort": phones.cohort,
        "stacked": phones.stacked,
        "repeats": repeats,
    }
    base, floor = faster(times, against), faster(times, "big_batch")
    for name, run in runs.items():
        row[f"speedup_of_{name}"] = ratio(times, base, name)
        row[f"{name}_over_floor"] = ratio(times, name, floor)
        run.stop()
    return row


PHONE_ROWS: dict[str, Callable[[int, int], Row]] = {
    "100 phones x 18, tiny_cnn": lambda repeats, _: rounds_row(
        ("splitfed_v1",), repeats, "plain", model="tiny_cnn", phones=100, samples=18
    ),
    "1000 phones x 2, tiny_cnn": lambda repeats, _: rounds_row(
        ("splitfed_v1",), repeats, "plain", model="tiny_cnn", phones=1000, samples=2
    ),
    "1000 phones x 16, digits_cnn": lambda repeats, _: rounds_row(
        ("splitfed_v1", "parallel"), repeats, "plain", model="digits_cnn", phones=1000, samples=16
    ),
}
