"""A picture of one round in virtual time: phones and server as rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ray_split.costs.virtual_clock import Times
from ray_split.experiments.plots import BLUE, GREEN, ORANGE, SKY, new_figure
from ray_split.experiments.trace.round import bars

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = {"phone": ("phone computes", BLUE), "up": ("goes up", ORANGE), "down": ("comes down", SKY),
         "server": ("server computes", GREEN), "waiting": ("waits", "0.85")}  # fmt: skip


def figure_of(times: Times, servers: Sequence[str], title: str, most: int) -> Figure:
    """The servers, and under them the round's first phones, at most so many. Raises ImportError without matplotlib."""
    shown = times.phones[:most].tolist()
    names = [*servers, *(f"phone {phone}" for phone in shown)]
    rows = {("server", i): i for i in range(len(servers))}
    rows |= {("phone", phone): len(servers) + i for i, phone in enumerate(shown)}
    figure = new_figure(12, 1.8 + 0.24 * len(names))
    axes = figure.subplots()
    for kind, (label, colour) in KINDS.items():
        spans: dict[int, list[tuple[float, float]]] = {}
        for bar in bars(times):
            row = rows.get(("phone", bar.phone) if bar.server is None else ("server", bar.server))
            if bar.kind == kind and row is not None:
                spans.setdefault(row, []).append((bar.start, bar.end - bar.start))
        for row, widths in spans.items():
            axes.broken_barh(widths, (row - 0.4, 0.8), facecolors=colour)
        axes.broken_barh([], (0, 0), facecolors=colour, label=label)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(0, times.whole or 1)
    axes.set_xlabel("virtual seconds since the round's start")
    left = len(times.phones) - len(shown)
    axes.set_title(title + (f", the first {len(shown)} of {len(times.phones)} phones" if left else ""))
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12 - 1.2 / len(names)), ncols=len(KINDS), frameon=False)
    return figure
