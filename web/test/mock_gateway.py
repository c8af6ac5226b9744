"""A gateway for one browser, with B in torch: four rounds of 25 steps. Begins a round anew if the connection ends.

python web/test/mock_gateway.py FOLDER CASE prints its port. FOLDER gets all that the device sends, and result.json.
"""

from __future__ import annotations

import asyncio
import copy
import json
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from aiohttp import WSMsgType, web
from described import described
from exchanges import CASES, accuracy, batches, optimizer_of, start, trained
from safetensors.numpy import load, save
from torch import nn

Json = dict[str, Any]
Tensors = dict[str, np.ndarray]
PAGE = Path(__file__).parents[2] / "ray_split" / "devices" / "page"
TOKEN, HASH = "a-token-for-tests", "of the layers"
ROUNDS, STEPS = 4, 25


class GoneError(Exception):
    """The connection ended."""


def encode(header: Json, tensors: Tensors | None = None) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<I", len(text)) + text + (save(tensors) if tensors else b"")


def decode(data: bytes) -> tuple[Json, Tensors]:
    (length,) = struct.unpack_from("<I", data)
    payload = data[4 + length :]
    return json.loads(data[4 : 4 + length]), load(payload) if payload else {}


class Gateway:
    def __init__(self, folder: Path, case: Json) -> None:
        self.folder, self.case, self.parts = folder, case, start(case)
        self.raw, self.labels = case["data"]()
        self.inputs = self.raw.float() * case["scale"]
        self.held = len(self.labels) // 5
        self.train = len(self.labels) - self.held
        self.plan = batches(self.train, case["batch"])
        reference = nn.Sequential(*copy.deepcopy(self.parts).values())
        self.wanted = trained(reference, case, self.inputs, self.labels, self.plan)
        self.wanted_accuracy = accuracy(reference, self.inputs[self.train :], self.labels[self.train :])
        self.b = self.parts["b"]
        self.optimizer = optimizer_of(case["optimizer"], self.b.parameters())
        self.socket: web.WebSocketResponse | None = None
        self.connected = asyncio.Event()
        self.answers: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.frames = self.id = self.attempt = self.now = 0
        self.losses: list[float] = []
        self.done = asyncio.Event()
        self.left = False

    def welcome(self) -> Json:
        layers = {side: described(self.parts[side]) for side in ("a", "c")}
        shape = list(self.raw.shape[1:])
        return {
            **{"kind": "welcome", "version": 1, "phone": 7, "run": "a test"},
            **{"rounds": ROUNDS, "schedule": "splitfed_v3"},
            **{"samples": self.train, "held_out": self.held, "batch_size": self.case["batch"], "hash": HASH},
            "input": {"shape": shape, "scale": self.case["scale"], "shift": 0.0, "max": int(self.raw.max())},
            **{"classes": None, "num_classes": 10, "layers": layers, "examples": "examples"},
            "optimizers": {"a": self.case["optimizer"], "c": self.case["optimizer"]},
            "loss": {"name": "cross_entropy", "label_smoothing": 0.0},
        }

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(max_msg_size=1 << 28)
        await socket.prepare(request)
        hello, _ = decode(self.record((await socket.receive()).data))
        if hello["token"] != TOKEN:
            await socket.send_bytes(encode({"kind": "refused", "reason": "the token is unknown"}))
            return socket
        if hello["samples"] < self.train:  # a person's own: each step takes all of them
            self.train, self.held, self.plan = hello["samples"], 0, [list(range(hello["samples"]))] * ROUNDS * STEPS
        await socket.send_bytes(encode(self.welcome()))
        self.socket, self.answers = socket, asyncio.Queue()
        self.connected.set()
        async for message in socket:
            if message.type == WSMsgType.BINARY:
                self.answers.put_nowait(self.record(message.data))
        self.connected.clear()
        self.answers.put_nowait(None)
        return socket

    def record(self, data: bytes) -> bytes:
        """Its file's name says which step it was sent in."""
        (self.folder / f"{self.frames:05}-{self.now:03}.frame").write_bytes(data)
        self.frames += 1
        return data

    async def ask(self, kind: str, tensors: Tensors | None = None, **fields: Any) -> tuple[Json, Tensors]:
        await self.connected.wait()
        assert self.socket is not None
        self.id += 1
        header = {"kind": kind, "id": self.id, "attempt": self.attempt, **fields}
        try:
            await self.socket.send_bytes(encode(header, tensors))
        except ConnectionError as error:
            raise GoneError from error
        answer = await self.answers.get()
        if answer is None:
            raise GoneError
        said, payload = decode(answer)
        if said["kind"] == "bye":
            self.left = True
            raise GoneError
        if said.get("reason") == "nothing is loaded":  # by a page that was loaded again since the round began
            raise GoneError
        assert (said["kind"], said["id"]) == (kind, self.id), said
        return said, payload

    async def status(self, state: str, text: str, round: int) -> None:
        await self.connected.wait()
        assert self.socket is not None
        header = {"kind": "status", "state": state, "text": text, "round": round, "rounds": ROUNDS}
        await self.socket.send_bytes(encode(header))

    async def step(self, round: int, step: int) -> float:
        self.now = step
        common = {"round": round, "step": step, "seed": 2**63 + step, "lr": self.case["lr"]}
        _, found = await self.ask("forward", samples=self.plan[step], **common)
        x = torch.from_numpy(found["activation"]).requires_grad_()
        y = self.b.train()(x)
        said, found = await self.ask("loss", {"hidden": y.detach().numpy()}, **common)
        self.optimizer.zero_grad()
        y.backward(torch.from_numpy(found["gradient"]))
        self.optimizer.param_groups[0]["lr"] = self.case["lr"]
        self.optimizer.step()
        assert x.grad is not None
        await self.ask("backward", {"gradient": x.grad.numpy()}, **common)
        return float(said["loss"])

    async def round(self, round: int, state: Tensors) -> Tensors:
        await self.status("training", f"round {round + 1} has begun", round)
        await self.ask("load", state, round=round, fresh=round == 0, hash=HASH)
        losses = [await self.step(round, STEPS * round + place) for place in range(STEPS)]
        _, state = await self.ask("close", round=round, optimizer=True)
        self.losses += losses
        await self.status("waiting", "averaging with the other phones", round + 1)
        return state

    async def again(self, attempt: Callable[[], Any]) -> Any:
        """From the same state, until the connection holds throughout."""
        before = copy.deepcopy((self.b.state_dict(), self.optimizer.state_dict()))
        while True:
            try:
                return await attempt()
            except GoneError:
                self.attempt += 1
                self.b.load_state_dict(before[0])
                self.optimizer.load_state_dict(copy.deepcopy(before[1]))

    async def evaluated(self, state: Tensors) -> float | None:
        if self.held == 0:
            return None
        await self.ask("load", state, round=ROUNDS, fresh=False, hash=HASH)
        samples = list(range(self.held))
        _, found = await self.ask("evaluate", round=ROUNDS, samples=samples)
        with torch.no_grad():
            hidden = self.b.eval()(torch.from_numpy(found["activation"])).numpy()
        said, _ = await self.ask("evaluate_loss", {"hidden": hidden}, round=ROUNDS, samples=samples)
        return said["correct"] / self.held

    async def run(self) -> None:
        state = {
            f"{side}/weights/{name}": tensor.numpy()
            for side in ("a", "c")
            for name, tensor in self.parts[side].state_dict().items()
        }
        await self.connected.wait()
        await self.status("waiting", "two other phones are awaited", 0)
        await asyncio.sleep(1)
        for number in range(ROUNDS):
            state = await self.again(lambda number=number, state=state: self.round(number, state))
        found = {"losses": self.losses, "wanted": self.wanted, "accuracy": await self.evaluated(state)}
        found |= {"wanted_accuracy": self.wanted_accuracy, "attempts": self.attempt}
        (self.folder / "result.json").write_text(json.dumps(found))
        await self.status("over", "all rounds are done", ROUNDS)
        assert self.socket is not None
        await self.socket.send_bytes(encode({"kind": "bye", "reason": "All rounds are done. Thank you."}))

    async def examples(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise web.HTTPUnauthorized
        return web.Response(body=save({"inputs": self.raw.numpy(), "labels": self.labels.numpy()}))


async def main(folder: Path, case: Json) -> None:
    gateway = Gateway(folder, case)
    application = web.Application()
    application.router.add_get("/device", gateway.serve)
    application.router.add_get("/examples.safetensors", gateway.examples)

    async def index(_: web.Request) -> web.FileResponse:
        return web.FileResponse(PAGE / "index.html")

    application.router.add_get("/", index)
    application.router.add_static("/", PAGE)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server is not None
    print(site._server.sockets[0].getsockname()[1], flush=True)
    await gateway.run()
    await asyncio.sleep(600)  # until it is ended; the page may still be looked at


if __name__ == "__main__":
    torch.set_num_threads(1)
    asyncio.run(main(Path(sys.argv[1]), CASES[sys.argv[2]]))
