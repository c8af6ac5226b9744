"""Devices on this machine, in a thread of this process: phones of a run that come by way of the gateway."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np

import ray_split as rs
from ray_split.devices import client
from ray_split.devices.frames import Frame
from ray_split.devices.phone import DevicePhone, Samples
from ray_split.devices.tokens import tokens_of
from ray_split.preparation.prepare import prepare

TOKENS = "devices.json"


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def remotely(settings: rs.Config, folder: Path, name: str, **phones: Any) -> rs.Config:
    """The settings with remote phones, at a port that is free."""
    gateway = {"port": free_port(), "tokens": str(folder / TOKENS)}
    return settings.with_values(gateway=gateway, phones=phones, run={"name": name})


def samples_of(settings: rs.Config) -> dict[int, Samples]:
    """What each phone would have if it were simulated: here a device brings it along."""
    prepared = prepare(settings)
    partition, train = prepared.stream.partition, prepared.parts
    shares = np.split(partition.indices, partition.offsets[1:-1])
    return {
        phone: Samples(np.asarray(train.inputs("train", own)), train.labels("train", own))
        for phone, own in enumerate(shares)
    }


class FailingPhone(DevicePhone):
    """A device's phone that does something at its question of a number, counted over all its connections."""

    asked: int = 0
    """Questions so far, of all of this process's."""
    fails_at: int | None = None

    def answer(self, question: Frame) -> Frame:
        """The answer; or the process dies, as far as the gateway can tell."""
        number, FailingPhone.asked = FailingPhone.asked, FailingPhone.asked + 1
        if number == FailingPhone.fails_at:
            raise ConnectionResetError("killed")
        return super().answer(question)


@contextmanager
def devices(settings: rs.Config, samples: Mapping[int, Samples], share_labels: bool = False) -> Iterator[list[Any]]:
    """The remote phones' devices, until the run is over: what each was told in the end, or what it raised."""
    assert settings.gateway.tokens is not None
    phones = settings.phones.remote_phones
    tokens = tokens_of(settings.gateway.tokens, len(phones))
    ended: list[Any] = []
    url = f"http://127.0.0.1:{settings.gateway.port}/"
    loop = asyncio.new_event_loop()

    async def all_of_them() -> None:
        jobs = [
            client.take_part(url, token, samples[phone], share_labels=share_labels)
            for token, phone in zip(tokens, phones, strict=True)
        ]
        ended.extend(await asyncio.gather(*jobs, return_exceptions=True))

    task = loop.create_task(all_of_them())
    thread = Thread(target=lambda: loop.run_until_complete(asyncio.wait([task])))
    thread.start()
    try:
        yield ended
        thread.join(60)
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(60)
        loop.close()
