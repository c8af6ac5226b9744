"""Devices that take nothing in: nobody waits for them for longer than they have time."""

from __future__ import annotations

import asyncio

import aiohttp
import numpy as np
import pytest

from actors.gateway import line
from actors.gateway.connections import Connections
from ray_split.devices.frames import decode, encode, frame
from ray_split.errors import PhoneGoneError
from tests.actors.gateway.test_connections import hello, with_gateway

TOO_MUCH = np.zeros(1 << 23, np.float32)  # for all that lies between the gateway and a device


async def joined(session: aiohttp.ClientSession, url: str, phone: int = 3) -> aiohttp.ClientWebSocketResponse:
    socket = await session.ws_connect(f"{url}/device")
    await socket.send_bytes(hello(token=f"token of phone {phone}"))
    assert [decode((await socket.receive()).data).kind for _ in range(2)] == ["welcome", "status"]
    return socket


async def stalled(session: aiohttp.ClientSession, url: str) -> aiohttp.ClientWebSocketResponse:
    """A device that is as if out of reach: its connection is there, and nothing is read from it."""
    socket = await joined(session, url)
    assert socket._response.connection is not None and socket._response.connection.transport is not None
    socket._response.connection.transport.pause_reading()
    return socket


def test_a_device_that_takes_in_no_question_is_gone_when_its_time_is_over() -> None:
    async def test(connections: Connections, session: aiohttp.ClientSession, url: str) -> None:
        silent = await stalled(session, url)
        with pytest.raises(PhoneGoneError, match="phone 3: its device took in nothing for 1 seconds"):
            await connections.ask(3, frame("load", {"a": TOO_MUCH}))
        while connections.phones:
            await asyncio.sleep(0)
        assert not silent.closed  # it knows of nothing

    with_gateway(test, timeout=1.0)


def test_the_others_are_told_while_one_takes_nothing_in_and_the_end_does_not_wait_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(line, "CLOSE_SECONDS", 0.2)

    async def test(connections: Connections, session: aiohttp.ClientSession, url: str) -> None:
        silent, other = await stalled(session, url), await joined(session, url, phone=4)
        asked = asyncio.ensure_future(connections.ask(3, frame("load", {"a": TOO_MUCH})))
        await asyncio.sleep(0)
        telling = asyncio.ensure_future(connections.tell(frame("status", text="training")))
        assert decode((await other.receive()).data).header["text"] == "training"
        parting = asyncio.ensure_future(connections.part("over"))
        assert decode((await other.receive()).data).kind == "bye"
        await other.close()
        await asyncio.wait([asked, telling, parting])
        assert not silent.closed  # it knows of nothing
        assert isinstance(asked.exception(), PhoneGoneError)

    with_gateway(test, timeout=1e6)


def test_the_last_of_three_connections_is_the_phones_though_the_first_never_says_goodbye(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A page that is loaded twice more, on a telephone that lost its network in between."""
    monkeypatch.setattr(line, "CLOSE_SECONDS", 0.2)

    async def test(connections: Connections, session: aiohttp.ClientSession, url: str) -> None:
        first = await stalled(session, url)
        second = await session.ws_connect(f"{url}/device")
        await second.send_bytes(hello())
        third = await joined(session, url)
        await second.close()
        while connections._goodbyes:
            await asyncio.sleep(0.01)
        assert not first.closed  # it knows of nothing
        asked = asyncio.ensure_future(connections.ask(3, frame("forward")))
        question = decode((await third.receive()).data)
        await third.send_bytes(encode(frame("forward", id=question.header["id"])))
        assert (await asked).kind == "forward" and connections.phones == {3}

    with_gateway(test)


def test_who_is_gone_before_it_is_greeted_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    async def gone(self: line.Line, data: bytes) -> None:
        raise ConnectionResetError("its connection ended")

    monkeypatch.setattr(line.Line, "send", gone)

    async def test(connections: Connections, session: aiohttp.ClientSession, url: str) -> None:
        socket = await session.ws_connect(f"{url}/device")
        await socket.send_bytes(hello())
        assert (await socket.receive()).type is not aiohttp.WSMsgType.BINARY
        assert connections.phones == set()

    with_gateway(test)


def test_nothing_is_compressed_on_the_way_though_a_device_offers_it() -> None:
    async def test(connections: Connections, session: aiohttp.ClientSession, url: str) -> None:
        socket = await session.ws_connect(f"{url}/device", compress=15)
        assert socket.compress == 0
        await socket.close()

    with_gateway(test)
