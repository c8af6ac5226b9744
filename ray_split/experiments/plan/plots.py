"""A plan's plot: what each position costs along the network, all candidates by time and memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ray_split.costs.planner import Plan
from ray_split.experiments.plots import BLACK, BLUE, ORANGE, RED, label_decades, new_figure
from ray_split.experiments.tables import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_POINTS = 20_000  # of candidates drawn: enough to see where they lie


def figure_of(found: Plan, rows: Sequence[Row], title: str) -> Figure:
    """Left, along the network: bytes, FLOPs and memory. Right: every candidate, the front, and the recommended one.

    Raises ImportError without matplotlib.
    """
    figure = new_figure(12, 6.4)
    along, beside = figure.subfigures(1, 2, squeeze=False, width_ratios=(1.25, 1))[0]
    figure.suptitle(f"{title}: cut after {' and '.join(found.cuts(found.best))}")
    _along(along.subplots(3, 1, sharex=True), found, rows)
    _candidates(beside.subplots(), found)
    return figure


def _along(panels: Sequence[Axes], found: Plan, rows: Sequence[Row]) -> None:
    sent, computed, kept = panels
    _curves(sent, rows, {"bytes_forward": ("crosses", BLACK)}, 1e3, "kB a sample")
    sides = {"before": ("up to here (A)", BLUE), "after": ("after here (C)", ORANGE)}
    _curves(computed, rows, {f"flops_{side}": style for side, style in sides.items()}, 1e9, "GFLOPs a sample")
    _curves(kept, rows, {f"memory_{side}": style for side, style in sides.items()}, 1e6, "peak MB")
    sent.set_yscale("log")
    sent.set_title(f"{len(rows)} positions, a batch of {found.scan.batch}", fontsize=10)
    kept.set_xlabel("position, in the order the layers run")
    for axes in panels:
        for place in (found.candidates.first[found.best], found.candidates.second[found.best]):
            if place >= 0:
                axes.axvline(place, color=RED, linewidth=1.5)
        axes.grid(alpha=0.3)
    computed.legend(frameon=False, fontsize=8)


def _curves(axes: Axes, rows: Sequence[Row], columns: dict[str, tuple[str, str]], scale: float, unit: str) -> None:
    for name, (label, colour) in columns.items():
        axes.plot([row[name] / scale for row in rows], label=label, color=colour, drawstyle="steps-mid")
    axes.set_ylabel(unit)


def _candidates(axes: Axes, found: Plan) -> None:
    c = found.candidates
    some = np.unique(np.linspace(0, len(c.seconds) - 1, MOST_POINTS).astype(int))
    front = np.flatnonzero(found.pareto)
    memory = c.phone_memory / 1e6
    axes.scatter(memory[some], c.seconds[some], s=4, color="0.75", linewidths=0, label="all ways to cut")
    axes.scatter(memory[front], c.seconds[front], s=22, color=BLUE, label="Pareto front (time, memory, bytes)")
    axes.scatter(memory[found.best], c.seconds[found.best], s=160, marker="*", color=RED, label="recommended")
    axes.set(xscale="log", yscale="log", xlabel="peak MB on the phone", ylabel="predicted seconds a sample")
    for axis in (axes.xaxis, axes.yaxis):
        label_decades(axis)
    axes.grid(alpha=0.3, which="both")
    axes.legend(frameon=False, fontsize=8)
