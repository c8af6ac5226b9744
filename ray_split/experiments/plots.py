"""What all plots share: colours, figures without a display, and files. They need matplotlib."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ray_split.filesystem import Place, write

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which the colour-blind can tell apart, without the yellow that is faint on white.
COLOURS = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7")
BLACK, ORANGE, SKY, GREEN, BLUE, RED, PINK = COLOURS


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches. Raises ImportError without matplotlib."""
    from matplotlib.figure import Figure  # not pyplot: it wants a display, and keeps every figure

    return Figure(figsize=(width, height), layout="constrained")


def label_decades(axis: Axis) -> None:
    """Numbers at a logarithmic axis's decades, and between them where there is room."""
    from matplotlib.ticker import LogFormatter

    axis.set_major_formatter(LogFormatter())
    axis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 0.5)))


def save(figures: Mapping[str, Callable[[], Figure]], out: Place, dpi: int = 160, hint: str = "") -> bool:
    """Draw each figure, and write it to the file of its name in the folder; whether there is matplotlib to do so.

    Without it a line says so, with the hint at its end. Raises OSError.
    """
    try:
        drawn = {name: _png(draw(), dpi) for name, draw in figures.items()}
    except ImportError as error:
        print(f"no plot: {error}; pip install 'ray-split[plot]'{hint}")
        return False
    for name, content in drawn.items():
        write(out / name, content)
    return True


def _png(figure: Figure, dpi: int) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=dpi)
    return content.getvalue()
