"""A plan as rows: what each position costs, and the candidates on the Pareto front; and as a table for people."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ray_split import config
from ray_split.arrays import Array
from ray_split.costs.node_costs import Shape
from ray_split.costs.phone_memory import alone
from ray_split.costs.planner import Plan
from ray_split.experiments.tables import Row, aligned, figures


def position_rows(found: Plan, optimizer: config.Optimizer) -> list[dict[str, Any]]:
    """A row for each position, in the order they run: bytes and FLOPs a sample, memory of a step on a batch.

    Seconds are those of the best fitting candidate with the position as its first, or as its second cut.
    """
    scanned, best = found.scan, found.best
    a, c = alone(scanned, optimizer)
    crossing, returning = (
        scanned.at(column) / scanned.batch for column in (scanned.costs.crossing, scanned.costs.returning)
    )
    columns = {
        "bytes_forward": crossing, "bytes_backward": returning,
        "parameters_before": scanned.parameters, "parameters_after": scanned.total_parameters - scanned.parameters,
        "flops_before": scanned.flops / scanned.batch,
        "flops_after": (scanned.total_flops - scanned.flops) / scanned.batch,
        "memory_before": a, "memory_after": c,
        "weights_before": scanned.at(scanned.costs.sent_before), "weights_after": scanned.at(scanned.costs.sent_after),
    }  # fmt: skip
    sides = (found.candidates.first, found.candidates.second)
    front = set(np.concatenate([side[found.pareto] for side in sides]).tolist())
    as_first, as_second = (_best_seconds(found, side) for side in sides)
    rows = []
    for i, position in enumerate(scanned.positions):
        chosen = [word for word, side in zip(("first", "second"), sides, strict=True) if side[best] == i]
        row = {"place": i, "layer": position.name, "same_place": " ".join(position.names[1:])}
        row |= {"shape": shape_text(scanned.shapes(i)), "may_be_first": int(position.first)}
        row |= {name: _plain(column[i]) for name, column in columns.items()}
        row |= {"seconds_as_first": as_first.get(i), "seconds_as_second": as_second.get(i)}
        rows.append({**row, "pareto": int(i in front), "recommended": " ".join(chosen)})
    return rows


def _best_seconds(found: Plan, side: Array) -> dict[int, float]:
    best: dict[int, float] = {}
    for place, seconds in zip(side[found.fits].tolist(), found.candidates.seconds[found.fits].tolist(), strict=True):
        best[place] = min(seconds, best.get(place, math.inf))
    return best


def front_rows(found: Plan) -> list[dict[str, Any]]:
    """A row for each candidate on the Pareto front, the fastest first: bytes and FLOPs a sample."""
    c, scanned = found.candidates, found.scan
    rows = []
    for i in sorted(np.flatnonzero(found.pareto).tolist(), key=lambda i: float(c.seconds[i])):
        first, *second = found.cuts(i)
        after = scanned.total_parameters - scanned.parameters[c.second[i]] if second else 0
        numbers = {
            "bytes_up": c.bytes_up[i] / scanned.batch, "bytes_down": c.bytes_down[i] / scanned.batch,
            "bytes_weights": c.bytes_weights[i],
            "parameters": scanned.parameters[c.first[i]] + after, "flops": c.phone_flops[i] / scanned.batch,
            "memory": c.phone_memory[i], "seconds": c.seconds[i],
        }  # fmt: skip
        cuts = {"first": first, "second": second[0] if second else ""}
        rows.append({**cuts, **{k: _plain(v) for k, v in numbers.items()}, "recommended": int(i == found.best)})
    return rows


def _plain(value: Any) -> int | float:
    number = float(value)
    return int(number) if number.is_integer() else number


def shape_text(shapes: Sequence[Shape]) -> str:
    """Shapes of the tensors that cross, without the batch: '64x56x56', several with +."""
    return " + ".join("x".join(map(str, shape[1:])) or "1" for shape in shapes)


HEAD = (
    "after layer", "crosses", "kB", "kB back", "A: params (k)", "A: GFLOPs", "A: MB",
    "C: params (k)", "C: GFLOPs", "C: MB", "s as first", "s as second", "",
)  # fmt: skip


def to_text(rows: Sequence[Row]) -> str:
    """The positions' table for people, its columns aligned."""
    lines = aligned([HEAD, *map(_cells, rows)], left=2)
    return "".join("  ".join(line).rstrip() + "\n" for line in lines)


def _cells(row: Row) -> list[str]:
    marks = "<- recommended " + row["recommended"] if row["recommended"] else "pareto" * row["pareto"]
    return [
        row["layer"], row["shape"], figures(row["bytes_forward"] / 1e3), figures(row["bytes_backward"] / 1e3),
        *_side(row, "before"), *_side(row, "after"),
        figures(row["seconds_as_first"]), figures(row["seconds_as_second"]), marks,
    ]  # fmt: skip


def _side(row: Row, side: str) -> list[str]:
    scales = {"parameters": 1e3, "flops": 1e9, "memory": 1e6}
    return [figures(row[f"{name}_{side}"] / scale) for name, scale in scales.items()]
