"""One device's WebSocket, on which nothing waits for longer than some seconds.

A device that vanishes without a word leaves its connection as it is. What is sent to it piles up here, until nothing
more is taken in; TCP alone would notice a quarter of an hour later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import aiohttp
from aiohttp import WSCloseCode, WSMessage, web

from ray_split import logs

PING_SECONDS = 20.0
CLOSE_SECONDS = 3.0  # that a device has for its part of a goodbye

logger = logs.get(__name__)


class Line:
    """A device's connection, from its request to its end."""

    def __init__(self, socket: web.WebSocketResponse, transport: asyncio.Transport | None, seconds: float) -> None:
        """`seconds`: that a device has to take in what it is sent."""
        self.socket, self._transport, self._seconds = socket, transport, seconds

    @classmethod
    async def opened(cls, request: web.Request, largest: int, seconds: float) -> Line:
        """The line that a request asks for. `largest`: bytes of a message from the device.

        A ping waits behind a long message, and its answer has half of the time between two: a device on a slow line is
        not gone while it still takes in what it may take `seconds` for. Nothing is compressed: what is counted crosses.
        """
        socket = web.WebSocketResponse(
            max_msg_size=largest, heartbeat=max(PING_SECONDS, 2 * seconds), autoping=True, compress=False
        )
        await socket.prepare(request)
        return cls(socket, request.transport, seconds)

    async def receive(self, seconds: float) -> WSMessage:
        """The next message. Raises asyncio.TimeoutError if there is none for so long."""
        return await self.socket.receive(seconds)

    async def send(self, data: bytes) -> None:
        """Send a message. Raises ConnectionError if the connection ended, or ends it here as nothing is taken in."""
        sending = _begun(self.socket.send_bytes(data))
        await asyncio.wait([sending], timeout=self._seconds)
        if not sending.done():
            self.abort()
            raise ConnectionAbortedError(f"its device took in nothing for {self._seconds:g} seconds (gateway.timeout)")
        try:
            sending.result()
        except (ConnectionError, RuntimeError, aiohttp.ClientError) as error:
            raise ConnectionResetError("its connection ended") from error

    async def close(self, code: WSCloseCode, last: bytes | None = None) -> None:
        """Say goodbye, with a last message if there is one. Who doesn't answer it in some seconds is cut off."""
        closing = _begun(self._close(code, last))
        await asyncio.wait([closing], timeout=CLOSE_SECONDS)
        if not closing.done():
            self.abort()

    async def _close(self, code: WSCloseCode, last: bytes | None) -> None:
        if self.socket.closed:
            return
        if last is not None:
            try:
                await self.send(last)
            except ConnectionError:
                logger.debug("a device was gone before it was told goodbye")
        await self.socket.close(code=code)

    def abort(self) -> None:
        """End the connection at once: what was not taken in yet is dropped, and who waits for that goes on."""
        if self._transport is not None:
            self._transport.abort()


def _begun(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """It goes on when nobody waits for it any more: it ends with the connection, which may be an error by then.

    (To cancel it would cancel others', too: all who send on a connection wait for the same future of aiohttp's.)
    """
    task = asyncio.ensure_future(work)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return task
