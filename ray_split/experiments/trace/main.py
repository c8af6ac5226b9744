"""A round of a finished run to look at: phones and server as rows, what they do as bars.

    python -m jobs.trace RUN_FOLDER --round 3

Writes trace_3.json, for https://ui.perfetto.dev or chrome://tracing, and trace_3.png, beside the run or to --out. The
run's settings say what phones, links and server are (phones.device, phones.link, server.device: docs/devices.md), and
the round is computed once more from them: bars are in virtual time. Of real time there is what metrics.jsonl has: how
long the round took, and what client and server actors spent of it in all, in the mean; not when.

A model, data set or loss of your own is imported with --trust alone: whoever wrote the folder names it.

Exit status: 0, or 2 for a bad argument.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from ray_split import config
from ray_split.cli import Parser
from ray_split.config import text
from ray_split.config.plugins import named_by
from ray_split.costs.virtual_clock import Times
from ray_split.errors import SettingsError, first_line
from ray_split.experiments.trace import plots as traceplots
from ray_split.filesystem import Place, make_folder, place, write
from ray_split.preparation.prepare import Prepared, prepare
from ray_split.results.left_behind import read_quarantined
from ray_split.results.records import CONFIG
from ray_split.results.rows import read_rows
from ray_split.schedules.roles import server_names

PHONES, SERVERS, REAL = 1, 2, 3  # a process each, to whoever shows the trace
Event = dict[str, Any]


class Traced(NamedTuple):
    """A round: in virtual time, and its line in metrics.jsonl if the run came that far."""

    round: int
    times: Times
    servers: list[str]
    row: dict[str, Any]


def traced(folder: Place, round: int, trust: bool = False) -> Traced:
    """A run's round once more. What its settings name is imported only with `trust`. Raises SettingsError."""
    try:
        there = (folder / CONFIG).exists()
    except (OSError, ValueError, ImportError) as error:
        raise SettingsError("RUN_FOLDER", str(folder), f"the folder of a run: {first_line(error)}") from error
    if not there:
        raise SettingsError("RUN_FOLDER", str(folder), "the folder of a run, with its config.yaml")
    settings = config.Config.from_yaml(folder / CONFIG)
    with named_by(folder, trust):
        return _traced(prepare(settings), folder, round)


def _traced(prepared: Prepared, folder: Place, round: int) -> Traced:
    if prepared.clock is None:
        allowed = "set in the run: without phones.device, phones.link or server.device there is no virtual time"
        raise SettingsError("phones.device", None, allowed)
    if not 0 <= round < prepared.settings.run.rounds:
        raise SettingsError("--round", round, f"0 to {prepared.settings.run.rounds - 1}")
    for each in read_quarantined(folder):
        prepared.stream.leave_out(each["phone"], each["round"])
    times = prepared.clock.round(prepared.stream, round, spans=True)
    rows = {row["round"]: row for row in read_rows(folder)}
    return Traced(round, times, server_names(prepared.settings.server.replicas), rows.get(round, {}))


def _folder(name: str, path: str) -> Place:
    try:
        return place(text.path(path))
    except ValueError as error:
        raise SettingsError(name, path, str(error)) from error


def events(found: Traced) -> Iterator[Event]:
    """The round in Chrome's trace event format; times in microseconds."""
    yield _named("process", "phones, virtual time", PHONES, order=2)
    yield _named("process", "server, virtual time", SERVERS, order=1)
    for phone in found.times.phones.tolist():
        yield _named("thread", f"phone {phone}", PHONES, phone)
    for number, name in enumerate(found.servers):
        yield _named("thread", name, SERVERS, number)
    for bar in traceplots.bars(found.times):
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


def write_trace(found: Traced, out: Place, most: int) -> list[str]:
    """Write JSON and picture; returns their paths."""
    make_folder(out)
    paths = [out / f"trace_{found.round}.{ending}" for ending in ("json", "png")]
    write(paths[0], json.dumps({"traceEvents": list(events(found)), "displayTimeUnit": "ms"}).encode())
    try:
        traceplots.plot(found.times, found.servers, f"round {found.round}", most, paths[1])
    except ImportError as error:
        print(f"no picture: {error}; pip install matplotlib")
        return [str(paths[0])]
    return [str(path) for path in paths]


def main(arguments: Sequence[str]) -> int:
    """Trace a round; returns the exit status."""
    about, _, more = (__doc__ or "").partition("\n")
    raw = argparse.RawDescriptionHelpFormatter
    parser = Parser(prog="jobs.trace", description=about, epilog=more, allow_abbrev=False, formatter_class=raw)
    parser.add_argument("folder", metavar="RUN_FOLDER", help="the run's output folder, or its URI")
    parser.add_argument("--round", type=int, default=0, help="counted from 0, as in metrics.jsonl (default: 0)")
    parser.add_argument("--out", help="folder to write to; none: the run's")
    trust = "import what the folder's settings name as package.module:function: it runs code of whoever wrote there"
    parser.add_argument("--trust", action="store_true", help=trust)
    parser.add_argument("--most", type=int, default=40, help="phones in the picture (default: 40); the JSON has all")
    Parser.given = arguments
    try:
        given = parser.parse_args(arguments)
        if given.most < 1:
            raise SettingsError("--most", given.most, "1 or more phones")
        folder = _folder("RUN_FOLDER", given.folder)
        out = folder if given.out is None else _folder("--out", given.out)
        found = traced(folder, given.round, given.trust)
        print("\n".join(write_trace(found, out, given.most)))
        print(f"round {given.round}: {found.times.whole:.4g} virtual seconds, {len(found.times.phones)} phones")
    except OSError as error:
        print(f"error: {first_line(error)}", file=sys.stderr)
        return 2
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
