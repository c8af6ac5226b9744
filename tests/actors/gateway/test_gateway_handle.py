"""The gateway of a run in one process, which has an event loop of its own."""

from __future__ import annotations

import asyncio
import gc
from threading import Event
from typing import cast

import pytest

from actors.gateway.gateway import Gateway
from actors.inprocess import GatewayHandle


def test_what_waits_for_devices_when_a_run_is_stopped_ends_with_it(caplog: pytest.LogCaptureFixture) -> None:
    waits, ended = Event(), Event()

    class Waiting:
        async def wait_for(self) -> None:
            waits.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        async def stop(self, reason: str) -> None:
            pass

    handle = GatewayHandle(lambda: cast(Gateway, Waiting()))
    asyncio.run_coroutine_threadsafe(Waiting().wait_for(), handle._loop)
    waits.wait()
    handle.shut_down("over")
    gc.collect()
    assert ended.is_set() and not caplog.records
