"""The plots of the paper's Table 1 and Figures 4a to 4c, predicted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from ray_split.experiments.paper.tables import SIZES, SPLITS
from ray_split.experiments.plots import BLACK, BLUE, ORANGE, new_figure
from ray_split.experiments.tables import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DOUBLE_SINGLE = dict(zip(SPLITS, (BLUE, ORANGE), strict=True))
STYLES = {"overall": "-", "communication": "--"}


def figures(found: Mapping[str, Sequence[Row]]) -> dict[str, Callable[[], Figure]]:
    """What draws each plot, by the name of its file."""
    return {"table1.png": lambda: table_1(found["table1"]), "figure4.png": lambda: figure_4(found)}


def table_1(rows: Sequence[Row]) -> Figure:
    """A panel for each column: predicted, with the range of neighbouring cuts, beside the paper's.

    Raises ImportError without matplotlib.
    """
    figure = new_figure(12, 6.4)
    columns = [column for column in dict.fromkeys(row["column"] for row in rows) if "alone" not in column]
    for axes, column in zip(figure.subplots(2, 2).flat, columns, strict=True):
        _column(axes, [row for row in rows if row["column"] == column])
        axes.set_title(column, fontsize=10)
    figure.axes[0].legend(frameon=False, fontsize=8)
    return figure


def _column(axes: Axes, rows: Sequence[Row]) -> None:
    names, ours = [row["network"] for row in rows], [row["predicted"] for row in rows]
    reach = [[o - row["lowest"] for o, row in zip(ours, rows, strict=True)],
             [row["highest"] - o for o, row in zip(ours, rows, strict=True)]]  # fmt: skip
    axes.errorbar(names, ours, reach, fmt="o", color=BLUE, capsize=4, label="predicted; bar: neighbouring cuts")
    axes.plot(names, [row["paper"] for row in rows], "D", color=BLACK, label="the paper's")
    axes.set(ylim=0, ylabel="s an image")
    axes.tick_params(axis="x", labelsize=7)
    axes.grid(alpha=0.3)


def figure_4(found: Mapping[str, Sequence[Row]]) -> Figure:
    """Figures 4a, 4b and 4c side by side. Raises ImportError without matplotlib."""
    figure = new_figure(14, 4.8)
    parameters, cut, server = figure.subplots(1, 3)
    for size, marker in zip(SIZES, "os", strict=True):
        rows = [row for row in found["figure4a"] if row["size"] == size]
        _lines(parameters, [row["parameters"] / 1e6 for row in rows], rows, marker, f", {size}", ("overall",))
    _lines(cut, [row["output"] for row in found["figure4b"]], found["figure4b"], "o")
    _lines(server, [row["server"] for row in found["figure4c"]], found["figure4c"], "o")
    parameters.set(title="4a: parameters", xlabel="millions")
    cut.set(title="4b: InceptionResNetV2, the first cut", xlabel="what crosses there")
    cut.tick_params(axis="x", rotation=30, labelsize=7)
    server.set(title="4c: ResNet152, the server")
    for axes in (parameters, cut, server):
        axes.set(ylim=0, ylabel="s an image")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize=8)
    return figure


def _lines(
    axes: Axes,
    x: Sequence[float | str],
    rows: Sequence[Row],
    marker: str,
    more: str = "",
    columns: Sequence[str] = tuple(STYLES),
) -> None:
    for split, colour in DOUBLE_SINGLE.items():
        for column in columns:
            y = [row[f"{column}_{split}"] for row in rows]
            axes.plot(x, y, STYLES[column], marker=marker, color=colour, label=f"{column}, {split}{more}")
