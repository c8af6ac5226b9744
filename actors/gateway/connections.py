"""The devices' WebSockets: who is connected, and questions to them, each with its answer or what became of it."""

from __future__ import annotations

import asyncio
import hmac
import itertools
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSCloseCode, WSMsgType, web

from actors.gateway.line import Line
from ray_split import logs
from ray_split.devices.frames import VERSION, Frame, FrameError, decode, encode, frame, payload_bytes
from ray_split.errors import BadPhoneError, PhoneGoneError

HELLO_SECONDS = 10.0  # that a connection has to say who it is
LONGEST_NAME = 80
MOST_LABELS, LONGEST_LABEL = 1000, 40  # of a histogram that a device shares

logger = logs.get(__name__)


@dataclass
class Account:
    """What crossed between the gateway and one device."""

    frames: int = 0
    up: int = 0  # bytes of tensors, from the device
    down: int = 0
    headers: int = 0  # bytes that are not of tensors, both ways
    seconds: float = 0.0  # that questions were under way
    answers: int = 0
    lost: int = 0  # connections that ended without a goodbye

    def add(self, one: Frame, size: int, up: bool) -> None:
        """Count a frame of so many bytes in all."""
        tensors = payload_bytes(one)
        self.frames, self.headers = self.frames + 1, self.headers + size - tensors
        self.up, self.down = self.up + tensors * up, self.down + tensors * (not up)


@dataclass
class Connection:
    """One device's."""

    phone: int
    line: Line
    name: str
    labels: dict[str, int] | None = None  # how many samples of each class, if the device's owner agrees
    since: float = field(default_factory=time.time)
    pending: dict[int, asyncio.Future[Frame]] = field(default_factory=dict)
    asked: int = -1  # the last question's number
    left: bool = False  # with a goodbye, of either side


