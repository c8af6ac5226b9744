"""A device's step by our frames over a WebSocket, and as in the paper: by JSON text over HTTP, a request for each call
of the server. Device and server are in one process, each in a thread; both ways compute the same.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from statistics import median
from threading import Thread
from typing import Any

import aiohttp
import numpy as np
import torch
from aiohttp import web

from actors.gateway import connections as server_side
from actors.gateway.connections import Connections
from actors.gateway.page import application
from jobs.bench.devices.step import Clock, Step
from jobs.bench.timing import Row, interleaved, ratio
from ray_split.arrays import Array
from ray_split.devices import client as device_side

TOKEN = "bench"
LARGEST = 1 << 28
SECONDS = 600.0
SIDES = ("server", "device")


class Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, what: Coroutine[Any, Any, Any]) -> Any:
        """What it returns."""
        return asyncio.run_coroutine_threadsafe(what, self._loop).result()

    def begin(self, what: Coroutine[Any, Any, Any]) -> None:
        """Let it go on."""
        asyncio.run_coroutine_threadsafe(what, self._loop)

    def stop(self) -> None:
        """End the loop, and the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()


async def _listening(app: web.Application) -> tuple[web.AppRunner, int]:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner, int(runner.addresses[0][1])


class Frames:
    """Our way: the gateway's connections, and a device in Python."""

    def __init__(self, step: Step, server: Loop, device: Loop) -> None:
        self._step, self._server, self._clock = step, server, Clock()
        self._connections = Connections({TOKEN: 0}, lambda phone: step.welcome, LARGEST, SECONDS)
        self._runner, port = server.run(_listening(application(self._connections, None, "")))
        device.begin(device_side.take_part(f"http://127.0.0.1:{port}/", TOKEN, step.samples))
        server.run(self._connections.wait_for([0], SECONDS))
        server.run(self._connections.ask(0, step.load()))

    def __call__(self) -> None:
        """One step."""
        self._server.run(self._exchange())

    async def _exchange(self) -> None:
        step, ask, compute = self._step, self._connections.ask, self._clock.timed
        activation = (await ask(0, step.forward())).tensors["activation"]
        hidden = compute("b", step.hidden)(activation)
        gradient = (await ask(0, step.loss(hidden))).tensors["gradient"]
        await ask(0, step.backward(compute("b", step.activation_gradient)(gradient)))

    def spent(self) -> dict[str, float]:
        """Seconds since this was asked last, and what they were spent on, at the server and the device."""
        found, self._clock.spent = self._clock.spent, {}
        return found

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count what is spent on frames."""
        both = {"server": server_side, "device": device_side}
        before = {(side, name): getattr(module, name) for side, module in both.items() for name in ("encode", "decode")}
        for (side, name), function in before.items():
            setattr(both[side], name, self._clock.timed(side, function))
        try:
            yield
        finally:
            for (side, name), function in before.items():
                setattr(both[side], name, function)

    def crossed(self) -> int:
        """Bytes so far, both ways."""
        traffic = self._connections.traffic()
        return traffic["bytes_up"] + traffic["bytes_down"] + traffic["bytes_headers"]

    def stop(self) -> None:
        """Say goodbye, and listen no more."""
        self._server.run(self._connections.part("over"))
        self._server.run(self._runner.cleanup())


class Text:
    """The paper's way: numbers as text; an answer brings what the server computed of what the request brought."""

    def __init__(self, step: Step, server: Loop, device: Loop) -> None:
        self._step, self._server, self._device, self._clock = step, server, device, Clock()
        self._crossed = 0
        app = web.Application(client_max_size=LARGEST)
        app.router.add_post("/forward", self._serving(step.hidden))
        app.router.add_post("/backward", self._serving(step.activation_gradient))
        self._runner, port = server.run(_listening(app))
        self._url = f"http://127.0.0.1:{port}"
        self._phone = step.phone()
        self._phone.answer(step.load())
        self._session = device.run(_session())

    def _serving(self, compute: Callable[[Array], Array]) -> Callable[[web.Request], Coroutine[Any, Any, web.Response]]:
        async def serve(request: web.Request) -> web.Response:
            body = await request.read()
            found = self._clock.timed("b", compute)(self._read("server", body))
            return web.Response(body=self._written("server", found), content_type="application/json")

        return serve

    def _read(self, side: str, body: bytes) -> Array:
        self._crossed += len(body)
        return self._clock.timed(side, lambda: np.array(json.loads(body), np.float32))()

    def _written(self, side: str, array: Array) -> bytes:
        return self._clock.timed(side, lambda: json.dumps(array.tolist(), separators=(",", ":")).encode())()

    def __call__(self) -> None:
        """One step."""
        self._device.run(self._exchange())

    async def _exchange(self) -> None:
        step, phone = self._step, self._phone
        hidden = await self._asked("forward", phone.answer(step.forward()).tensors["activation"])
        gradient = await self._asked("backward", phone.answer(step.loss(hidden)).tensors["gradient"])
        phone.answer(step.backward(gradient))

    async def _asked(self, what: str, array: Array) -> Array:
        async with self._session.post(f"{self._url}/{what}", data=self._written("device", array)) as answer:
            return self._read("device", await answer.read())

    def spent(self) -> dict[str, float]:
        """As Frames.spent."""
        found, self._clock.spent = self._clock.spent, {}
        return found

    @contextmanager
    def counting(self) -> Iterator[None]:
        """It always does."""
        yield

    def crossed(self) -> int:
        """Bytes of bodies so far, both ways."""
        return self._crossed

    def stop(self) -> None:
        """Listen no more."""
        self._device.run(self._session.close())
        self._server.run(self._runner.cleanup())


