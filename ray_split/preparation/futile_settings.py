"""Settings with which nothing would be trained, or that nobody could wait for: refused before anything is started."""

from __future__ import annotations

import math

from pydantic_core import PydanticSerializationError
from torch import nn

from ray_split import config, logs
from ray_split.config import yaml12
from ray_split.config.fields import Section
from ray_split.config.text import PATH_BYTES
from ray_split.cutting.cut import Segments
from ray_split.data.participation import chosen
from ray_split.data.stream import Stream
from ray_split.errors import SettingsError
from ray_split.filesystem import Uri

MOST_DRAWN = 5 * 10**7  # samples of a phone's round: they are drawn at once
TRIED = 3  # rounds

logger = logs.get(__name__)


def check_written(settings: config.Config) -> None:
    """See that the settings can be written down, and where. Raises SettingsError."""
    for name in ("model", "data", "schedule", "aggregator"):
        section = getattr(settings, name)
        try:
            yaml12.read(yaml12.write(section.model_dump(mode="json")["kwargs"]).encode())
        except (PydanticSerializationError, ValueError, TypeError) as error:
            allowed = f"what config.yaml can hold, numbers, words, lists and mappings: {' '.join(str(error).split())}"
            raise SettingsError(f"{name}.kwargs", section.kwargs, allowed[:300]) from error
    folder = settings.run.folder
    if not isinstance(folder, Uri) and len(bytes(folder)) > PATH_BYTES:
        allowed = f"a path of at most {PATH_BYTES} bytes, with the run's name"
        raise SettingsError("run.storage_path", settings.run.storage_path, allowed)


def check_chances(settings: config.Config) -> None:
    """See that some phone can finish a round, and say where none is likely to. Raises SettingsError."""
    phones = settings.phones
    if phones.dropout == 1:
        raise SettingsError("phones.dropout", phones.dropout, "below 1: all phones would drop out, in every round")
    rounds = settings.run.rounds * chosen(phones.per_round, phones.count)
    chance = phones.availability * (1 - phones.dropout)
    if rounds * chance < 1:
        logger.warning("hardly any phone will finish a round: of %d, each does by a chance of %.2g", rounds, chance)


def warn_of_unused(settings: config.Config) -> None:
    """Say what was set and has no use. A partition of the user's may read any of its section."""
    partition, phones = settings.data.partition, settings.phones
    own = ":" in partition.name
    each: list[tuple[Section, str, str, bool, str]] = [
        (partition, "data.partition", "alpha", own or partition.name == "dirichlet", f"with {partition.name}"),
        (partition, "data.partition", "shards_per_phone", own or partition.name == "shards", f"with {partition.name}"),
        (phones, "phones", "hostile_scale", bool(phones.hostile), "where no phone is hostile"),
        (phones, "phones", "on_misfit", phones.device is not None, "without phones.device"),
    ]
    for section, name, field, used, where in each:
        value = getattr(section, field)
        if not used and value != type(section).model_fields[field].default:
            logger.warning("%s.%s is %s, and has no use %s", name, field, value, where)


def check_steps(settings: config.Config, stream: Stream) -> None:
    """See that a phone's round is one that can be drawn. Raises SettingsError."""
    samples = int(stream.partition.training().max(initial=1))
    batches = math.ceil(samples / stream.batch_size)
    field = "local_steps" if stream.local_steps else "local_epochs"
    value = stream.local_steps or stream.local_epochs
    passes = math.ceil(value / batches) if stream.local_steps else value
    if passes * samples > MOST_DRAWN:
        least = MOST_DRAWN // samples * (batches if stream.local_steps else 1)
        allowed = f"at most {max(1, least)}, and more rounds: a phone's {samples} samples are drawn for all of a round"
        raise SettingsError(f"phones.{field}", value, allowed)


def check_segments(settings: config.Config, segments: Segments) -> None:
    """See that something is left to train, and say what drops all that it is given. Raises SettingsError."""
    modules, frozen = segments.modules(), settings.model.freeze
    left = [name for name, module in modules.items() if name not in frozen and _trains(module)]
    if not left and frozen:
        there = ", ".join(name for name in modules if _trains(modules[name])) or "no segment"
        allowed = f"fewer: nothing is left to train (of the model, {there} has weights)"
        raise SettingsError("model.freeze", frozen, allowed)
    if not left:
        raise SettingsError("model.name", settings.model.name, "a model with weights to train: it has none")
    for name, module in modules.items():
        for layer, each in module.named_modules():
            if isinstance(each, nn.modules.dropout._DropoutNd) and each.p >= 1:
                drops = "%s in segment %s drops all that it is given (p is 1): what is before it learns nothing of it"
                logger.warning(drops, layer, name)


def warn_of_deadline(settings: config.Config, stream: Stream) -> None:
    """Say where in the first rounds nobody is in time."""
    if settings.phones.deadline is None:
        return
    fates = [stream.fate(round) for round in range(min(TRIED, settings.run.rounds))]
    if all(fate.late.any() and not fate.finished.any() for fate in fates):
        late = "in the first rounds nobody is in time: phones.deadline is %g virtual seconds, and nothing is trained"
        logger.warning(late, settings.phones.deadline)


def _trains(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())
