"""Everything that is checked and settled before an actor starts: a person's mistake costs nothing."""

from __future__ import annotations

import copy
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from ray_split import config, logs, schedules
from ray_split.arrays import Array
from ray_split.costs.recorded_calls import try_schedule
from ray_split.costs.virtual_clock import Clock
from ray_split.cutting.cut import Segments, cut
from ray_split.data import load as data
from ray_split.data import partitions
from ray_split.data.batches import Batches
from ray_split.data.stream import Stream
from ray_split.errors import BROKEN, MISFITS, SettingsError, told
from ray_split.filesystem import Place, full, place
from ray_split.messages.contract import Contract
from ray_split.models import library, pretrained, registry
from ray_split.preparation import futile_settings
from ray_split.preparation.cohorts import settle
from ray_split.preparation.contract import contract
from ray_split.preparation.crossing import check_crossing, check_values
from ray_split.preparation.data_checks import check_data
from ray_split.preparation.misfit import misfit
from ray_split.preparation.state_kept import keeps_its_state
from ray_split.preparation.task_settings import check_names, outputs_of, settle_task, try_loss, try_metrics
from ray_split.preparation.virtual_time_settings import clock_of, described, fitting
from ray_split.schedules import schedule_of
from ray_split.schedules.schedule import Schedule
from ray_split.segments import aggregators

logger = logs.get(__name__)


class Prepared(NamedTuple):
    """A run's settings without a blank, its data, and its stream."""

    settings: config.Config
    parts: data.Parts
    stream: Stream
    contract: Contract
    clock: Clock | None = None  # of virtual time, if phones, link and server are described


def prepare(settings: config.Config) -> Prepared:
    """Fill in what follows from the data and the model, and try the model on its data. Raises SettingsError."""
    # 1. Where the run's folder and its files are.
    settings = _with_weights_file(_named(settings))
    # 2. What can be checked and decided without data.
    futile_settings.check_written(settings)
    futile_settings.check_chances(settings)
    futile_settings.warn_of_unused(settings)
    schedule = schedules.check(settings)
    aggregators.check(settings.aggregator, schedule.averages)
    check_names(settings.task)
    settings = described(with_held_out(settings, schedule))
    # 3. The data, and which samples are whose.
    parts = data.load(settings.data)
    partition = partitions.deal(settings, parts.train.labels, parts.groups)
    if schedule.personal:
        _check_held_out(settings, partition)
    # 4. The stream, and the schedule's round on it, with no actors.
    stream = Stream(settings, partition, schedule.order)
    _check_left(settings, stream)
    futile_settings.check_steps(settings, stream)
    try_schedule(settings, stream)
    check_data(settings, parts, stream)
    # 5. The model, what it is to learn, and where it is cut.
    settings = settings.with_values(model={"num_classes": _classes(settings.model, parts)})
    model = _model(settings)
    settings = settings.with_values(model={"cuts": registry.cuts_of(settings.model, model)})
    settings = settle_task(settings, parts.train.labels)
    segments, examples, targets = _try(settings, model, parts, stream)
    futile_settings.check_segments(settings, segments)
    check_crossing(settings, segments, examples[-1])
    # 6. How many phones train together, and which segments are computed for all of them at once.
    held_out = _held_out_sizes(settings, stream) if schedule.personal else []
    settings = settle(settings, segments, examples, stream.per_round, held_out)
    check_values(settings, segments, examples[-1])
    # 7. Virtual time: whom training fits, and who comes too late.
    clock = clock_of(settings, segments, examples, targets)
    if clock is not None:
        settings = fitting(settings, examples[-1])
    # 8. The stream of the settings as they are now.
    stream = Stream(settings, partition, schedule.order, clock.ends if clock is not None else None)
    futile_settings.warn_of_deadline(settings, stream)
    _check_left(settings, stream)
    return Prepared(settings, parts, stream, _borders(settings, segments, examples, targets), clock)


HELD_OUT = 0.2  # of a phone's samples, where models are personal


def with_held_out(settings: config.Config, schedule: Schedule) -> config.Config:
    """The settings with the share that phones hold out decided."""
    if settings.phones.held_out is not None:
        return settings
    return settings.with_values(phones={"held_out": HELD_OUT if schedule.personal else 0.0})


def _with_weights_file(settings: config.Config) -> config.Config:
    weights = settings.model.weights
    if weights is None or not library.is_file(weights):
        return settings
    file = Path(weights).expanduser().absolute()  # actors work in other folders
    return settings.with_values(model={"weights": str(file)})


def _check_held_out(settings: config.Config, partition: partitions.Partition) -> None:
    if not partition.held_out_sizes("test").any():
        allowed = "larger, or fewer phones: no phone has a sample to hold out, and each is evaluated on its own"
        raise SettingsError("phones.held_out", settings.phones.held_out, allowed)


def _check_left(settings: config.Config, stream: Stream) -> None:
    if stream.count_left_out(0) == len(stream.partition):
        raise SettingsError("phones.left_out", settings.phones.left_out, "fewer: no phone is left for the first round")


def _named(settings: config.Config) -> config.Config:
    """Give the run its folder: by name, or that of the run to resume."""
    run = settings.run
    storage = place(run.storage_path)
    if run.resume not in ("never", "auto"):
        folder = _absolute(place(run.resume))
        return settings.with_values(run={"name": folder.name, "storage_path": full(folder.parent)})
    if isinstance(storage, Path) and not storage.is_absolute() and "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        allowed = "absolute (or ~/..., or a URI) in a Ray job: its working directory is Ray's cache, and is thrown away"
        raise SettingsError("run.storage_path", run.storage_path, allowed)
    if run.name is None and run.resume == "auto":
        raise SettingsError("run.name", None, "the name of the run to resume")
    stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
    model = settings.model.name.replace("/", ":").rpartition(":")[2]
    name = run.name or f"{model[:100].strip()}_{settings.schedule.name.rpartition(':')[2][:100]}_{stamp}"
    return settings.with_values(run={"name": name, "storage_path": full(_absolute(storage))})


