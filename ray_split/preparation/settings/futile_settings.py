"""Settings with which nothing would be trained, or that nobody could wait for: refused before anything is started."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from pydantic_core import PydanticSerializationError
from torch import nn

from ray_split import config, logs
from ray_split.config import yaml12
from ray_split.config.fields import Section
from ray_split.config.text import PATH_BYTES
from ray_split.config.user_code.by_value import spoken
from ray_split.cutting.cut import Segments
from ray_split.data.participation import chosen
from ray_split.data.stream import Stream
from ray_split.errors import SettingsError, listed, shown
from ray_split.filesystem import Uri
from ray_split.schedules import schedule_of

MOST_DRAWN = 5 * 10**7  # samples of a phone's round: they are drawn at once
TRIED = 3  # rounds

logger = logs.get(__name__)


def check_written(settings: config.Config) -> None:
    """See that the settings can be written down, and where. Raises SettingsError."""
    sections: dict[str, Any] = {
        name: getattr(settings, name)
        for name in ("model", "data", "schedule", "aggregator", "algorithm", "server_optimizer", "optimizer")
    }
    sections |= {f"optimizer.{name}": getattr(settings.optimizer, name) for name in "abc"}
    sections |= {f"{name}.schedule": each.schedule for name, each in sections.items() if name.startswith("optimizer")}
    for name, section in sections.items():
        try:
            yaml12.read(yaml12.write({"kwargs": section.model_dump(mode="json")["kwargs"]}).encode())
        except (PydanticSerializationError, ValueError, TypeError) as error:
            wrong = f"config.yaml can't hold {shown(section.kwargs)}: {' '.join(str(error).split())}"[:300]
            allowed = "Use numbers, text, lists and mappings"
            raise SettingsError(f"{name}.kwargs", section.kwargs, allowed, wrong) from error
    folder = settings.run.folder
    if not isinstance(folder, Uri) and len(bytes(folder)) > PATH_BYTES:
        wrong = f"has {len(bytes(folder))} bytes with the run's name, but may have at most {PATH_BYTES}"
        raise SettingsError("run.storage_path", settings.run.storage_path, "Use a shorter path", wrong)


def check_chances(settings: config.Config) -> None:
    """See that some phone can finish a round, and say where none is likely to. Raises SettingsError."""
    phones = settings.phones
    if phones.dropout == 1:
        raise SettingsError("phones.dropout", phones.dropout, "less than 1")
    rounds = settings.run.rounds * chosen(phones.per_round, phones.count)
    chance = phones.availability * (1 - phones.dropout)
    if rounds * chance < 1:
        logger.warning("hardly any phone will finish a round: of %d, each does by a chance of %.2g", rounds, chance)


def warn_of_unused(settings: config.Config) -> None:
    """Say what was set and has no use. A partition of the user's may read any of its section."""
    partition, phones = settings.data.partition, settings.phones
    own, server, schedule = ":" in partition.name, settings.server, settings.schedule.name
    on_server = schedule_of(settings.schedule).on_server
    each: list[tuple[Section, str, str, bool, str]] = [
        (partition, "data.partition", "alpha", own or partition.name == "dirichlet", f"with {partition.name}"),
        (partition, "data.partition", "shards_per_phone", own or partition.name == "shards", f"with {partition.name}"),
        (phones, "phones", "hostile_scale", bool(phones.hostile), "where no phone is hostile"),
        (server, "server", "dtype", on_server, f"with {schedule}, where B is the phones'"),
        (server, "server", "compile", on_server, f"with {schedule}, where B is the phones'"),
        (server, "server", "activation_checkpointing", on_server, f"with {schedule}, where B is the phones'"),
        (phones, "phones", "on_misfit", phones.device is not None, "without phones.device"),
    ]
    for section, name, field, used, where in each:
        value = getattr(section, field)
        if not used and value != type(section).model_fields[field].default:
            logger.warning("%s.%s is %s, and has no use %s", name, field, value, where)


def check_steps(settings: config.Config, stream: Stream) -> None:
    """See that a phone's round is one that can be drawn. Raises SettingsError."""
    _check_batches(settings, stream)
    samples = int(stream.partition.training().max(initial=1))
    batches = max(1, int(stream.batches_of(np.array(samples))))
    field = "local_steps" if stream.local_steps else "local_epochs"
    value = (stream.local_steps or 0) // stream.accumulate or stream.local_epochs
    passes = math.ceil(stream.local_steps / batches) if stream.local_steps else value
    if passes * samples > MOST_DRAWN:
        least = MOST_DRAWN // samples * (batches if stream.local_steps else 1)
        least = least // stream.accumulate if stream.local_steps else least
        wrong = f"is {value}, which is too many for phones with {samples} samples: a round is drawn at once"
        raise SettingsError(f"phones.{field}", value, f"Set {max(1, least)} or fewer, and more rounds", wrong)


def _check_batches(settings: config.Config, stream: Stream) -> None:
    """With data.drop_last a phone that has fewer samples than a batch has none."""
    if not stream.drops_last:
        return
    there = np.array([phone for phone in range(len(stream.partition)) if not stream.is_left_out(phone, 0)], int)
    samples = stream.samples(there)
    none = samples < stream.batch_size
    if not none.any():
        return
    first, fewest = int(there[none][0]), int(samples[none][0])
    others = f", and {int(none.sum()) - 1} more phones" if none.sum() > 1 else ""
    wrong = f"phone {first} trains on {fewest} samples{others}, so of batches of {stream.batch_size} none is left"
    allowed = f"Set data.batch_size to at most {int(samples.min())}, fewer phones.count, or leave data.drop_last out"
    raise SettingsError("data.drop_last", True, allowed, wrong)


def check_segments(settings: config.Config, segments: Segments) -> None:
    """See that something is left to train, and say what drops all that it is given. Raises SettingsError."""
    modules, frozen = segments.modules(), settings.model.freeze
    left = [name for name, module in modules.items() if name not in frozen and _trains(module)]
    if not left and frozen:
        there = [name for name in modules if _trains(modules[name])] or ["no segment"]
        have = "have" if len(there) > 1 else "has"
        wrong = f"is {listed(frozen)}, which leaves nothing to train ({listed(there)} {have} weights)"
        raise SettingsError("model.freeze", frozen, "Freeze fewer segments", wrong)
    if not left:
        raise SettingsError(
            "model.name",
            settings.model.name,
            "Choose a model with weights to train",
            f"{spoken(settings.model.name)} has no weights to train",
        )
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
