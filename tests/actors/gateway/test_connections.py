"""Who may connect to the gateway, and what happens to who may not."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from aiohttp import web

from actors.gateway import page
from actors.gateway.connections import Connections
from actors.gateway.page import application, tls
from ray_split import config
from ray_split.devices.frames import VERSION, Frame, decode, encode, frame
from ray_split.errors import BadPhoneError, PhoneGoneError, RunFailedError

TOKENS = {"token of phone 3": 3, "token of phone 4": 4}
OPERATOR = "operator's"
LARGEST = 10_000
Test = Callable[[Connections, aiohttp.ClientSession, str], Awaitable[Any]]


def welcome(phone: int) -> dict[str, Any]:
    return {"version": VERSION, "phone": phone, "samples": 20, "held_out": 0}


def examples(phone: int) -> tuple[np.ndarray, np.ndarray]:
    return np.full((2, 1), phone, np.float32), np.array([0, 1])


def with_gateway(test: Test, context: ssl.SSLContext | None = None, timeout: float = 30.0) -> Any:
    """Run a test with a gateway that listens, by TLS if there is a context for it."""

    async def run() -> Any:
        connections = Connections(TOKENS, welcome, LARGEST, timeout)
        runner = web.AppRunner(application(connections, examples, OPERATOR), shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        try:
            async with aiohttp.ClientSession() as session:
                scheme = "http" if context is None else "https"
                return await test(connections, session, f"{scheme}://127.0.0.1:{runner.addresses[0][1]}")
        finally:
            await connections.part("over")
            await runner.cleanup()

    return asyncio.run(asyncio.wait_for(run(), 120))


def hello(**changed: Any) -> bytes:
    told = {"version": VERSION, "token": "token of phone 3", "device": "a\nphone", "samples": 20, **changed}
    return encode(frame("hello", **told))


async def said(socket: aiohttp.ClientWebSocketResponse, *data: bytes | str) -> list[Frame]:
    """What the gateway says to some messages until it closes the connection."""
    for each in data:
        await (socket.send_str(each) if isinstance(each, str) else socket.send_bytes(each))
    return [decode(message.data) async for message in socket if message.type is aiohttp.WSMsgType.BINARY]


REFUSED: dict[str, tuple[bytes | str, str]] = {
    "no token": (hello(token=None), "the token is unknown"),
    "a wrong token": (hello(token="token of phone 5"), "the token is unknown"),
    "the operator's token": (hello(token=OPERATOR), "the token is unknown"),
    "an older version": (hello(version=0), "speaks version 0"),
    "a later version": (hello(version=VERSION + 1), f"and this is {VERSION}"),
    "too few samples": (hello(samples=19), "wants 20 samples of each device, and this one has 19"),
    "samples that are no number": (hello(samples="many"), "has no number"),
    "something else first": (encode(frame("forward", id=0)), "says hello first"),
    "text": ("hello", "says hello first"),
    "no frame": (b"hello", "that is no hello"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_who_does_not_say_hello_as_it_should_is_refused_with_a_sentence(case: str) -> None:
    data, told = REFUSED[case]

    async def test(connections: Connections, session: aiohttp.ClientSession, url: str) -> None:
        async with session.ws_connect(f"{url}/device") as socket:
            [refused] = await said(socket, data)
            assert refused.kind == "refused" and told in refused.header["reason"]
            assert socket.close_code == aiohttp.WSCloseCode.POLICY_VIOLATION
        assert connections.phones == set()

    with_gateway(test)


def test_a_frame_that_is_too_large_is_not_read_and_the_gateway_goes_on() -> None:
    async def test(connections: Connections, session: aiohttp.ClientSession, url: str) -> None:
        async with session.ws_connect(f"{url}/device") as socket:
            await said(socket, hello(), b"\0" * (LARGEST + 1))
            assert socket.close_code == aiohttp.WSCloseCode.MESSAGE_TOO_BIG
        async with session.ws_connect(f"{url}/device") as socket:
            await socket.send_bytes(hello())
            assert decode((await socket.receive()).data).header["phone"] == 3

    with_gateway(test)


@pytest.mark.parametrize("origin", ["http://elsewhere.example", "null", "http://127.0.0.1"])
def test_a_page_of_another_site_may_not_connect(origin: str) -> None:
    async def test(connections: Connections, session: aiohttp.ClientSession, url: str) -> None:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await session.ws_connect(f"{url}/device", headers={"Origin": origin})
        assert refused.value.status == 403
        async with session.ws_connect(f"{url}/device", headers={"Origin": url}) as own:
            assert not own.closed

    with_gateway(test)


@pytest.mark.parametrize("path", [
    "/../pyproject.toml", "/%2e%2e/page.py", "/..%2f..%2fpage.py", "/page/../connections.py", "//etc/passwd",
    "/index.html/", "/.git/config", "/frames.py",
])  # fmt: skip
def test_files_beside_the_page_are_not_served(path: str) -> None:
    async def test(connections: Connections, session: aiohttp.ClientSession, url: str) -> None:
        reader, writer = await asyncio.open_connection(*url.removeprefix("http://").split(":"))
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        assert answer.startswith(b"HTTP/1.1 40"), answer[:80]

    with_gateway(test)


def test_the_page_is_served_with_headers_that_let_nothing_else_in() -> None:
    if not (page.PAGE / "index.html").exists():
        pytest.skip("the page is not built")

    async def test(connections: Connections, session: aiohttp.ClientSession, url: str) -> None:
        async with session.get(f"{url}/") as answer:
            assert answer.status == 200 and "text/html" in answer.headers["Content-Type"]
            assert answer.headers["Content-Security-Policy"].startswith("default-src 'self'")

    with_gateway(test)


@pytest.mark.parametrize(("path", "right", "wrong"), [
    ("/examples.safetensors", "token of phone 4", OPERATOR), ("/devices.json", OPERATOR, "token of phone 3"),
])  # fmt: skip
def test_what_is_not_for_everybody_wants_its_token(path: str, right: str, wrong: str) -> None:
    async def test(connections: Connections, session: aiohttp.ClientSession, url: str) -> list[int]:
        found = []
        for token in (right, wrong, ""):
            async with session.get(url + path, headers={"Authorization": f"Bearer {token}"} if token else {}) as answer:
                found.append(answer.status)
        return found

    assert with_gateway(test) == [200, 401, 401]


def test_a_question_has_its_answer_and_bytes_are_counted() -> None:
    async def test(connections: Connections, session: aiohttp.ClientSession, url: str) -> None:
        async with session.ws_connect(f"{url}/device") as socket:
            await socket.send_bytes(hello())
            greeting, status = [decode((await socket.receive()).data) for _ in range(2)]
            assert (greeting.kind, greeting.header["phone"], status.kind) == ("welcome", 3, "status")
            before = connections.accounts[3].frames
            asked = asyncio.ensure_future(connections.ask(3, frame("forward", {"x": np.zeros(5, np.float32)})))
            question = decode((await socket.receive()).data)
            answer = frame("forward", {"y": np.ones(3, np.float32)}, id=question.header["id"])
            await socket.send_bytes(encode(answer))
            assert (await asked).tensors["y"].tolist() == [1, 1, 1]
            account = connections.accounts[3]
            assert (account.frames - before, account.up, account.down) == (2, 12, 20)
            [told] = connections.devices()
            assert (told["phone"], told["device"]) == (3, "a?phone")

    with_gateway(test)


SHARED = "labels are at most 1000 classes, and how many samples of each, no more than 20 in all"


@pytest.mark.parametrize("labels", [
    [12, 8], {"0": 21}, {"0": -1}, {"0": 0}, {"0": 1.5}, {"0": True}, {"x" * 41: 1}, {"a\n": 1},
    {str(number): 1 for number in range(1001)},
], ids=lambda labels: str(labels)[:20])  # fmt: skip
def test_labels_that_are_no_histogram_of_the_samples_are_refused(labels: Any) -> None:
    async def test(connections: Connections, session: aiohttp.ClientSession, url: str) -> None:
        socket = await session.ws_connect(f"{url}/device")
        await socket.send_bytes(hello(labels=labels))
        assert [each.header.get("reason") for each in await said(socket)] == [SHARED]
        assert connections.phones == set()

    with_gateway(test)


def test_the_operator_sees_labels_that_are_shared_and_how_often_a_connection_was_lost() -> None:
    async def test(connections: Connections, session: aiohttp.ClientSession, url: str) -> None:
        for last in (None, frame("bye", reason="left")):
            socket = await session.ws_connect(f"{url}/device")
            await socket.send_bytes(hello(labels={"0": 12, "seven": 8}))
            await socket.receive()
            if last is not None:
                await socket.send_bytes(encode(last))
            await socket.close()
            while connections.phones:
                await asyncio.sleep(0)
        [told] = connections.devices()
        assert (told["labels"], told["lost"], told["there"]) == ({"0": 12, "seven": 8}, 1, False)

    with_gateway(test)


def test_who_leaves_in_the_middle_is_gone_and_who_connects_twice_is_there_once() -> None:
    async def test(connections: Connections, session: aiohttp.ClientSession, url: str) -> None:
        first = await session.ws_connect(f"{url}/device")
        await first.send_bytes(hello())
        assert [decode((await first.receive()).data).kind for _ in range(2)] == ["welcome", "status"]
        asked = asyncio.ensure_future(connections.ask(3, frame("forward")))
        await asyncio.sleep(0)
        second = await session.ws_connect(f"{url}/device")
        await second.send_bytes(hello())
        with pytest.raises(PhoneGoneError, match="phone 3: its device left"):
            await asked
        assert [each.kind for each in await said(first)][-1] == "bye"
        assert connections.phones == {3}
        await second.close()
        with pytest.raises(PhoneGoneError, match="is not connected"):
            while True:
                await asyncio.wait_for(connections.ask(3, frame("forward")), 30)

    with_gateway(test)


def test_who_sends_before_it_is_asked_is_blamed_at_the_next_question() -> None:
    async def test(connections: Connections, session: aiohttp.ClientSession, url: str) -> None:
        async with session.ws_connect(f"{url}/device") as socket:
            assert [each.kind for each in await said(socket, hello(), encode(frame("forward", id=0)))][-1] == "refused"
        with pytest.raises(BadPhoneError, match="it sent what it wasn't asked for"):
            await connections.ask(3, frame("load"))

    with_gateway(test)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_with_a_certificate_devices_connect_by_tls_and_in_no_other_way(tmp_path: Path) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    ask = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    subprocess.run([*ask.split(), "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    trusting = ssl.create_default_context(cafile=str(certificate))

    async def test(connections: Connections, session: aiohttp.ClientSession, url: str) -> None:
        async with session.ws_connect(f"{url}/device", ssl=trusting) as socket:
            await socket.send_bytes(hello())
            assert decode((await socket.receive()).data).header["phone"] == 3
        for wrong in (url, url.replace("https", "http")):  # nobody vouches for it; it does not speak plainly
            with pytest.raises(aiohttp.ClientError):
                await session.ws_connect(f"{wrong}/device")

    with_gateway(test, tls(config.Gateway(certificate=certificate, key=key)))


def test_a_certificate_that_is_none_is_told_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text("no key")
    with pytest.raises(RunFailedError, match=r"gateway\.certificate or gateway\.key can't be used"):
        tls(config.Gateway(certificate=tmp_path / "none.pem", key=tmp_path / "key.pem"))
    assert tls(config.Gateway()) is None
