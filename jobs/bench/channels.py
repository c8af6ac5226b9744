"""Rounds whose exchanges clients lead against rounds that the driver submits call by call: cluster.channel."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import median

import ray_split as rs
from jobs.bench.phones import Plain, Rounds
from jobs.bench.scratch_folder import scratch_folder
from jobs.bench.timing import Row, interleaved, ratio

DIGITS = Path("jobs/configs/digits.yaml")


def _rounds(schedule: str, clients: int, channel: str) -> Rounds:
    settings = rs.Config.from_yaml(DIGITS).with_values(
        schedule={"name": schedule},
        server={"num_gpus": 0},
        cluster={"client_actors": clients, "channel": channel},
        run={"name": f"{schedule}_{clients}_{channel}", "storage_path": scratch_folder()},
    )
    return Rounds(settings)


def channel_row(schedule: str, clients: int) -> Callable[[int, int], Row]:
    """A round of 20 phones of digits, direct against calls, and against unsplit training in one process."""

    def row(repeats: int, calls: int) -> Row:
        rounds = {channel: _rounds(schedule, clients, channel) for channel in ("calls", "direct")}
        plain = Plain(rounds["calls"].prepared).one_pass(1)
        times = interleaved({**rounds, "unsplit": plain}, min(repeats, 15), 1)
        spent = {channel: each.spent() for channel, each in rounds.items()}
        for each in rounds.values():
            each.stop()
        return {
            "median_ms": {name: round(median(each) * 1e3, 1) for name, each in times.items()},
            "speed_direct_over_calls": ratio(times, "calls", "direct"),
            "calls_over_unsplit": ratio(times, "calls", "unsplit"),
            "direct_over_unsplit": ratio(times, "direct", "unsplit"),
            "spent": spent,
        }

    return row


CHANNEL_ROWS = {
    f"channel of {schedule}, {clients} client{'s' * (clients > 1)}": channel_row(schedule, clients)
    for schedule in ("sequential", "splitfed_v2")
    for clients in (1, 2)
}