def _absolute(folder: Place) -> Place:
    return folder.absolute() if isinstance(folder, Path) else folder


def _classes(settings: config.Model, parts: data.Parts) -> int | None:
    """As many classes as the data has, or as the settings say if that is no fewer; of values as many as a label has."""
    there = parts.num_classes
    if settings.num_classes is None and there is None:
        return outputs_of(parts.train.labels)
    if settings.num_classes is not None and there is not None and settings.num_classes < there:
        raise SettingsError("model.num_classes", settings.num_classes, f"at least {there}, as the labels have")
    return settings.num_classes if settings.num_classes is not None else there


def _model(settings: config.Config) -> nn.Module:
    """The model with the weights that it begins with."""
    registry.check_memory(settings.model)
    model = registry.build(settings.model, settings.run.seed)
    if kept := pretrained.load(model, settings.model):
        logger.warning("not in %s, so as first drawn: %s", settings.model.weights, ", ".join(kept))
    return model


def _try(
    settings: config.Config, model: nn.Module, parts: data.Parts, stream: Stream
) -> tuple[Segments, list[torch.Tensor], torch.Tensor]:
    """Cut the model, and take a training step's forward with the smallest and the largest batch of the stream.

    Returns the segments, these batches' inputs, and the largest one's labels.
    """
    cuts = settings.model.cuts or []
    if not 1 <= len(cuts) <= 2:
        raise SettingsError("model.cuts", cuts, "one layer (single split) or two, as first,last (double split)")
    if len(cuts) == 1 and "c" in settings.model.freeze:
        raise SettingsError("model.freeze", settings.model.freeze, "a or b: with one cut there is no c")
    batches, examples = Batches(settings, parts), list[torch.Tensor]()
    for i, size in enumerate(sorted(_batch_sizes(stream))):
        inputs, labels = _example(settings, batches, stream.partition.indices[:size])
        example, targets = torch.from_numpy(inputs), torch.from_numpy(labels)
        outputs = _forward(settings, model, example, stream)
        examples.append(example)
        if not i:
            segments = cut(model, cuts, example)
        try_loss(settings, outputs, targets)
    try_metrics(settings, _forward(settings, model, example, stream, training=False), targets)
    _try_test(settings, model, parts, stream)
    return segments, examples, targets


def _borders(
    settings: config.Config, segments: Segments, examples: list[torch.Tensor], targets: torch.Tensor
) -> Contract:
    try:
        return contract(settings, segments, examples, targets)
    except MISFITS as error:
        allowed = f"others: what crosses is checked, and must have a shape that follows from the batch size ({error})"
        raise SettingsError("model.cuts", settings.model.cuts, allowed) from error


def _example(settings: config.Config, batches: Batches, indices: Array) -> tuple[Array, Array]:
    try:
        return batches.example(indices)
    except SettingsError:
        raise
    except MISFITS as error:
        allowed = f"a data set whose samples can be read: {told(error)}"
        raise SettingsError("data.name", settings.data.name, allowed) from error


def _batch_sizes(stream: Stream) -> set[int]:
    """The smallest and the largest batch of the stream."""
    there = [phone for phone in range(len(stream.partition)) if not stream.is_left_out(phone, 0)]
    samples = np.unique(stream.samples(there))
    full, rest = np.divmod(samples, stream.batch_size)
    reaches_rest = (rest > 0) & ((stream.local_steps or len(samples) + full) > full)
    sizes = np.concatenate([rest[reaches_rest], np.full(int((full > 0).any()), stream.batch_size)])
    return {int(sizes.min()), int(sizes.max())}


def _held_out_sizes(settings: config.Config, stream: Stream) -> list[int]:
    """On how many of their own samples at a time phones may be evaluated, the fewest and the most."""
    most = max(int(stream.partition.held_out_sizes(part).max(initial=0)) for part in ("val", "test"))
    return sorted({1, min(most, settings.data.eval_batch_size)}) if most else []


def _try_test(settings: config.Config, model: nn.Module, parts: data.Parts, stream: Stream) -> None:
    """Evaluate two test samples, where these are of another shape or type than those to train on."""
    wanted, found = (_kind(part) for part in (parts.train, parts.test))
    if wanted == found:
        return
    try:
        inputs, labels = (torch.from_numpy(array) for array in parts.batch("test", slice(0, 2)))
        try_metrics(settings, _forward(settings, model, inputs, stream, training=False), labels)
    except MISFITS as error:
        why = error.allowed if isinstance(error, SettingsError) else told(error)
        allowed = f"a data set whose test samples are as the training samples, {wanted}, not {found} ({why})"
        raise SettingsError("data.name", settings.data.name, allowed) from error


def _kind(part: data.Part) -> str:
    inputs, labels = part
    return f"{inputs.shape[1:]} of {inputs.dtype} with labels {labels.shape[1:]} of {labels.dtype}"


def _forward(
    settings: config.Config, model: nn.Module, example: torch.Tensor, stream: Stream, training: bool = True
) -> Any:
    made = copy.deepcopy(model).train(training)
    kept = keeps_its_state(made, settings.model.name, schedule_of(settings.schedule).averages)
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad(), kept:
            return made(example)
    except SettingsError:
        raise
    except BROKEN as error:
        raise misfit(settings, stream, example, error) from error
