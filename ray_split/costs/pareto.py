"""The Pareto front of points with three goals."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np

from ray_split.arrays import Array


def front(goals: Sequence[Array]) -> Array:
    """Indices of the points that no other beats: one that is less in a goal and not more in any of the three.

    `goals` are three columns (K,), all to be small. Of equal points each is in the front, or none.
    """
    points = np.stack(goals, axis=1)
    order = np.lexsort(points.T[::-1])
    stairs: list[tuple[float, float]] = []  # of what came before: second goal up, third goal down
    kept: list[int] = []
    before: tuple[float, ...] | None = None
    for index, point in zip(order.tolist(), points[order].tolist(), strict=True):
        if before == tuple(point):
            if kept and tuple(points[kept[-1]]) == before:
                kept.append(index)
            continue
        before = tuple(point)
        if _climbs(stairs, point[1], point[2]):
            kept.append(index)
    return np.array(kept, int)


def _climbs(stairs: list[tuple[float, float]], second: float, third: float) -> bool:
    """Whether nothing on the stairs is at most as high in both; then it becomes a step, over those that it beats."""
    at = bisect_right(stairs, (second, third))
    if at and stairs[at - 1][1] <= third:
        return False
    end = at
    while end < len(stairs) and stairs[end][1] >= third:
        end += 1
    stairs[at:end] = [(second, third)]
    return True
