"""A picture of one round in virtual time: phones and server as rows. It needs matplotlib."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ray_split.costs.virtual_clock import Times
from ray_split.experiments.compare.plots import COLOURS
from ray_split.filesystem import Place, write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_, ORANGE, SKY, GREEN, BLUE, _, _ = COLOURS
KINDS = {"phone": ("phone computes", BLUE), "up": ("goes up", ORANGE), "down": ("comes down", SKY),
         "server": ("server computes", GREEN), "waiting": ("waits", "0.85")}  # fmt: skip
UP = ("activation", "hidden_gradient", "weights up")


class Bar(NamedTuple):
    """What a phone did, or with `server` that one for it; in seconds since the round's start."""

    phone: int
    server: int | None
    part: str
    name: str
    step: int
    start: float
    end: float

    @property
    def kind(self) -> str:
        """The part, of what crosses the direction."""
        if self.part != "communication":
            return self.part
        return "up" if self.name in UP else "down"


def bars(times: Times) -> Iterator[Bar]:
    """Everything that takes time in a round that was computed with spans."""
    for span in times.spans:
        phones = times.phones[span.rows].tolist()
        for phone, start, end in zip(phones, span.starts.tolist(), span.ends.tolist(), strict=True):
            if end > start:
                yield Bar(phone, span.server, span.part, span.name, span.step, start, end)


def plot(times: Times, servers: Sequence[str], title: str, most: int, path: Place) -> None:
    """Write the figure as PNG. Raises ImportError without matplotlib."""
    content = io.BytesIO()
    figure_of(times, servers, title, most).savefig(content, dpi=140)
    write(path, content.getvalue())


def figure_of(times: Times, servers: Sequence[str], title: str, most: int) -> Figure:
    """The servers, and under them the round's first phones, at most so many."""
    from matplotlib.figure import Figure  # not pyplot: it wants a display, and keeps every figure

    shown = times.phones[:most].tolist()
    names = [*servers, *(f"phone {phone}" for phone in shown)]
    rows = {("server", i): i for i in range(len(servers))}
    rows |= {("phone", phone): len(servers) + i for i, phone in enumerate(shown)}
    figure = Figure(figsize=(12, 1.8 + 0.24 * len(names)), layout="constrained")
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
