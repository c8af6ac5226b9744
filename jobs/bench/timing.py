"""Cases measured in turn in one run: on a shared machine an absolute time says little, a ratio more."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

Row = dict[str, Any]


def interleaved(cases: dict[str, Callable[[], Any]], repeats: int, calls: int) -> dict[str, list[float]]:
    """Seconds for one of the `calls` things that each case does at a time, `repeats` times, the cases in turn."""
    for case in cases.values():
        case()
    times: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(repeats):
        for name, case in cases.items():
            start = time.perf_counter()
            case()
            times[name].append((time.perf_counter() - start) / calls)
    return times


def ratio(times: dict[str, list[float]], a: str, b: str) -> float:
    """The median of a / b, repeat by repeat."""
    return round(median(x / y for x, y in zip(times[a], times[b], strict=True)), 3)
