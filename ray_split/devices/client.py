"""A device's connection to the gateway: says hello, answers what it is asked, comes back when the connection ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import aiohttp
import numpy as np

from ray_split.devices.frames import VERSION, Frame, FrameError, decode, encode, frame
from ray_split.devices.phone import DeviceError, DevicePhone, Samples

AGAIN_SECONDS = (0.5, 10.0)  # before it tries again: at first, and at most
LARGEST = 1 << 30  # bytes of a frame of the gateway's

Told = Callable[[Mapping[str, Any]], None]
"""Is given the headers of frames that say how the run stands."""

# Segments draw from torch's one generator, so a process computes for one of its phones at a time.
_computing = ThreadPoolExecutor(1, "device")


class RefusedError(RuntimeError):
    """The gateway doesn't let the device in: to try again is of no use."""


async def take_part(
    url: str,
    token: str,
    samples: Samples,
    name: str = "ray-split device",
    told: Told = lambda header: None,
    share_labels: bool = False,
) -> str:
    """Be a phone of the run at `url`, until it is over: returns the gateway's goodbye.

    An ended connection is made again. Raises RefusedError if the gateway refuses the device, DeviceError if it can't
    be the run's phone. `share_labels`: tell how many samples of each class there are.
    """
    hello = frame("hello", version=VERSION, token=token, device=name, samples=len(samples))
    if share_labels:
        hello.header["labels"] = histogram(samples)
    wait = AGAIN_SECONDS[0]
    async with aiohttp.ClientSession() as session:
        while True:
            try:
                goodbye = await _one_connection(session, socket_url(url), hello, samples, told)
            except (aiohttp.ClientError, ConnectionError, asyncio.TimeoutError) as error:
                told(frame("status", text=f"no connection to {url} ({error}): trying again", state="waiting").header)
                goodbye = None
            else:
                wait = AGAIN_SECONDS[0]
            if goodbye is not None:
                return goodbye
            await asyncio.sleep(wait)
            wait = min(2 * wait, AGAIN_SECONDS[1])


def socket_url(url: str) -> str:
    """The address of the WebSocket, of the page's or its own."""
    parts = urlsplit(url)
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    return urlunsplit((scheme, parts.netloc, "/device", "", ""))


def histogram(samples: Samples) -> dict[str, int]:
    """How many samples there are of each class."""
    classes, counts = np.unique(samples.labels, return_counts=True)
    return {str(each): int(count) for each, count in zip(classes, counts, strict=True)}


async def _one_connection(
    session: aiohttp.ClientSession, url: str, hello: Frame, samples: Samples, told: Told
) -> str | None:
    """One connection from hello to its end: the goodbye, if one was said."""
    async with session.ws_connect(url, max_msg_size=LARGEST, heartbeat=20.0) as socket:
        await socket.send_bytes(encode(hello))
        phone: DevicePhone | None = None
        async for message in socket:
            if message.type is not aiohttp.WSMsgType.BINARY:
                break
            one = _read(message.data)
            if one.kind == "refused":
                raise RefusedError(str(one.header.get("reason", "no reason given")))
            if one.kind == "bye":
                return str(one.header.get("reason", ""))
            if one.kind == "welcome":
                phone = DevicePhone(one.header, samples)
                told(one.header)
            elif one.kind == "status":
                told(one.header)
            elif phone is not None:
                answer = await asyncio.get_running_loop().run_in_executor(_computing, phone.answer, one)
                await socket.send_bytes(encode(answer))
    return None


def _read(data: bytes) -> Frame:
    try:
        return decode(data)
    except FrameError as error:
        raise DeviceError(f"the gateway sent what is no frame: {error}") from error
