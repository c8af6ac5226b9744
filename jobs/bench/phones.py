"""Rounds of many phones against a plain PyTorch loop over the same phones, and against one big batch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import ray
import torch
from torch.nn import functional

import ray_split as rs
from actors.ray_backend import backend
from jobs.bench.scratch_folder import scratch_folder
from jobs.bench.timing import Row, interleaved, ratio
from ray_split.driver.round_runner import RoundRunner
from ray_split.messages.turn import Turn
from ray_split.models import registry
from ray_split.preparation.prepare import Prepared, prepare
from ray_split.schedules import SCHEDULES
from ray_split.segments.optimization.optimizers import new


def settings_of(model: str, phones: int, samples: int, schedule: str, **sections: Any) -> rs.Config:
    """`phones` phones with `samples` samples of 1x8x8 each, all of them in every round."""
    return rs.Config(
        model={"name": model, **sections.pop("net", {})},
        data={
            "name": "synthetic",
            "kwargs": {"samples": phones * samples},
            "val_fraction": 0,
            **sections.pop("data", {}),
        },
        phones={"count": phones, **sections.pop("trained", {})},
        schedule={"name": schedule},
        optimizer={"lr": 0.05},
        server={"num_gpus": 0, "num_cpus": 1},
        cluster={"client_actors": 1, "cpus_per_client": 1, **sections.pop("cluster", {})},
        run={"name": "bench", "storage_path": scratch_folder()},
        **sections,
    )


class Rounds:
    """A run on Ray whose rounds are called for one by one."""

    def __init__(self, settings: rs.Config) -> None:
        prepared = prepare(settings)
        self._backend = backend.connect(settings.cluster)
        self.prepared = prepared._replace(settings=self._backend.resolve(prepared.settings, prepared.work))
        self._backend.start(*self.prepared[:4])
        self._loop = RoundRunner(self.prepared.settings, prepared.stream, self._backend, [])
        self._loop.start()
        self._round = 0
        self.rows: list[dict[str, Any]] = []

    def __call__(self) -> None:
        sums = self._loop.transaction(self._round, self._loop.train)
        self.rows.append(sums.row(self._round, 0.0))
        self._round += 1

    def hold(self) -> None:
        """What is done for the sake of recovery alone: B to the server, and at the end all of A, B and C back."""
        turn, roles = Turn(self._round, 10**6, (), -1), self._backend.roles
        state, ends = roles.fed_server.server_state.remote(turn), roles.fed_server.client_state.remote(turn)
        self._backend.get([roles.server.load.remote(turn, state)])
        middle = roles.server.state.remote(turn)
        self._backend.get([roles.fed_server.commit.remote(self._round, ends, middle)])
        self._loop.forget()

    def spent(self) -> dict[str, float]:
        """Medians over the rounds of where the actors' time went, in milliseconds."""
        names = [name for name in self.rows[0] if name.endswith("_seconds") and name != "round_seconds"]
        return {name[:-8] + "_ms": round(median(row[name] for row in self.rows) * 1e3, 2) for name in names}

    def stop(self) -> None:
        """End its actors."""
        self._backend.stop()


class Plain:
    """The same round in this process: for each phone load the global weights, local SGD; then the average."""

    def __init__(self, prepared: Prepared) -> None:
        settings = prepared.settings
        self._parts, self._stream = prepared.parts, prepared.stream
        self._phones = range(settings.phones.count)
        self._model = registry.build(settings.model, settings.run.seed).train()
        self._start = copy.deepcopy(self._model.state_dict())
        self._optimizer = new(self._model.parameters(), settings.optimizer)
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
        functional.cross_entropy(self._model(inputs), labels).backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()


def faster(times: dict[str, list[float]], name: str) -> str:
    """The name of the faster of a case's variants with 1 and with 2 threads."""
    return min((f"{name}_{threads}" for threads in (1, 2)), key=lambda variant: median(times[variant]))


def rounds_row(runs: dict[str, Rounds], cases: dict[str, Callable[[], Any]], base: str, repeats: int) -> Row:
    """Rounds of each run, in turn with the plain cases, which have variants with 1 and 2 threads."""
    times = interleaved({**runs, **cases}, repeats, 1)
    torch.set_num_threads(1)
    phones = next(iter(runs.values())).prepared.settings.phones
    row: Row = {
        "median_ms": {name: round(median(t) * 1e3, 2) for name, t in times.items()},
        "phone_rounds_per_second": {n: round(phones.count / median(t), 1) for n, t in times.items() if n not in FLOORS},
        "spent": {name: run.spent() for name, run in runs.items()},
        "cohort": phones.cohort,
        "stacked": phones.stacked,
        "repeats": repeats,
    }
    for name, run in runs.items():
        row[f"speedup_of_{name}"] = ratio(times, faster(times, base), name)
        if "big_batch_1" in times:
            row[f"{name}_over_floor"] = ratio(times, name, faster(times, "big_batch"))
        run.stop()
    return row


FLOORS = ("big_batch_1", "big_batch_2")