class Connections:
    """All devices'. `tokens`: whose phone each one is of. `welcome`: what a phone is told."""

    def __init__(
        self, tokens: Mapping[str, int], welcome: Callable[[int], dict[str, Any]], largest: int, timeout: float
    ) -> None:
        """`largest`: bytes of a device's largest frame. `timeout`: seconds for an answer."""
        self._tokens, self._welcome, self.largest, self._timeout = dict(tokens), welcome, largest, timeout
        self._connected: dict[int, Connection] = {}
        self._known: dict[int, Connection] = {}  # of each phone the last one
        self._blamed: dict[int, str] = {}  # phones whose device broke the protocol while nothing was asked
        self._numbers = itertools.count()
        self._changed = asyncio.Condition()
        self._goodbyes = set[asyncio.Task[None]]()  # under way
        self._status = frame("status", text="connected; the run has not begun", state="waiting", round=0, rounds=0)
        self.accounts: dict[int, Account] = {}

    @property
    def phones(self) -> set[int]:
        """The phones whose devices are connected."""
        return set(self._connected)

    def devices(self) -> list[dict[str, Any]]:
        """For people: the devices that ever were connected, and whether they are `there`."""
        return [
            {
                **{"phone": phone, "device": each.name, "there": self._connected.get(phone) is each},
                **{"connected": each.since, "labels": each.labels, **vars(self._account(phone))},
            }
            for phone, each in sorted(self._known.items())
        ]

    def traffic(self) -> dict[str, int]:
        """What crossed so far: frames, bytes of tensors from and to devices, and all other bytes of the frames."""
        accounts = self.accounts.values()
        return {
            "frames": sum(each.frames for each in accounts),
            "bytes_up": sum(each.up for each in accounts),
            "bytes_down": sum(each.down for each in accounts),
            "bytes_headers": sum(each.headers for each in accounts),
        }

    def phone_of(self, token: Any) -> int | None:
        """Whose token it is. In the same time, whichever it is."""
        found = None
        for known, phone in self._tokens.items():
            if isinstance(token, str) and hmac.compare_digest(known.encode(), token.encode()):
                found = phone
        return found

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        """A connection from its first frame to its last."""
        line = await Line.opened(request, self.largest, self._timeout)
        connection = await self._greeted(line)
        if connection is None:
            return line.socket
        try:
            await self._listen(connection)
        finally:
            self._gone(connection)
        return line.socket

    async def _greeted(self, line: Line) -> Connection | None:
        """Take in who says hello as the protocol has it; refuse who doesn't, with a reason."""
        try:
            message = await line.receive(HELLO_SECONDS)
            hello = decode(message.data) if message.type is WSMsgType.BINARY else None
        except asyncio.TimeoutError:
            return await self._refuse(line, f"a device says hello within {HELLO_SECONDS:g} seconds")
        except FrameError as error:
            return await self._refuse(line, f"that is no hello: {error}")
        if hello is None or hello.kind != "hello":
            return await self._refuse(line, "a device says hello first")
        if hello.header.get("version") != VERSION:
            told = str(hello.header.get("version"))[:20]
            return await self._refuse(line, f"the device speaks version {told} of the protocol, and this is {VERSION}")
        phone = self.phone_of(hello.header.get("token"))
        if phone is None:
            return await self._refuse(line, "the token is unknown: ask the run's owner for an invitation")
        welcome, samples = self._welcome(phone), hello.header.get("samples")
        wanted = welcome["samples"] + welcome["held_out"]
        if type(samples) is not int or samples < wanted:
            told = f"{samples}" if type(samples) is int else "no number"
            return await self._refuse(line, f"the run wants {wanted} samples of each device, and this one has {told}")
        labels, name = hello.header.get("labels"), str(hello.header.get("device", "a device"))[:LONGEST_NAME]
        if labels is not None and not _are_counts(labels, samples):
            told = f"at most {MOST_LABELS} classes, and how many samples of each, no more than {samples} in all"
            return await self._refuse(line, f"labels are {told}")
        connection = Connection(phone, line, "".join(c if c.isprintable() else "?" for c in name), labels)
        return await self._take_in(connection, welcome)

    async def _take_in(self, connection: Connection, welcome: dict[str, Any]) -> Connection | None:
        """Greet a device, whose questions are asked of it from then on; none if it is gone before."""
        try:
            await self._send(connection, Frame({"kind": "welcome", **welcome}, {}))
            told = None
            while told is not self._status:  # which may change while it is told
                told = self._status
                await self._send(connection, told)
        except PhoneGoneError as error:
            logger.info("a device came and went: %s", error)
            return None
        self._put_in_its_place(connection)
        async with self._changed:
            self._changed.notify_all()
        logger.info("phone %d is connected: %s", connection.phone, connection.name)
        return connection

    def _put_in_its_place(self, connection: Connection) -> None:
        """Take the place of the phone's connection before, if any: nobody may come between, so nothing is awaited."""
        before = self._connected.get(connection.phone)
        if before is not None:  # a page that was loaded again; its old connection may not know yet that it is gone
            before.left = True
            self._gone(before)
            goodbye = asyncio.ensure_future(self._close(before, "bye", "the same device connected again"))
            self._goodbyes.add(goodbye)
            goodbye.add_done_callback(self._goodbyes.discard)
        self._connected[connection.phone] = self._known[connection.phone] = connection

    async def _refuse(self, line: Line, reason: str) -> Connection | None:
        """Say why, and close: there is no connection."""
        logger.warning("a device was refused: %s", reason)
        await line.close(WSCloseCode.POLICY_VIOLATION, encode(frame("refused", reason=reason)))
        return None

    async def _close(self, connection: Connection, kind: str, reason: str) -> None:
        await connection.line.close(WSCloseCode.POLICY_VIOLATION, encode(frame(kind, reason=reason)))

    async def _listen(self, connection: Connection) -> None:
        async for message in connection.line.socket:
            if message.type is WSMsgType.ERROR:
                return
            try:
                if message.type is not WSMsgType.BINARY:
                    raise FrameError("frames are binary")
                answer = decode(message.data)
                self._account(connection.phone).add(answer, len(message.data), up=True)
                if answer.kind == "bye":
                    connection.left = True
                    return
                self._take(connection, answer)
            except FrameError as error:
                await self._blame(connection, str(error))
                return

    def _take(self, connection: Connection, answer: Frame) -> None:
        """Give an answer to who waits for it. Raises FrameError for one that nobody asked for."""
        number = answer.header.get("id")
        if type(number) is not int or number > connection.asked or number < 0:
            raise FrameError("it sent what it wasn't asked for")
        waiting = connection.pending.pop(number, None)
        if waiting is not None and not waiting.done():  # else nobody waits any more: it came too late
            waiting.set_result(answer)

    async def _blame(self, connection: Connection, reason: str) -> None:
        """A device that breaks the protocol: its phone is a bad one."""
        error = BadPhoneError((connection.phone,), f"its device broke the protocol: {reason}")
        if not self._fail(connection, error):
            self._blamed[connection.phone] = error.reason
        await self._close(connection, "refused", reason[:500])

    def _fail(self, connection: Connection, error: Exception) -> bool:
        """Tell those who wait for its answers; says whether anybody did."""
        waiting = [future for future in connection.pending.values() if not future.done()]
        connection.pending.clear()
        for future in waiting:
            future.set_exception(error)
        return bool(waiting)

    def _gone(self, connection: Connection) -> None:
        if not connection.left:
            connection.line.abort()
        self._fail(connection, PhoneGoneError((connection.phone,), "its device left, or its connection ended"))
        if self._connected.get(connection.phone) is connection:
            del self._connected[connection.phone]
            self._account(connection.phone).lost += not connection.left
            logger.info("phone %d is gone: %s", connection.phone, connection.name)

    async def ask(self, phone: int, question: Frame) -> Frame:
        """A device's answer. Raises PhoneGoneError if none comes in time, BadPhoneError if it is no answer."""
        if phone in self._blamed:
            raise BadPhoneError((phone,), self._blamed.pop(phone))
        connection = self._connected.get(phone)
        if connection is None:
            raise PhoneGoneError((phone,), "its device is not connected")
        number = next(self._numbers)
        future: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        connection.pending[number], connection.asked = future, number
        question.header["id"], start = number, time.monotonic()
        try:
            await self._send(connection, question)
            answer = await asyncio.wait_for(future, self._timeout - (time.monotonic() - start))
            self._account(phone).answers += 1
        except (asyncio.TimeoutError, TimeoutError) as late:
            seconds = f"{self._timeout:g} seconds (gateway.timeout)"
            raise PhoneGoneError((phone,), f"its device did not answer within {seconds}") from late
        finally:
            connection.pending.pop(number, None)
            self._account(phone).seconds += time.monotonic() - start
        return _checked(phone, question, answer)

    def forget(self, phone: int, error: Exception) -> None:
        """Whoever waits for this phone's answers needs them no more."""
        if phone in self._connected:
            self._fail(self._connected[phone], error)

    async def _send(self, connection: Connection, one: Frame) -> None:
        data = encode(one)
        try:
            await connection.line.send(data)
        except ConnectionError as error:
            raise PhoneGoneError((connection.phone,), str(error)) from error
        self._account(connection.phone).add(one, len(data), up=False)

    def _account(self, phone: int) -> Account:
        return self.accounts.setdefault(phone, Account())

    async def wait_for(self, phones: Iterable[int], seconds: float) -> list[int]:
        """Those of some phones that are connected, once all are, or after so many seconds."""
        wanted = set(phones)
        try:
            await asyncio.wait_for(self._all_there(wanted), seconds)
        except asyncio.TimeoutError:
            logger.debug("not all of %s are connected", sorted(wanted))
        return sorted(wanted & self.phones)

    async def _all_there(self, wanted: set[int]) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: wanted <= self.phones)

    async def tell(self, status: Frame) -> None:
        """Tell all devices how the run stands; those that come later, too."""
        self._status = status
        await asyncio.gather(*(self._tell(each, status) for each in list(self._connected.values())))

    async def _tell(self, connection: Connection, status: Frame) -> None:
        try:
            await self._send(connection, status)
        except PhoneGoneError:
            self._gone(connection)

    async def part(self, reason: str | None) -> None:
        """Close all connections, with a goodbye if there is a reason."""
        await asyncio.gather(*(self._part(each, reason) for each in list(self._connected.values())), *self._goodbyes)

    async def _part(self, connection: Connection, reason: str | None) -> None:
        connection.left = True
        if reason is None:
            await connection.line.close(WSCloseCode.GOING_AWAY)
        else:
            await self._close(connection, "bye", reason)


def _are_counts(labels: Any, samples: int) -> bool:
    """Whether it is a histogram of labels, as a device may share it."""
    if not isinstance(labels, dict) or len(labels) > MOST_LABELS:
        return False
    named = all(len(name) <= LONGEST_LABEL and name.isprintable() for name in labels)
    return named and all(type(n) is int and n > 0 for n in labels.values()) and sum(labels.values()) <= samples


def _checked(phone: int, question: Frame, answer: Frame) -> Frame:
    if answer.kind == "failed":
        reason = str(answer.header.get("reason", "no reason given"))[:500]
        raise PhoneGoneError((phone,), f"its device failed: {reason}")
    if answer.kind != question.kind:
        told = answer.kind[:40]
        raise BadPhoneError((phone,), f"its device was asked for {question.kind}, and answered {told!r}")
    return answer
