"""What a sweep tells: a line a run, and a table of its points, over the seeds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pandas as pd
from ray import tune
from rich.table import Table

from ray_split.experiments.sweep.axes import SEED
from ray_split.experiments.sweep.points import shown
from ray_split.experiments.sweep.trials import name_of
from ray_split.experiments.tables import with_spread

CONFIG = "config/"
"""What Tune puts before a point's axes in its table."""


class Lines(tune.Callback):  # type: ignore[misc]
    """A line for each run that comes to its end, is stopped early, or fails."""

    def __init__(self, metric: str) -> None:
        self._metric, self._done = metric, 0

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """It came to its end, or was stopped early."""
        last = trial.last_result or {}
        self._say(trials, trial, f"{self._metric} {last.get(self._metric)} after {last.get('rounds')} rounds")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """It failed; the others go on."""
        self._say(trials, trial, "failed")

    def _say(self, trials: list[Any], trial: Any, what: str) -> None:
        self._done += 1
        name = name_of(trial.config).rpartition("_")[0]
        print(f"{self._done}/{len(trials)} {name}: {what}", flush=True)


CLASS = re.compile(r"^(?:\w+\.)+\w+: ")
"""What Python puts before an error's words."""


def failure(result: tune.Result) -> str:
    """Which run failed, and what its error says at its end: Ray puts the traceback of another process before it."""
    last = CLASS.sub("", str(result.error).strip().splitlines()[-1])
    return f"{shown(result.config or {})}: {last}"


def by_point(frame: pd.DataFrame, axes: Sequence[str], metric: str, mode: str) -> pd.DataFrame:
    """A line for each point: the metric's mean and standard deviation over its seeds, the best first."""
    if metric not in frame:
        return pd.DataFrame()
    columns = {CONFIG + axis: axis for axis in axes if CONFIG + axis in frame}
    table = frame.rename(columns=columns).assign(**{axis: frame[old].map(str) for old, axis in columns.items()})
    keys = list(columns.values()) or [SEED]
    if keys == [SEED]:
        table = table.assign(**{SEED: "all"})
    groups = table.groupby(keys, sort=False, dropna=False)[metric]
    points = groups.agg(mean="mean", std="std", runs="count").reset_index()
    return points.sort_values("mean", ascending=mode == "min", kind="stable")


def table_of(points: pd.DataFrame, metric: str) -> Table:
    """The points, for people."""
    table = Table(title=f"{metric}, mean and standard deviation over the runs of a point", title_justify="left")
    names = [name for name in points if name not in ("mean", "std", "runs")]
    for name in (*names, metric, "runs"):
        table.add_column(str(name))
    for row in points.to_dict("records"):
        std = None if pd.isna(row["std"]) else row["std"]
        table.add_row(*(str(row[name]) for name in names), with_spread(row["mean"], std), str(row["runs"]))
    return table


def best_of(points: pd.DataFrame, axes: Sequence[str], grid: tune.ResultGrid) -> dict[str, Any]:
    """The point with the best mean, as its axes' values."""
    best = points.iloc[0]
    for result in grid:
        if all(str(result.config.get(axis)) == best[axis] for axis in axes if axis in best):
            return {axis: result.config[axis] for axis in axes}
    raise LookupError(f"no run is at the point {dict(best)}")
