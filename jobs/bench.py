"""Speed, each figure beside what it is to be compared with, measured interleaved in one run: `make bench`.

Every row measures its cases in turn, several times over, and reports the median of each and of their ratios: on a
shared machine an absolute time says little. Rows are merged into bench.json by name.
To add a row, write a function that returns a Row, and its line in ROWS.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import ray
import torch
from torch.nn import functional

import ray_split as rs
from actors.client import Client
from actors.cluster import settle
from actors.server import Server
from jobs.submit import head
from ray_split import models
from ray_split.draws import Turn
from ray_split.optimizers import OPTIMIZERS
from ray_split.prepare import Prepared, prepare
from ray_split.schedules.exchange import exchange

BENCH = Path("bench.json")
Row = dict[str, Any]


def interleaved(cases: dict[str, Callable[[], Any]], repeats: int, calls: int) -> dict[str, list[float]]:
    """Seconds for one of the `calls` things that each case does at a time, `repeats` times, the cases in turn."""
    for case in cases.values():
        case()
    times: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(repeats):
        for name, case in cases.items():
            start = time.perf_counter()
            case()
            times[name].append((time.perf_counter() - start) / calls)
    return times


def ratio(times: dict[str, list[float]], a: str, b: str) -> float:
    """The median of a / b, repeat by repeat."""
    return round(median(x / y for x, y in zip(times[a], times[b], strict=True)), 3)


class Empty:
    """An actor that does nothing: it takes something, and returns what it was made with."""

    def __init__(self, replies: dict[str, Any]) -> None:
        self._replies = replies

    def call(self, name: str, argument: Any = None) -> Any:
        """The reply of that name."""
        return self._replies[name]


class Exchanges:
    """One client and one server on Ray, and the turns of their exchanges."""

    def __init__(self, prepared: Prepared) -> None:
        self.client = ray.remote(Client).options(num_cpus=1).remote(*prepared)
        self.server = ray.remote(Server).options(num_cpus=1).remote(prepared.settings)
        self._last = prepared.stream.steps(0)
        self._step = 0
        turn = Turn(0, 0, 0, 0)
        loads = [actor.load.remote(turn, actor.initial_state.remote()) for actor in (self.client, self.server)]
        ray.get(loads)
        ray.get([actor.__ray_call__.remote(settle) for actor in (self.client, self.server)])

    def submit(self) -> Any:
        """Submit an exchange: the ref of its report."""
        self._step = (self._step + 1) % self._last
        return next(iter(exchange(self.client, self.server, Turn(0, 0, 0, self._step))))

    def messages(self) -> dict[str, Any]:
        """What crosses in one exchange."""
        turn = Turn(0, 0, 0, 0)
        activation = self.client.forward.remote(turn)
        hidden = self.server.forward.remote(turn, activation)
        hidden_gradient = self.client.loss.remote(turn, hidden)
        activation_gradient = self.server.backward.remote(turn, hidden_gradient)
        ray.get(self.client.backward.remote(turn, activation_gradient))
        names = ("activation", "hidden", "hidden_gradient", "activation_gradient")
        refs = (activation, hidden, hidden_gradient, activation_gradient)
        return {n: ray.get(r) for n, r in zip(names, refs, strict=True)} | {"report": None}


def floor(messages: dict[str, Any]) -> Callable[[], Any]:
    """As many empty chained calls between two actors as an exchange makes, with the same sizes."""
    own = {name: tuple(array.copy() for array in arrays) if arrays else None for name, arrays in messages.items()}
    client, server = (ray.remote(Empty).options(num_cpus=1).remote(own) for _ in range(2))

    def submit() -> Any:
        activation = client.call.remote("activation")
        hidden = server.call.remote("hidden", activation)
        hidden_gradient = client.call.remote("hidden_gradient", hidden)
        activation_gradient = server.call.remote("activation_gradient", hidden_gradient)
        return client.call.remote("report", activation_gradient)

    return submit


def unsplit_step(prepared: Prepared) -> Callable[[], None]:
    """The same arithmetic in this process: a step of the unsplit model, with one thread."""
    torch.set_num_threads(1)
    model = models.build(prepared.settings.model, prepared.settings.run.seed).train()
    optimizer = OPTIMIZERS[prepared.settings.optimizer.name](model.parameters(), prepared.settings.optimizer)
    inputs, labels = prepared.parts.batch("train", prepared.stream.batches(0, 0)[0])
    x, y = torch.from_numpy(inputs), torch.from_numpy(labels)

    def step() -> None:
        optimizer.zero_grad()
        functional.cross_entropy(model(x), y).backward()
        optimizer.step()

    return step


def exchange_row(model: str, repeats: int, calls: int) -> Row:
    """An exchange against Ray's floor and against the same arithmetic in one process."""
    settings = rs.Config(
        model={"name": model, "kwargs": {}},
        phones={"count": 1, "local_steps": 2000},
        server={"num_gpus": 0},
        run={"name": "bench"},
    )
    prepared = prepare(settings)
    exchanges = Exchanges(prepared)
    messages = exchanges.messages()
    empty, plain = floor(messages), unsplit_step(prepared)
    cases: dict[str, Callable[[], Any]] = {
        "exchange": lambda: [ray.get(exchanges.submit()) for _ in range(calls)],
        "floor": lambda: [ray.get(empty()) for _ in range(calls)],
        "exchange_pipelined": lambda: ray.get([exchanges.submit() for _ in range(calls)]),
        "floor_pipelined": lambda: ray.get([empty() for _ in range(calls)]),
        "one_process": lambda: [plain() for _ in range(calls)],
    }
    times = interleaved(cases, repeats, calls)
    sizes = {n: sum(array.nbytes for array in arrays) for n, arrays in messages.items() if arrays}
    return {
        "median_ms": {name: round(median(t) * 1e3, 3) for name, t in times.items()},
        "ratio_to_floor": ratio(times, "exchange", "floor"),
        "ratio_to_floor_pipelined": ratio(times, "exchange_pipelined", "floor_pipelined"),
        "ratio_to_one_process": ratio(times, "exchange", "one_process"),
        "ratio_to_one_process_pipelined": ratio(times, "exchange_pipelined", "one_process"),
        "message_bytes": sizes,
        "batch_size": settings.data.batch_size,
        "repeats": repeats,
        "calls": calls,
    }


