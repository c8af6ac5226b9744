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
from ray_split.algorithms import checks as algorithms
from ray_split.arrays import Array
from ray_split.config.user_code import by_value
from ray_split.config.user_code.by_value import spoken
from ray_split.config.user_code.plugins import with_main
from ray_split.costs.schedule_trial import try_schedule
from ray_split.costs.virtual_clock import Clock
from ray_split.cutting.cut import Segments, cut
from ray_split.cutting.model_inputs import values_of, whole
from ray_split.data import load as data
from ray_split.data import partitions
from ray_split.data.batches import Batches
from ray_split.data.length_groups import lengths_of
from ray_split.data.stream import Stream
from ray_split.data.types import Inputs
from ray_split.errors import BROKEN, MISFITS, SettingsError, first_line, shown, told
from ray_split.filesystem import Place, full, place
from ray_split.messages.contract import Contract
from ray_split.messages.message import tree_map
from ray_split.models import library, pretrained, registry, transformers_by_name
from ray_split.preparation.cohorts import settle
from ray_split.preparation.data_checks import check_data, warn_of_large
from ray_split.preparation.settings import futile_settings, named_callbacks
from ray_split.preparation.settings.contrast_settings import check_representation
from ray_split.preparation.settings.data_sizes import with_sizes, with_tokenizer
from ray_split.preparation.settings.evaluation_settings import settle_evaluation
from ray_split.preparation.settings.optimizer_settings import check_end, check_optimizers, try_hand_over
from ray_split.preparation.settings.rank_settings import check_adapters, settle_ranks
from ray_split.preparation.settings.remote_settings import check_layers, check_remote
from ray_split.preparation.settings.server_settings import (
    check_checkpointing,
    check_compiled,
    check_compiled_stack,
    check_dtypes,
)
from ray_split.preparation.settings.stop_settings import check_stop
from ray_split.preparation.settings.task_settings import (
    check_names,
    settle_task,
    try_loss,
    try_metrics,
    warn_of_sums,
)
from ray_split.preparation.settings.tied_settings import check_tied
from ray_split.preparation.settings.virtual_time_settings import clock_of, described, fitting
from ray_split.preparation.trials.contract import contract
from ray_split.preparation.trials.crossing import check_crossing, check_values
from ray_split.preparation.trials.misfit import misfit
from ray_split.preparation.trials.sequence_examples import check_sequences, labels_for, longest, shortest, with_mask
from ray_split.preparation.trials.state_kept import keeps_its_state
from ray_split.schedules import schedule_of
from ray_split.schedules.schedule import Schedule
from ray_split.segments import aggregators
from ray_split.segments.segment_work import SegmentWork, segment_work

logger = logs.get(__name__)


class Prepared(NamedTuple):
    """A run's settings without a blank, its data, and its stream."""

    settings: config.Config
    parts: data.Parts
    stream: Stream
    contract: Contract
    clock: Clock | None = None  # of virtual time, if phones, link and server are described
    work: SegmentWork | None = None  # of an exchange on each side of the cuts


def prepare(settings: config.Config) -> Prepared:
    """Fill in what follows from the data and the model, and try the model on its data. Raises SettingsError."""
    # 1. Where the run's folder and its files are.
    settings = _with_model_folder(_with_weights_file(_named(with_main(settings))))
    # 2. What can be checked and decided without data.
    futile_settings.check_written(settings)
    futile_settings.check_chances(settings)
    schedule = schedules.check(settings)
    futile_settings.warn_of_unused(settings)
    settings = settle_ranks(settings, schedule)
    aggregators.check(settings.aggregator, schedule.averages, settings.schedule.name)
    algorithms.check(settings, schedule)
    check_names(settings.task)
    check_optimizers(settings)
    named_callbacks.check(settings.run)
    check_remote(settings)
    settings = described(with_held_out(settings, schedule))
    # 3. The data, and which samples are whose.
    settings = with_tokenizer(settings)
    parts = data.load(settings.data)
    settings = settings.with_values(data={"name": by_value.loaded(settings.data.name, parts)})
    partition = partitions.deal(settings, parts.train.labels, parts.groups)
    if schedule.personal:
        _check_held_out(settings, partition)
    # 4. The stream.
    apart, lengths = parts.sequences is not None, lengths_of(settings, parts)
    stream = Stream(settings, partition, schedule.order, apart=apart, lengths=lengths)
    _check_left(settings, stream)
    futile_settings.check_steps(settings, stream)
    check_data(settings, parts, stream)
    check_sequences(settings, parts)
    # 5. The model, what it is to learn, and where it is cut.
    settings = with_sizes(settings, parts)
    model = _model(settings)
    settings = settings.with_values(model={"cuts": registry.cuts_of(settings.model, model)})
    settings = with_mask(settings, model, parts)
    try_schedule(settings, stream)  # a round of it, with no actors
    settings = settle_task(settings, parts.train.labels)
    segments, examples, targets, scored = _try(settings, model, parts, stream)
    settings = settle_evaluation(settings, scored, examples)
    warn_of_large(settings, values_of(examples[-1]))
    shorter = shortest(parts, examples)
    for batch in shorter:
        _forward(settings, model, batch, stream)
    futile_settings.check_segments(settings, segments)
    check_tied(settings, segments)
    check_adapters(settings, segments)
    try_hand_over(settings, segments)
    check_dtypes(settings, segments)
    check_crossing(settings, segments, examples[-1])
    check_checkpointing(settings, segments, examples[-1])
    check_compiled(settings, segments, examples[-1])
    check_representation(settings, segments, examples[-1])
    check_layers(settings, segments, parts)
    # 6. How many phones train together, and which segments are computed for all of them at once.
    held_out = _held_out_sizes(settings, stream) if schedule.personal else []
    settings = settle(settings, segments, examples, stream.per_round, held_out)
    check_compiled_stack(settings, segments)
    check_values(settings, segments, examples[-1])
    # 7. Virtual time: whom training fits, and who comes too late.
    clock = clock_of(settings, segments, examples, targets)
    if clock is not None:
        settings = fitting(settings, examples[-1])
    # 8. The stream of the settings as they are now.
    times = clock.ends if clock is not None else None
    stream = Stream(settings, partition, schedule.order, times, apart, lengths)
    futile_settings.warn_of_deadline(settings, stream)
    check_end(settings, stream)
    _check_left(settings, stream)
    check_stop(settings, parts, partition)
    borders = _borders(settings, segments, examples, targets, shorter, parts.has_labels_by_step)
    work = segment_work(segments.modules(), examples[-1], schedule.on_server)
    return Prepared(settings, parts, stream, borders, clock, work)


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


