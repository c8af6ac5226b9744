"""Go through the rows, say where it is, and print one table. Exit status 1 where a goal was missed, or a row failed."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Sequence

import torch

from jobs.bench.gpu_check.copies import COPY_ROWS
from jobs.bench.gpu_check.rows import MissingError, Row
from jobs.bench.gpu_check.tests import TEST_ROWS
from jobs.bench.gpu_check.training import TRAINING_ROWS

ROWS = [*COPY_ROWS, *TRAINING_ROWS, *TEST_ROWS]
SECONDS = 480.0
"""For all rows: one for which no time is left is skipped."""


def main(names: Sequence[str] = (), rows: Sequence[Row] = ROWS, seconds: float = SECONDS) -> int:
    """Measure the rows of these names, or all. Returns the exit status."""
    unknown = set(names) - {row.name for row in rows}
    if unknown:
        print(f"error: there is no row {min(unknown)!r}; the rows are {', '.join(row.name for row in rows)}")
        return 2
    start, lines, missed = time.perf_counter(), [], False
    for number, row in enumerate(chosen := [row for row in rows if not names or row.name in names], 1):
        spent = time.perf_counter() - start
        print(f"[{number}/{len(chosen)}, {spent:.0f} s] {row.name}", file=sys.stderr, flush=True)
        said, figure, reached = _outcome(row, seconds - spent)
        missed |= not reached
        lines.append((row.name, row.goal, said, figure))
    print(_table([("row", "goal", "", "measured"), *lines]))
    print(f"on {_device()}, torch {torch.__version__}, {time.perf_counter() - start:.0f} s")
    return int(missed)


def _outcome(row: Row, left: float) -> tuple[str, str, bool]:
    """In a word how it went, the figure or the reason, and whether nothing is wrong."""
    if not torch.cuda.is_available():
        return "skipped", "torch sees no GPU here", True
    if left < row.seconds:
        return "skipped", f"takes about {row.seconds:.0f} s, and {max(0, left):.0f} are left", True
    try:
        figure, reached = row.measure()
    except MissingError as missing:
        return "skipped", str(missing), True
    except Exception as error:  # noqa: BLE001  one row that fails must not hide the others; it is told, and counts
        traceback.print_exc()
        return "FAILED", " ".join(f"{type(error).__name__}: {error}".split())[:120], False
    return ("reached" if reached else "MISSED"), figure, reached


def _device() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"


def _table(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
