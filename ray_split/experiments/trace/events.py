"""A round in Chrome's trace event format, as https://ui.perfetto.dev and chrome://tracing read it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ray_split.experiments.trace.round import Traced, bars

PHONES, SERVERS, REAL = 1, 2, 3  # a process each, to whoever shows the trace
Event = dict[str, Any]


def events(found: Traced) -> Iterator[Event]:
    """The round's events; times in microseconds."""
    yield _named("process", "phones, virtual time", PHONES, order=2)
    yield _named("process", "server, virtual time", SERVERS, order=1)
    for phone in found.times.phones.tolist():
        yield _named("thread", f"phone {phone}", PHONES, phone)
    for number, name in enumerate(found.servers):
        yield _named("thread", name, SERVERS, number)
    for bar in bars(found.times):
        where = {"pid": PHONES, "tid": bar.phone} if bar.server is None else {"pid": SERVERS, "tid": bar.server}
        detail = {"phone": bar.phone, "step": bar.step}
        yield {**_complete(bar.name, bar.start, bar.end, bar.kind), **where, "args": detail}
    yield from _real(found.row)


def _named(what: str, name: str, pid: int, tid: int = 0, order: int | None = None) -> Event:
    event = {"name": f"{what}_name", "ph": "M", "pid": pid, "tid": tid, "args": {"name": name}}
    return event if order is None else {**event, "args": {"name": name, "sort_index": order}}


def _complete(name: str, start: float, end: float, category: str) -> Event:
    return {"name": name, "cat": category, "ph": "X", "ts": start * 1e6, "dur": (end - start) * 1e6}


def _real(row: dict[str, Any]) -> Iterator[Event]:
    """The round's real seconds, and each role's sums of them one after the other: when they were is not known."""
    if not row:
        return
    yield _named("process", "real time: sums over the round, in the mean over the actors; not when", REAL)
    yield {**_complete("round", 0.0, row["round_seconds"], "real"), "pid": REAL, "tid": 0}
    yield _named("thread", "round", REAL, 0)
    for tid, role in enumerate(("server", "client"), start=1):
        yield _named("thread", f"{role} actors", REAL, tid)
        start = 0.0
        for what in ("compute", "waiting", "transfer"):
            end = start + row.get(f"{role}_{what}_seconds", 0.0)
            yield {**_complete(what, start, end, "real"), "pid": REAL, "tid": tid}
            start = end
