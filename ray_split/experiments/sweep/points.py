"""A sweep's points and its metric, checked before anything is started."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

from ray.tune.search.sample import Categorical, Quantized

from ray_split import config
from ray_split.config.user_code.plugins import suggest
from ray_split.errors import SettingsError, brief, listed
from ray_split.experiments.sweep.axes import settings_at
from ray_split.results.summary import VIRTUAL
from ray_split.tasks.losses import LOSSES, Distance

MOST_POINTS = 500
"""That are checked; of a larger space as many that each value is in one of them."""

WITHIN = 0.381966  # of a range: a value that is no bound, and not a round number

COLUMNS = (
    *("train_loss", "phones", "samples", "exchanges", "round_seconds", "bytes_up", "bytes_down", "bytes_weights"),
    *("left_out", "phones_dropped", "phones_late", "phones_offline"),
    *(f"{role}_{what}_seconds" for role in ("server", "client") for what in ("compute", "waiting", "transfer")),
)
EVALUATED = ("loss", "accuracy", "nonfinite")
OF_PHONES = ("phone_accuracy_mean", "phone_accuracy_p10", "phone_accuracy_worst", "phone_nonfinite")


def tried(axis: Any) -> list[Any]:
    """Values of an axis that tell whether all can be: those that are listed, or of a range its ends and one within."""
    if isinstance(axis, dict):
        return list(axis["grid_search"])
    if isinstance(axis, Categorical):
        return list({repr(value): value for value in axis.categories}.values())
    if isinstance(axis.sampler, Quantized):
        return [axis.lower, axis.upper]
    if isinstance(axis.cast(1), int):
        return list(dict.fromkeys([int(axis.lower), int(axis.upper) - 1]))
    return [axis.lower, axis.upper, axis.lower + WITHIN * (axis.upper - axis.lower)]


def points_of(space: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Points of the space: all, if these are not too many."""
    values = {name: tried(axis) for name, axis in space.items()}
    if math.prod(map(len, values.values())) <= MOST_POINTS:
        yield from (dict(zip(values, point, strict=True)) for point in itertools.product(*values.values()))
        return
    for i in range(max(map(len, values.values()))):
        yield {name: each[i % len(each)] for name, each in values.items()}


def check_points(base: config.Config, space: Mapping[str, Any]) -> list[config.Config]:
    """The settings at the points of the space. Raises SettingsError for one that can't be, and for two that are one."""
    found: dict[str, config.Config] = {}
    for point in points_of(space):
        settings = _settings(base, point)
        if (content := settings.model_dump_json()) in found:
            wrong = f"{shown(point)} gives the same settings as other values of --over"
            raise SettingsError("--over", shown(point), "Leave one of them out", wrong)
        found[content] = settings
    return list(found.values())


def _settings(base: config.Config, point: Mapping[str, Any]) -> config.Config:
    try:
        return settings_at(base, point)
    except SettingsError as error:
        raise error.with_note(f"at {shown(point)}") from error


def shown(point: Mapping[str, Any]) -> str:
    """A point as people type it."""
    values = {axis: value if isinstance(value, str) else brief(value, 60) for axis, value in point.items()}
    return ", ".join(f"{axis}={value}" for axis, value in values.items())


def check_metric(metric: str, settings: config.Config) -> None:
    """See that runs with these settings tell the metric. Raises SettingsError."""
    known = list(metrics_of(settings))
    if metric not in known:
        there = f"They have {listed(known)}"
        raise SettingsError(
            "--metric", metric, suggest(metric, known, there), f"these runs have no metric {metric!r:.100}"
        )


def metrics_of(settings: config.Config) -> Iterator[str]:
    """The columns of metrics.jsonl that a run with these settings has numbers in."""
    names, regression = settings.task.metric_names, isinstance(LOSSES.get(settings.task.loss), Distance)
    if settings.task.metrics is None and regression:
        names = ["mse", "mae", "r2"]
    scores = [name for name in EVALUATED if name != "accuracy" or not regression]
    for part in ("val", "test") if settings.data.val_fraction else ("test",):
        yield from (f"{part}_{name}" for name in dict.fromkeys([*scores, *names]))
    yield from COLUMNS
    yield from OF_PHONES if settings.phones.held_out != 0 else ()
    described = (settings.phones.device, settings.phones.link, settings.server.device)
    yield from VIRTUAL if any(each is not None for each in described) else ()
