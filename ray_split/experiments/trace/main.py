"""A round of a finished run to look at: phones and server as rows, what they do as bars.

    ray-split trace RUN_FOLDER --round 3

Writes trace_3.json, for https://ui.perfetto.dev or chrome://tracing, and trace_3.png, beside the run or to --out. The
run's settings say what phones, links and server are (phones.device, phones.link, server.device: docs/devices.md), and
the round is computed once more from them: bars are in virtual time. Of real time there is what metrics.jsonl has: how
long the round took, and how long client and server actors (their mean) spent in all, not when.

A model, data set or loss of your own is imported only with --trust, since whoever wrote the folder names it.

Exit status: 0, or 2 for a bad argument.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from ray_split.command_line.parser import Parser
from ray_split.config import text
from ray_split.errors import SettingsError, first_line, shown
from ray_split.experiments.command import exit_status, parser_of
from ray_split.experiments.out_folder import check_writable
from ray_split.experiments.plots import save
from ray_split.experiments.runs.find import LISTS
from ray_split.experiments.trace.events import events
from ray_split.experiments.trace.plots import figure_of
from ray_split.experiments.trace.round import Traced, trace
from ray_split.filesystem import Place, make_folder, place, write


def write_trace(found: Traced, out: Place, most: int) -> list[str]:
    """Write JSON and picture; returns their paths. Raises SettingsError."""
    json_file, picture = (out / f"trace_{found.round}.{ending}" for ending in ("json", "png"))
    content = json.dumps({"traceEvents": list(events(found)), "displayTimeUnit": "ms"}).encode()
    try:
        make_folder(out)
        write(json_file, content)
        title = f"round {found.round}, counted from 0"
        drawn = save({picture.name: lambda: figure_of(found.times, found.servers, title, most)}, out, dpi=140)
    except OSError as error:
        wrong = f"{shown(str(out))} can't be written to: {error.strerror or first_line(error)}"
        raise SettingsError("--out", str(out), "Name another folder", wrong) from error
    return [str(path) for path in ([json_file, picture] if drawn else [json_file])]


def _folder(name: str, path: str) -> Place:
    try:
        return place(text.path(path))
    except SettingsError as error:
        raise error.of(name) from error
    except ValueError as error:
        raise SettingsError(name, path, str(error)) from error


def _add_flags(parser: Parser) -> None:
    trust = "import what the folder's settings name as package.module:function: runs code of whoever wrote there"
    add = parser.add_argument
    parser.needs = ("the folder of a run", LISTS)
    add("folder", metavar="RUN_FOLDER", help="the run's output folder, or its URI")
    add("--round", type=int, default=0, help="counted from 0, as in metrics.jsonl (default: 0)")
    add("--out", help="folder or URI to write to; none: the run's folder")
    add("--trust", action="store_true", help=trust)
    add("--most", type=int, default=40, help="phones in the picture (default: 40); the JSON has all")


@exit_status
def main(arguments: Sequence[str]) -> int:
    """Trace a round; returns the exit status."""
    parser = parser_of("trace", __doc__)
    _add_flags(parser)
    given = parser.parse_args(arguments)
    if given.most < 1:
        raise SettingsError("--most", given.most, "at least 1")
    folder = _folder("", given.folder)
    out = folder if given.out is None else _folder("--out", given.out)
    if given.out is not None:
        check_writable(out, *(f"trace_{given.round}.{ending}" for ending in ("json", "png")))
    try:
        found = trace(folder, given.round, given.trust)
    except OSError as error:
        wrong = f"{folder} can't be read: {first_line(error)}"
        raise SettingsError("RUN_FOLDER", str(folder), "Name the folder of a run", wrong) from error
    print("\n".join(write_trace(found, out, given.most)))
    whole, phones = found.times.whole, len(found.times.phones)
    print(f"round {given.round}, counted from 0: {whole:.4g} virtual seconds, {phones} phones")
    return 0
