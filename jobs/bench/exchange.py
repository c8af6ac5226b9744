"""One exchange against Ray's floor and against the same arithmetic in one process."""

from __future__ import annotations

import copy
from collections.abc import Callable
from statistics import median
from typing import Any

import ray
import torch
from torch.nn import functional

import ray_split as rs
from actors.client import Client
from actors.process_memory import settle
from actors.ray_backend.leading_client import LeadingClient
from actors.server import Server
from jobs.bench.timing import Row, interleaved, ratio
from ray_split.messages.message import Message, num_bytes
from ray_split.messages.turn import Turn
from ray_split.models import registry
from ray_split.preparation.prepare import Prepared, prepare
from ray_split.schedules.direct import Led
from ray_split.schedules.exchange import exchange
from ray_split.segments.optimization.optimizers import new

FIRST = Turn(0, 0, (0,), 0)


class Empty:
    """An actor that does nothing: it takes something, and returns what it was made with."""

    def __init__(self, replies: dict[str, Any]) -> None:
        self._replies = replies

    def call(self, name: str, argument: Any = None) -> Any:
        """The reply of that name."""
        return self._replies[name]


class Exchanges:
    """One client and one server on Ray, and the turns of their exchanges."""

    def __init__(self, prepared: Prepared, role: type[Client] = Client) -> None:
        self.client = ray.remote(role).options(num_cpus=1).remote(*prepared[:4])
        self.server = ray.remote(Server).options(num_cpus=1).remote(prepared.settings, prepared.contract)
        self._last = int(prepared.stream.steps([0])[0])
        self._step = 0
        turn = FIRST
        loads = [actor.load.remote(turn, actor.initial_state.remote()) for actor in (self.client, self.server)]
        ray.get(loads)
        ray.get([actor.__ray_call__.remote(settle) for actor in (self.client, self.server)])

    def submit(self) -> Any:
        """Submit an exchange: the ref of its report."""
        self._step = (self._step + 1) % self._last
        return next(iter(exchange(self.client, self.server, FIRST._replace(step=self._step), single=False)))

    def _turns(self, count: int) -> list[Turn]:
        self._step = (self._step + count) % (self._last - count)
        return [FIRST._replace(step=self._step + i) for i in range(count)]

    def meet(self) -> None:
        """The client leads from now on."""
        ray.get([self.client.meet.remote(self.server, False), self.client.begin.remote()])

    def led(self, count: int) -> list[Any]:
        """Submit so many exchanges that the client leads: the refs of their reports."""
        return list(Led(self.server).exchanges(self.client, self._turns(count)))

    def messages(self) -> dict[str, Any]:
        """What crosses in one exchange."""
        turn = FIRST
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
    own = {name: copy.deepcopy(message) for name, message in messages.items()}
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
    model = registry.build(prepared.settings.model, prepared.settings.run.seed).train()
    optimizer = new(model.parameters(), prepared.settings.optimizer)
    inputs, labels = prepared.parts.batch("train", prepared.stream.batches(0, 0)[0])
    x, y = torch.from_numpy(inputs), torch.from_numpy(labels)

    def step() -> None:
        optimizer.zero_grad()
        functional.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
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
    exchanges, led = Exchanges(prepared), Exchanges(prepared, LeadingClient)
    led.meet()
    messages = exchanges.messages()
    empty, plain = floor(messages), unsplit_step(prepared)
    cases: dict[str, Callable[[], Any]] = {
        "exchange": lambda: [ray.get(exchanges.submit()) for _ in range(calls)],
        "led": lambda: [ray.get(led.led(1)) for _ in range(calls)],
        "floor": lambda: [ray.get(empty()) for _ in range(calls)],
        "exchange_pipelined": lambda: ray.get([exchanges.submit() for _ in range(calls)]),
        "led_pipelined": lambda: ray.get(led.led(calls)),
        "floor_pipelined": lambda: ray.get([empty() for _ in range(calls)]),
        "one_process": lambda: [plain() for _ in range(calls)],
    }
    times = interleaved(cases, repeats, calls)
    sizes = {name: num_bytes(message.groups) for name, message in messages.items() if isinstance(message, Message)}
    return {
        "median_ms": {name: round(median(t) * 1e3, 3) for name, t in times.items()},
        "ratio_to_floor": ratio(times, "exchange", "floor"),
        "ratio_to_floor_pipelined": ratio(times, "exchange_pipelined", "floor_pipelined"),
        "led_ratio_to_floor": ratio(times, "led", "floor"),
        "led_ratio_to_floor_pipelined": ratio(times, "led_pipelined", "floor_pipelined"),
        "led_pipelined_ratio_to_exchange_pipelined": ratio(times, "led_pipelined", "exchange_pipelined"),
        "ratio_to_one_process": ratio(times, "exchange", "one_process"),
        "ratio_to_one_process_pipelined": ratio(times, "exchange_pipelined", "one_process"),
        "message_bytes": sizes,
        "batch_size": settings.data.batch_size,
        "repeats": repeats,
        "calls": calls,
    }
