"""A comparison's plot: validation accuracy against rounds, and against bytes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING

from ray_split.experiments.compare.results import Band, Run, label, mean_curve, of
from ray_split.experiments.plots import COLOURS, label_decades, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLES = [(colour, dash) for dash, colour in product(("-", "--", ":"), COLOURS)]
MARKERS = "osv^D<>Pp"


def figure_of(runs: Sequence[Run], target: float | None) -> Figure:
    """The schedules' mean accuracy over the seeds, each in a band from the lowest seed's to the highest's.

    A schedule through which nothing crossed is in the first panel alone. Raises ImportError without matplotlib.
    """
    figure = new_figure(11, 4.8)
    against_rounds, against_bytes = figure.subplots(1, 2, sharey=True)
    for number, schedule in enumerate(dict.fromkeys(run.schedule for run in runs)):
        bands = mean_curve(of(runs, schedule))
        _draw(against_rounds, number, schedule, [band.rounds for band in bands], bands)
        crossed = [band for band in bands if band.bytes > 0]
        _draw(against_bytes, number, schedule, [band.bytes / 1e6 for band in crossed], crossed)
    _scale(against_rounds, against_bytes)
    for axes in (against_rounds, against_bytes):
        axes.grid(alpha=0.3)
        if target is not None:
            axes.axhline(target, color="0.4", linestyle=(0, (6, 4)), linewidth=1, label=f"target {target:.4g}")
    if against_rounds.lines:
        figure.legend(*against_rounds.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    return figure


def _draw(axes: Axes, number: int, schedule: str, x: Sequence[float], bands: Sequence[Band]) -> None:
    if not bands:
        return
    colour, dash = STYLES[number % len(STYLES)]
    marker = MARKERS[number % len(MARKERS)]
    # Thinner and thinner: what equals what came before, as sequential does unsplit, must not hide it.
    width = max(1.0, 4.0 - 0.5 * number)
    axes.plot(
        x, [band.accuracy for band in bands], label=label(schedule), color=colour, linestyle=dash, linewidth=width,
        marker=marker, markersize=width + 3, markevery=max(1, len(x) // 15),
    )  # fmt: skip
    axes.fill_between(x, [b.low for b in bands], [b.high for b in bands], color=colour, alpha=0.12, linewidth=0)


def _scale(against_rounds: Axes, against_bytes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    against_rounds.set_xlabel("rounds")
    against_rounds.set_ylabel("validation accuracy")
    against_rounds.xaxis.set_major_locator(MaxNLocator(integer=True))
    against_bytes.set_xlabel("MB sent, all phones, up, down and weights")
    against_bytes.set_xscale("log")
    label_decades(against_bytes.xaxis)
