"""What a flag's value may be, where that is a list that ends: for the completion of the shell."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from typing import Any, Literal, get_args, get_origin

from ray_split import config
from ray_split.algorithms import ALGORITHMS, SERVER_OPTIMIZERS
from ray_split.command_line.flags import fields_of
from ray_split.command_line.training_help import SECTIONS
from ray_split.config.devices import DEVICES, LINKS
from ray_split.config.optimizer import CONSTANT, NAMES
from ray_split.config.optimizer import SCHEDULES as RATES
from ray_split.data.augmentations import AUGMENTATIONS
from ray_split.data.partitions import PARTITIONS
from ray_split.data.sources.datasets import DATA_SETS
from ray_split.models.registry import MODELS
from ray_split.preparation.settings.named_callbacks import CALLBACKS
from ray_split.schedules import SCHEDULES
from ray_split.segments.aggregators import AGGREGATORS
from ray_split.tasks.losses import LOSSES
from ray_split.tasks.metrics import METRICS

OURS: dict[str, Iterable[str]] = {
    "--help": SECTIONS,
    "--model.name": MODELS,
    "--data.name": DATA_SETS,
    "--data.augment": AUGMENTATIONS,
    "--data.partition.name": PARTITIONS,
    "--task.loss": LOSSES,
    "--task.metrics": METRICS,
    "--task.class_weights": ("balanced",),
    "--phones.device": DEVICES,
    "--phones.link": LINKS,
    "--schedule.name": SCHEDULES,
    "--schedules": SCHEDULES,
    "--aggregator.name": AGGREGATORS,
    "--algorithm.name": ALGORITHMS,
    "--server_optimizer.name": SERVER_OPTIMIZERS,
    **dict.fromkeys(("--optimizer.name", *(f"--optimizer.{each}.name" for each in "abc")), NAMES),
    **dict.fromkeys(
        ("--optimizer.schedule.name", *(f"--optimizer.{each}.schedule.name" for each in "abc")), (CONSTANT, *RATES)
    ),
    "--server.device": DEVICES,
    "--run.callbacks": CALLBACKS,
    "--run.resume": ("auto", "never"),
}
"""Names of ours, by flag. A model of a library, or one of your own, is typed as ever."""

ANNOTATIONS = {f"--{name}": field.annotation for name, field in fields_of(config.Config)}


def values_of(flag: str, action: argparse.Action) -> list[str]:
    """All values that are known of a flag; none for a number, a path or any text."""
    if action.choices is not None:
        return [str(choice) for choice in action.choices]
    return list(OURS[flag]) if flag in OURS else list(_words(ANNOTATIONS.get(flag)))


def _words(annotation: Any) -> Iterator[str]:
    """Of a type: those that are written in it."""
    if annotation is bool:
        yield from ("true", "false")
    elif get_origin(annotation) is Literal:
        yield from map(str, get_args(annotation))
    else:
        for part in get_args(annotation):
            yield from _words(part)