async def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession()


class Measured:
    """A way whose steps are counted: seconds spent on what, and bytes."""

    def __init__(self, way: Frames | Text) -> None:
        self._way = way
        self.spent: list[dict[str, float]] = []
        self.bytes: list[int] = []

    def __call__(self) -> None:
        """One step."""
        before = self._way.crossed()
        with self._way.counting():
            self._way()
        self.spent.append(self._way.spent())
        self.bytes.append(self._way.crossed() - before)


def wire_row(repeats: int, calls: int) -> Row:
    """A step of ResNet50 with one image, by frames and by text."""
    torch.set_num_threads(1)
    server, device = Loop(), Loop()
    step = Step()
    ways: dict[str, Frames | Text] = {"frames": Frames(step, server, device), "json": Text(step, server, device)}
    try:
        measured = {name: Measured(way) for name, way in ways.items()}
        times = interleaved(dict(measured), min(repeats, 15), 1)
    finally:
        for way in ways.values():
            way.stop()
        server.stop()
        device.stop()
    # The first step of each, in which memory is made, isn't timed.
    spent = {name: each.spent[1:] for name, each in measured.items()}
    return {
        "median_ms": {name: round(median(each) * 1e3, 1) for name, each in times.items()},
        "json_over_frames": ratio(times, "json", "frames"),
        "bytes_a_step": {name: int(median(each.bytes)) for name, each in measured.items()},
        "text_or_frames_ms": {name: {side: _ms(each, side) for side in SIDES} for name, each in spent.items()},
        "share_of_server": {name: _share_of_server(each) for name, each in spent.items()},
        "share_of_step": {name: _share_of_step(each, times[name]) for name, each in spent.items()},
    }


def _ms(steps: list[dict[str, float]], what: str) -> float:
    return round(median(each[what] for each in steps) * 1e3, 2)


def _share_of_server(steps: list[dict[str, float]]) -> float:
    """Of what the server does: writing and reading, and computing B."""
    return round(median(each["server"] / (each["server"] + each["b"]) for each in steps), 4)


def _share_of_step(steps: list[dict[str, float]], seconds: list[float]) -> float:
    both = zip(steps, seconds, strict=True)
    return round(median((each["server"] + each["device"]) / whole for each, whole in both), 4)


DEVICE_ROWS = {"a device's step of resnet50": wire_row}
