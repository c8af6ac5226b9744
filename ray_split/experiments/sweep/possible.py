"""Whether any run of a sweep can begin: what no axis changes is found out before Ray starts, not by each trial."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray_split import config
from ray_split.errors import SettingsError
from ray_split.experiments.sweep.axes import SEED, settings_at
from ray_split.experiments.sweep.points import points_of
from ray_split.preparation.prepare import prepare

MOST_TRIED = 20
ELSEWHERE = ("data.path", "model.weights")  # files that may be on the nodes of the trials alone


def check_possible(base: config.Config, space: Mapping[str, Any]) -> None:
    """Raises SettingsError, of the first point, if no run can begin. One that fails among others is told of later.

    Points are tried until one can; those that differ from one that can't in what its mistake has nothing to do with
    (learning rates, seeds) are not.
    """
    first: SettingsError | None = None
    failed = set[str]()
    for point in points_of(space):
        if failed & {_known_by(point, whole=True), _known_by(point, whole=False)}:
            continue
        if len(failed) == MOST_TRIED:
            return
        error = _mistake(base, point)
        if error is None or error.field in ELSEWHERE:
            return
        first = first or error
        failed.add(_known_by(point, whole=error.field.startswith("optimizer")))
    if first is not None:
        raise first


def _mistake(base: config.Config, point: Mapping[str, Any]) -> SettingsError | None:
    try:
        prepare(settings_at(base, point))
    except SettingsError as error:
        return error
    return None


def _known_by(point: Mapping[str, Any], whole: bool) -> str:
    """The point; if not the whole, without what a mistake in other sections than the optimizer's can't depend on."""
    return repr({
        axis: value for axis, value in point.items() if axis != SEED and (whole or not axis.startswith("optimizer."))
    })  # fmt: skip