def small_model(model: str, phones: int, samples: int, schedules: tuple[str, ...], repeats: int) -> Row:
    """Against a loop over the phones, and against one step on all samples; `direct`: clients lead the exchanges."""
    runs = {name: Rounds(settings_of(model, phones, samples, name)) for name in schedules}
    for name in schedules:
        if SCHEDULES[name].direct:
            direct = settings_of(model, phones, samples, name, cluster={"channel": "direct"})
            runs[f"{name}_direct"] = Rounds(direct)
    plain = Plain(next(iter(runs.values())).prepared)
    cases = {f"plain_{n}": plain.loop(n) for n in (1, 2)} | {f"big_batch_{n}": plain.big_batch(n) for n in (1, 2)}
    return rounds_row(runs, cases, "plain", repeats)


class Alone:
    """Unsplit training in a process of its own, with one thread, sending nothing."""

    def __init__(self, prepared: Prepared) -> None:
        self._train = Plain(prepared).one_pass(1)

    def train(self) -> None:
        """One pass over all phones."""
        self._train()


class Workload(NamedTuple):
    """A large model on random images 3x64x64."""

    model: str
    cuts: list[str]
    phones: int
    samples: int
    batch: int
    clients: int

    def settings(self, schedule: str, server_threads: int) -> rs.Config:
        """With clients of one thread each."""
        data = {"batch_size": self.batch, "kwargs": {"samples": self.phones * self.samples, "shape": [3, 64, 64]}}
        cluster, net = {"client_actors": self.clients}, {"cuts": [*self.cuts]}
        settings = settings_of(self.model, self.phones, self.samples, schedule, cluster=cluster, net=net, data=data)
        return settings.with_values(server={"num_cpus": server_threads})


RESNET18 = Workload("resnet18", ["layer2", "avgpool"], phones=5, samples=96, batch=32, clients=2)
RESNET50 = Workload("resnet50", ["maxpool", "avgpool"], phones=4, samples=32, batch=8, clients=1)


def large_model(workload: Workload, repeats: int) -> Row:
    """Clients and the server on 2 cores, against unsplit training.

    The server has a thread, or two (`shared`: on the same cores as the clients).
    `ceiling`: two unsplit trainings with a thread each that send nothing, against one with two threads.
    """
    runs = {
        f"{name}{suffix}": Rounds(workload.settings(name, threads))
        for name in ("splitfed_v1", "splitfed_v2")
        for threads, suffix in ((1, ""), (2, "_shared"))
    }
    prepared = next(iter(runs.values())).prepared
    plain = Plain(prepared)
    alone = [ray.remote(Alone).options(num_cpus=0).remote(prepared) for _ in range(2)]
    cases: dict[str, Callable[[], Any]] = {f"unsplit_{n}": plain.one_pass(n) for n in (1, 2)}
    cases["two_alone"] = lambda: ray.get([actor.train.remote() for actor in alone])
    row = rounds_row(runs, cases, "unsplit", repeats)
    for actor in alone:
        ray.kill(actor)
    times = row["median_ms"]
    return row | {"cuts": workload.cuts, "ceiling": round(2 * times["unsplit_2"] / times["two_alone"], 2)}


def linear(schedule: str, repeats: int) -> Row:
    """A round's time over the phones in it: a straight line?"""
    counts = (10, 30, 100, 300, 1000, 3000, 5000)
    seconds = []
    for count in counts:
        run = Rounds(settings_of("tiny_cnn", count, 4, schedule))
        seconds.append(median(interleaved({"round": run}, repeats, 1)["round"]))
        run.stop()
    slope, start = np.polyfit(counts, seconds, 1)
    residual = np.array(seconds) - np.polyval([slope, start], counts)
    return {
        "phones": counts,
        "median_ms": [round(s * 1e3, 1) for s in seconds],
        "slope_ms_per_phone": round(slope * 1e3, 4),
        "start_ms": round(start * 1e3, 1),
        "r_squared": round(1 - float(residual @ residual) / float(np.var(seconds) * len(seconds)), 4),
        "repeats": repeats,
    }


PHONE_ROWS: dict[str, Callable[[int, int], Row]] = {
    "100 phones x 18, tiny_cnn": lambda n, _: small_model("tiny_cnn", 100, 18, ("splitfed_v1",), n),
    "1000 phones x 2, tiny_cnn": lambda n, _: small_model("tiny_cnn", 1000, 2, ("splitfed_v1",), n),
    "1000 phones x 16, digits_cnn": lambda n, _: small_model(
        "digits_cnn", 1000, 16, ("splitfed_v1", "parallel"), min(n, 9)
    ),
    "5 phones x 96, resnet18": lambda n, _: large_model(RESNET18, min(n, 7)),
    "4 phones x 32, resnet50": lambda n, _: large_model(RESNET50, min(n, 7)),
    "splitfed_v1 over phones": lambda n, _: linear("splitfed_v1", min(n, 9)),
    "parallel over phones": lambda n, _: linear("parallel", min(n, 9)),
}
