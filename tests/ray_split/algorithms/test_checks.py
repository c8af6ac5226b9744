"""What the settings of an algorithm and a server optimizer may be; what may not be is one line that says why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ray_split as rs
from ray_split.algorithms.checks import check
from ray_split.schedules import schedule_of

V1 = {"schedule": {"name": "splitfed_v1"}}
HERE = "tests.ray_split.algorithms.test_checks"


def half(gradients: dict, weights: dict, start: dict) -> dict:
    return {name: gradient / 2 for name, gradient in list(gradients.items())[:1]}


def in_place(gradients: dict, weights: dict, start: dict) -> dict:
    for weight in weights.values():
        weight.zero_()
    return gradients


def failing(gradients: dict, weights: dict, start: dict) -> dict:
    raise ValueError("no such luck")


def needy(gradients: dict, weights: dict, start: dict, how_much: float) -> dict:
    return gradients


def scalar(change: np.ndarray, memory: dict, lr: float) -> tuple[float, dict]:
    return 3.0, {}


def drawn_in_turn(turn: Any, stream: Any, roles: Any) -> Any:
    yield None


REFUSED: list[tuple[dict[str, Any], str]] = [
    (
        {"algorithm": {"name": "fedprox"}},
        (
            "algorithm.name: fedprox can't be used with schedule.name sequential, where nothing is averaged and "
            "so phones don't drift apart. Remove algorithm.name, or choose another schedule, such as fedavg."
        ),
    ),
    (
        {**V1, "algorithm": {"name": "fedprx"}},
        (
            "algorithm.name: there is no algorithm 'fedprx'. Did you mean fedprox? The algorithms are feddyn, "
            "fedprox, moon and scaffold. You can also name your own as package.module:function."
        ),
    ),
    (
        {**V1, "algorithm": {"kwargs": {"mu": 1}}},
        (
            "algorithm.kwargs: is set, but algorithm.name is not. Set algorithm.name to fedprox, scaffold, "
            "feddyn, moon or your own package.module:function, or remove algorithm.kwargs."
        ),
    ),
    (
        {**V1, "algorithm": {"name": "fedprox", "kwargs": {"my": 1}}},
        "algorithm.kwargs: fedprox takes no argument 'my'. fedprox takes mu.",
    ),
    (
        {**V1, "algorithm": {"name": "fedprox", "kwargs": {"mu": -1}}},
        "algorithm.kwargs: mu must be at least 0, not -1.",
    ),
    (
        {**V1, "algorithm": {"name": "feddyn", "kwargs": {"alpha": "much"}}},
        "algorithm.kwargs: alpha must be a number of at least 0, not 'much'.",
    ),
    (
        {**V1, "algorithm": {"name": "scaffold"}, "optimizer": {"momentum": 0.9}},
        (
            "algorithm.name: scaffold can't be used with momentum 0.9, because it computes gradients from how "
            "far phones moved. Use sgd without momentum, or remove algorithm.name."
        ),
    ),
    (
        {**V1, "algorithm": {"name": "scaffold"}, "optimizer": {"name": "adam"}},
        (
            "algorithm.name: scaffold can't be used with adam, because it computes gradients from how far phones "
            "moved. Use sgd without momentum, or remove algorithm.name."
        ),
    ),
    (
        {**V1, "algorithm": {"name": "scaffold"}, "aggregator": {"name": "median"}},
        (
            "algorithm.name: scaffold can't be used with aggregator.name median. Remove aggregator.name (the "
            "default is mean), or remove algorithm.name."
        ),
    ),
    (
        {**V1, "algorithm": {"name": "feddyn"}, "server_optimizer": {"name": "fedadam"}},
        (
            "algorithm.name: feddyn can't be used with server_optimizer.name fedadam, because it has its own "
            "server step. Remove one of the two."
        ),
    ),
    (
        {"schedule": {"name": "splitfed_v3"}, "algorithm": {"name": "fedprox"}, "model": {"freeze": ["b"]}},
        (
            "algorithm.name: fedprox can't be used, because with schedule.name splitfed_v3 it corrects only B, "
            "which model.freeze freezes. Remove algorithm.name, or freeze fewer segments."
        ),
    ),
    (
        {"schedule": {"name": f"{HERE}:drawn_in_turn"}, "algorithm": {"name": "scaffold"}},
        (
            f"algorithm.name: scaffold can't be used with schedule.name {HERE}:drawn_in_turn, which doesn't hand "
            f"on what phones remember. Remove algorithm.name, or set remembers=True in the schedule's rs.Schedule "
            f"and hand it on."
        ),
    ),
    (
        {**V1, "algorithm": {"name": f"{HERE}:half"}},
        (
            f"algorithm.name: {HERE}:half returned {{'weight': (3, 2)}}. Return a dict with the same keys as "
            f"gradients, each with a tensor of the same shape."
        ),
    ),
    (
        {**V1, "algorithm": {"name": f"{HERE}:in_place"}},
        (
            f"algorithm.name: {HERE}:in_place changed the weights it was given. Return new gradients, and leave "
            f"the weights as they are."
        ),
    ),
    (
        {**V1, "algorithm": {"name": f"{HERE}:failing"}},
        f"algorithm.name: {HERE}:failing failed at",
    ),
    (
        {**V1, "algorithm": {"name": f"{HERE}:needy"}},
        "algorithm.kwargs: needy needs how_much. Add --algorithm.kwargs '{how_much: VALUE}'.",
    ),
    (
        {"server_optimizer": {"name": "fedadam"}},
        (
            "server_optimizer.name: can't be used with schedule.name sequential, where nothing is averaged. "
            "Remove server_optimizer.name, or choose another schedule, such as fedavg."
        ),
    ),
    (
        {**V1, "server_optimizer": {"name": "fedavgm", "kwargs": {"momentum": 1}}},
        "server_optimizer.kwargs: momentum must be at least 0 and less than 1, not 1.",
    ),
    (
        {**V1, "server_optimizer": {"name": "fedadam", "kwargs": {"tau": 0}}},
        "server_optimizer.kwargs: tau must be greater than 0, not 0.",
    ),
    (
        {**V1, "server_optimizer": {"lr": 0.5}},
        (
            "server_optimizer.lr: is set, but server_optimizer.name is not. Set server_optimizer.name to "
            "fedavgm, fedadam, fedyogi, fedadagrad or your own package.module:function, or remove "
            "server_optimizer.lr."
        ),
    ),
    (
        {**V1, "server_optimizer": {"name": f"{HERE}:scalar"}},
        (
            f"server_optimizer.name: {HERE}:scalar returned something else. Return (step, memory): an array "
            f"shaped like change, and a dict of arrays of that shape."
        ),
    ),
]


@pytest.mark.parametrize(("sections", "line"), REFUSED, ids=lambda each: "" if isinstance(each, dict) else each[-40:])
def test_what_makes_no_sense_is_refused_in_a_line_that_says_why(sections: dict[str, Any], line: str) -> None:
    settings = rs.Config(**sections)
    with pytest.raises(rs.SettingsError) as refused:
        check(settings, schedule_of(settings.schedule))
    assert line in str(refused.value)


@pytest.mark.parametrize("schedule", ["splitfed_v1", "splitfed_v2", "splitfed_v3", "parallel", "fedavg"])
def test_ours_are_taken_by_every_schedule_that_averages(schedule: str) -> None:
    for algorithm in ("fedprox", "scaffold", "feddyn"):
        settings = rs.Config(schedule={"name": schedule}, algorithm={"name": algorithm})
        check(settings, schedule_of(settings.schedule))
    for name in ("fedavgm", "fedadam", "fedyogi", "fedadagrad"):
        settings = rs.Config(
            schedule={"name": schedule}, server_optimizer={"name": name}, algorithm={"name": "scaffold"}
        )
        check(settings, schedule_of(settings.schedule))


def test_a_comparison_leaves_them_out_where_nothing_is_averaged(tmp_path: Path) -> None:
    from ray_split.experiments.compare.settings import _run

    base = rs.Config(**V1, algorithm={"name": "fedprox"}, server_optimizer={"name": "fedadam", "lr": 0.5})
    alone, averaged = (_run(base, schedule, 0) for schedule in ("sequential", "splitfed_v2"))
    assert (alone.algorithm.name, alone.server_optimizer.name) == (None, None)
    assert (averaged.algorithm.name, averaged.server_optimizer.name) == ("fedprox", "fedadam")
    check(alone, schedule_of(alone.schedule))
