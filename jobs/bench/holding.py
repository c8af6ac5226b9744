"""What it costs to hold a round's start where nothing that trains can lose it: at the fed server, beside a round."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ray_split as rs
from jobs.bench.phones import Rounds, settings_of
from jobs.bench.timing import Row, interleaved, ratio


def holding(settings: rs.Config, repeats: int) -> Row:
    """A round, and in turn with it what a round spends on its start: B from the fed server, and all of it back."""
    run = Rounds(settings)
    run()  # a round begins with B's averaged state at the fed server
    times = interleaved({"round": run, "start": lambda: run.hold()}, repeats, 1)
    run.stop()
    middle = {name: sorted(seconds)[len(seconds) // 2] for name, seconds in times.items()}
    return {
        "round_ms": round(middle["round"] * 1e3, 1),
        "start_ms": round(middle["start"] * 1e3, 1),
        "share": ratio(times, "start", "round"),
        "repeats": repeats,
    }


def _digits(schedule: str) -> Callable[[int, int], Row]:
    return lambda n, _: holding(settings_of("digits_cnn", 1000, 16, schedule), min(n, 9))


def _resnet(schedule: str) -> Callable[[int, int], Row]:
    data: dict[str, Any] = {"batch_size": 32, "kwargs": {"samples": 384, "shape": [3, 64, 64]}}
    cuts = {"cuts": ["layer2", "avgpool"]}
    return lambda n, _: holding(settings_of("resnet18", 4, 96, schedule, net=cuts, data=data), min(n, 7))


HOLDING_ROWS: dict[str, Callable[[int, int], Row]] = {
    **{f"holding the start, 1000 phones, digits_cnn, {name}": _digits(name) for name in ("splitfed_v1", "parallel")},
    **{f"holding the start, 4 phones, resnet18, {name}": _resnet(name) for name in ("splitfed_v1", "sequential")},
}