def _with_model_folder(settings: config.Config) -> config.Config:
    where = transformers_by_name.folder_of(settings.model.name)
    if where is None:
        return settings
    return settings.with_values(model={"name": f"{transformers_by_name.TRAINED}{where.absolute()}"})


def _check_held_out(settings: config.Config, partition: partitions.Partition) -> None:
    if not partition.held_out_sizes("test").any():
        wrong = f"is {settings.phones.held_out:g}, which leaves no phone a sample to hold out"
        raise SettingsError(
            "phones.held_out", settings.phones.held_out, "Raise phones.held_out, or lower phones.count", wrong
        )


NONE_LEFT = "leaves out all phones of the first round"


def _check_left(settings: config.Config, stream: Stream) -> None:
    if stream.count_left_out(0) == len(stream.partition):
        raise SettingsError("phones.left_out", settings.phones.left_out, "Leave out fewer phones", NONE_LEFT)


def _named(settings: config.Config) -> config.Config:
    """Give the run its folder: by name, or that of the run to resume."""
    run = settings.run
    storage = place(run.storage_path)
    if run.resume not in ("never", "auto"):
        folder = _absolute(place(run.resume))
        return settings.with_values(run={"name": folder.name, "storage_path": full(folder.parent)})
    if isinstance(storage, Path) and not storage.is_absolute() and "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        wrong = f"in a Ray job, {shown(run.storage_path)} would be in Ray's cache, which is deleted afterwards"
        raise SettingsError("run.storage_path", run.storage_path, "Set an absolute path, ~/..., or a URI", wrong)
    if run.name is None and run.resume == "auto":
        do = "Add --run.name NAME. 'ray-split runs' lists the names"
        raise SettingsError("run.resume", None, do, "needs the name of the run to resume")
    stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
    model = settings.model.name.replace("/", ":").rpartition(":")[2]
    if transformers_by_name.is_named(settings.model.name):
        model = transformers_by_name.short_name(settings.model.name)
    name = run.name or f"{model[:100].strip()}_{settings.schedule.name.rpartition(':')[2][:100]}_{stamp}"
    return settings.with_values(run={"name": name, "storage_path": full(_absolute(storage))})


def _absolute(folder: Place) -> Place:
    return folder.absolute() if isinstance(folder, Path) else folder


def _model(settings: config.Config) -> nn.Module:
    """The model with the weights that it begins with."""
    registry.check_memory(settings.model)
    model = registry.build(settings.model, settings.run.seed)
    if settings.model.lora.r is not None:
        return model  # whose base has them already
    if kept := pretrained.load(model, settings.model):
        logger.warning("not in %s, so as first drawn: %s", settings.model.weights, ", ".join(kept))
    return model


