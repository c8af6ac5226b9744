"""Whether `run.stop` is about what a run's rows will have. Raises SettingsError."""

from __future__ import annotations

import numpy as np

from ray_split import config
from ray_split.config.stop import PATIENCE
from ray_split.config.user_code.plugins import suggest
from ray_split.data.load import Parts
from ray_split.data.partitions import Partition
from ray_split.errors import SettingsError, listed, shown
from ray_split.messages.report import RoundSums, Spent
from ray_split.results.summary import FAILED, VIRTUAL
from ray_split.schedules import schedule_of
from ray_split.tasks.losses import LOSSES, Distance
from ray_split.tasks.metrics import METRICS


def check_stop(settings: config.Config, parts: Parts, partition: Partition) -> None:
    """See that each key is a column that the rows will have, with numbers in it. Raises SettingsError."""
    stop = settings.run.stop
    validated = _validates(settings, parts, partition)
    known = [*_of_training(settings), *(_of_validation(settings, parts) if validated else [])]
    for key in stop:
        if not validated and key.startswith((PATIENCE, "val_")):
            allowed = "Set data.val_fraction to more than 0, or use another column, such as train_loss"
            raise SettingsError("run.stop", key, allowed, f"can't use {key}, because there are no validation samples")
        if key.startswith(("test_", "phone_")):
            wrong = f"can't use {key}, because test results must not influence training"
            example = (
                "val_accuracy"
                if "val_accuracy" in known
                else next((n for n in known if n.startswith("val_")), "train_loss")
            )
            do = f"Use a training or validation column, such as {example}"
            raise SettingsError("run.stop", key, do, wrong)
        if key not in (PATIENCE, *known):
            there = f"You can use {listed([PATIENCE, *known], 'or')}"
            raise SettingsError("run.stop", key, suggest(key, known, there), f"there is no column {shown(key)}")
    _check_directions(settings)


def _validates(settings: config.Config, parts: Parts, partition: Partition) -> bool:
    if schedule_of(settings.schedule).personal:
        return bool(partition.held_out_sizes("val").any())
    return len(parts.val.inputs) > 0


def _of_training(settings: config.Config) -> list[str]:
    sums = RoundSums()
    sums.spent = {"server": Spent(), "client": Spent()}
    trained = [name for name in sums.row(0, 0.0) if name != "round" and not name.startswith("val_")]
    return [*trained, "left_out", *FAILED, *(VIRTUAL if settings.phones.device is not None else ())]


def _of_validation(settings: config.Config, parts: Parts) -> list[str]:
    labels = parts.train.labels
    values = isinstance(LOSSES.get(settings.task.loss), Distance) or np.issubdtype(labels.dtype, np.floating)
    names = ["loss", *([] if values else ["accuracy"]), *settings.task.metric_names, "nonfinite"]
    return [f"val_{name}" for name in names]


def _check_directions(settings: config.Config) -> None:
    """Of a metric of the user's nobody knows whether more of it is better."""
    for name in settings.task.metric_names:
        given = settings.run.stop.get(f"val_{name}")
        if name not in METRICS and isinstance(given, int | float):
            allowed = f"Write '>={given:g}' or '<={given:g}'"
            wrong = f"must say whether to reach {given:g} from below or from above, because {name} is your own metric"
            raise SettingsError(f"run.stop.val_{name}", given, allowed, wrong)