ROWS: dict[str, Callable[[int, int], Row]] = {
    "exchange of mlp": lambda repeats, calls: exchange_row("mlp", repeats, calls),
    "exchange of digits_cnn": lambda repeats, calls: exchange_row("digits_cnn", repeats, calls),
}


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    versions = {"python": platform.python_version(), "ray": ray.__version__, "torch": torch.__version__}
    return {
        "cpus": os.cpu_count(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "versions": versions | {"numpy": np.__version__},
    }


@contextmanager
def a_ray() -> Iterator[None]:
    """The Ray at RAY_ADDRESS, or a head of our own."""
    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False)
        yield
        ray.shutdown()
        return
    with head(num_cpus=4) as (address, _):
        ray.init(address=address, log_to_driver=False)
        yield
        ray.shutdown()


def main(arguments: list[str]) -> int:
    """Measure the rows named, or all, and merge them into bench.json."""
    parser = argparse.ArgumentParser(prog="jobs.bench", description=__doc__)
    parser.add_argument("rows", nargs="*", help=f"of: {', '.join(ROWS)} (default: all)")
    parser.add_argument("--repeats", type=int, default=31)
    parser.add_argument("--calls", type=int, default=30)
    parser.add_argument("--out", type=Path, default=BENCH)
    options = parser.parse_args(arguments)
    if unknown := [row for row in options.rows if row not in ROWS]:
        print(f"error: rows: {unknown} are not known; they may be {', '.join(ROWS)}", file=sys.stderr)
        return 2
    found = json.loads(options.out.read_text()) if options.out.exists() else {"rows": {}}
    with a_ray():
        for name in options.rows or ROWS:
            found["rows"][name] = ROWS[name](options.repeats, options.calls) | {"machine": machine()}
            print(name, json.dumps(found["rows"][name], indent=1), flush=True)
            options.out.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