def _try(
    settings: config.Config, model: nn.Module, parts: data.Parts, stream: Stream
) -> tuple[Segments, list[Any], torch.Tensor, Any]:
    """Cut the model, and take a training step's forward with the smallest and the largest batch of the stream.

    Returns the segments, these batches' inputs, and the largest one's labels and outputs in eval mode.
    """
    cuts = settings.model.cuts or []
    if not 1 <= len(cuts) <= 2:
        allowed = "Name one layer to make two parts, or two, such as first,second, to make three"
        raise SettingsError("model.cuts", cuts, allowed, f"has {len(cuts)} layers, but must have one or two")
    if len(cuts) == 1 and "c" in settings.model.freeze:
        raise SettingsError(
            "model.freeze",
            settings.model.freeze,
            "Freeze a or b, or cut after two layers",
            "can't contain c, because with one cut there are only a and b",
        )
    batches, examples = Batches(settings, parts), list[Any]()
    for i, size in enumerate(sorted(_batch_sizes(stream))):
        inputs, labels = _example(settings, batches, stream.partition.indices[:size])
        example, targets = tree_map(torch.from_numpy, inputs), torch.from_numpy(labels)
        example = longest(parts, example) if parts.sequences is not None else example
        targets = labels_for(parts, example, targets)
        outputs = _forward(settings, model, example, stream)
        examples.append(example)
        if not i:
            segments = cut(model, cuts, example, settings.model.mask)
        try_loss(settings, outputs, targets)
    scored, unmixed = _forward(settings, model, example, stream, training=False), _unmixed(parts, stream, targets)
    try_metrics(settings, scored, labels_for(parts, example, unmixed))
    warn_of_sums(settings, scored, targets)
    _try_test(settings, model, parts, stream)
    return segments, examples, targets, scored


def _unmixed(parts: data.Parts, stream: Stream, targets: torch.Tensor) -> torch.Tensor:
    """Labels of as many samples as they are evaluated with."""
    return torch.from_numpy(parts.labels("train", stream.partition.indices[: len(targets)]))


def _borders(
    settings: config.Config,
    segments: Segments,
    examples: list[Any],
    targets: torch.Tensor,
    shorter: list[Any],
    by_step: bool,
) -> Contract:
    try:
        return contract(settings, segments, examples, targets, shorter, by_step)
    except MISFITS as error:
        wrong = (
            f"can't cut there, because the shape that crosses doesn't follow from the batch size: {first_line(error)}"
        )
        raise SettingsError("model.cuts", settings.model.cuts, "Cut after other layers", wrong) from error


def _example(settings: config.Config, batches: Batches, indices: Array) -> tuple[Inputs, Array]:
    try:
        return batches.example(indices)
    except SettingsError:
        raise
    except MISFITS as error:
        wrong = f"a sample of {spoken(settings.data.name)} can't be read: {told(error)}"
        raise SettingsError("data.name", settings.data.name, "Fix that sample, or leave it out", wrong) from error


def _batch_sizes(stream: Stream) -> set[int]:
    """The smallest and the largest batch of the stream."""
    there = [phone for phone in range(len(stream.partition)) if not stream.is_left_out(phone, 0)]
    samples = np.unique(stream.samples(there))
    full, rest = np.divmod(samples, stream.batch_size)
    reaches_rest = (rest > 0) & ((stream.local_steps or len(samples) + full) > full) & (not stream.drops_last)
    sizes = np.concatenate([rest[reaches_rest], np.full(int((full > 0).any()), stream.batch_size)])
    return {int(sizes.min()), int(sizes.max())}


def _held_out_sizes(settings: config.Config, stream: Stream) -> list[int]:
    """On how many of their own samples at a time phones may be evaluated, the fewest and the most."""
    most = max(int(stream.partition.held_out_sizes(part).max(initial=0)) for part in ("val", "test"))
    return sorted({1, min(most, int(settings.data.eval_batch_size))}) if most else []


def _try_test(settings: config.Config, model: nn.Module, parts: data.Parts, stream: Stream) -> None:
    """Evaluate two test samples, where these are of another shape or type than those to train on."""
    wanted, found = (_kind(part) for part in (parts.train, parts.test))
    if wanted == found:
        return
    try:
        inputs, labels = (tree_map(torch.from_numpy, each) for each in parts.batch("test", slice(0, 2)))
        try_metrics(settings, _forward(settings, model, inputs, stream, training=False), labels)
    except MISFITS as error:
        why = (error.wrong or str(error)) if isinstance(error, SettingsError) else told(error)
        wrong = (
            f"the test samples of {spoken(settings.data.name)} are {found}, but the training samples {wanted} ({why})"
        )
        raise SettingsError(
            "data.name", settings.data.name, "Return the same shapes and types in both", wrong
        ) from error


def _kind(part: data.Part) -> str:
    inputs, labels = part
    return f"{inputs.shape[1:]} of {inputs.dtype} with labels {labels.shape[1:]} of {labels.dtype}"


def _forward(settings: config.Config, model: nn.Module, example: Any, stream: Stream, training: bool = True) -> Any:
    made = copy.deepcopy(model).train(training)
    kept = keeps_its_state(made, settings.model.name, schedule_of(settings.schedule).averages)
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad(), kept:
            return whole(made, example, settings.model.mask)
    except SettingsError:
        raise
    except BROKEN as error:
        raise misfit(settings, stream, example, error) from error
