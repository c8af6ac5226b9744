"""What a model is planned for: how many classes, and the shape of a sample, as set, or as a data set has them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from ray_split import config
from ray_split.costs.position_costs import PositionCosts, scan, weightless
from ray_split.data.load import Parts, load
from ray_split.data.sequences import Padded
from ray_split.errors import SettingsError
from ray_split.experiments.plan.settings import Settings
from ray_split.models.registry import takes_classes
from ray_split.preparation.settings.data_sizes import with_sizes, with_tokenizer

USUAL_LENGTH = 128
"""Tokens of a sample, as data.name text has them."""


class Sample(NamedTuple):
    """Shape and type of a sample, and the setting that they are from."""

    shape: list[int]
    dtype: torch.dtype
    told_by: str

    @property
    def text(self) -> str:
        """The shape, for people."""
        return "x".join(map(str, self.shape)) or "1"


def scanned(settings: Settings) -> tuple[PositionCosts, str]:
    """What every position costs, and a line that says for what. Raises SettingsError."""
    _check(settings)
    told, parts = _told(settings)
    model = weightless(told)
    sample = _as_set(settings, model) if parts is None else _of_data(settings, parts)
    try:
        return scan(model, sample.shape, settings.batch, sample.dtype), _line(settings, told, sample, parts)
    except SettingsError as error:
        raise _not_taken(settings, sample, error) from error


def _check(settings: Settings) -> None:
    """What would count for nothing, or twice."""
    data = settings.data
    for field, value in {"path": data.path, "kwargs": data.kwargs}.items():
        if value and data.name is None:
            raise SettingsError(f"data.{field}", value, "Add --data.name NAME", "needs the name of a data set")
    if data.max_length is None:
        return
    if data.name is not None:
        do = f"Write --data.kwargs '{{max_length: {data.max_length}}}', if {data.name} takes that"
        raise SettingsError("data.max_length", data.max_length, do, "can't be set beside data.name")
    if "input" in settings.model_fields_set:
        raise SettingsError("data.max_length", data.max_length, "Set one of the two", "can't be set beside input")


def _told(settings: Settings) -> tuple[config.Model, Parts | None]:
    """The model as training would have it, and the data, if a data set is named. Raises SettingsError."""
    model, data = settings.model.built(), settings.data
    if data.name is None:
        shape = settings.input if data.max_length is None else [data.max_length]
        return model.model_copy(update={"input_shape": shape}), None
    own = model if "num_classes" in settings.model.model_fields_set else model.model_copy(update={"num_classes": None})
    read = {"name": data.name, "path": data.path, "kwargs": data.kwargs}
    whole = with_tokenizer(config.Config(model=own.model_dump(), data=read))
    parts = load(whole.data)
    told = with_sizes(whole, parts).model
    other = "input" in settings.model_fields_set and parts.sequences is None
    return told.model_copy(update={"input_shape": settings.input}) if other else told, parts


def _as_set(settings: Settings, model: nn.Module) -> Sample:
    """A sample as the settings say, for a model that reads tokens or doesn't."""
    length, shape_given = settings.data.max_length, "input" in settings.model_fields_set
    reads_tokens = getattr(model, "main_input_name", None) == "input_ids"
    if length is None and not (reads_tokens and not shape_given):
        return Sample(settings.input, torch.int64 if reads_tokens else torch.float32, "input")
    return Sample([length or USUAL_LENGTH], torch.int64, "data.max_length")


def _of_data(settings: Settings, parts: Parts) -> Sample:
    """A sample of the data, in the shape that is set, if one is. Raises SettingsError."""
    inputs, _ = parts.batch("train", slice(0, 1))
    given, sequences = "input" in settings.model_fields_set, parts.sequences
    if sequences is not None and not given:
        name, longest = settings.data.name, int(sequences.lengths.max())
        such = "x".join(str(longest if size is None else size) for size in sequences.shape[1:])
        do = f"Add --input with the shape of a long one, such as --input {such}"
        raise SettingsError("data.name", name, do, f"the samples of {name} have different lengths")
    values = torch.from_numpy(inputs.values if isinstance(inputs, Padded) else inputs)
    shape = settings.input if given else list(values.shape[1:])
    return Sample(shape, values.dtype, "input" if given else "data.name")


def _line(settings: Settings, told: config.Model, sample: Sample, parts: Parts | None) -> str:
    """What is planned for, and the flags that say so; without classes of a model that isn't told how many."""
    count, is_set = told.num_classes, "num_classes" in settings.model.model_fields_set
    classes_told_by = "data.name" if parts is not None and not is_set else "model.num_classes"
    values = parts is not None and parts.num_classes is None
    word = ("output" if values else "class") if count == 1 else ("outputs" if values else "classes")
    tokens = " tokens" if sample.told_by == "data.max_length" else ""
    said = [
        *([(f"{count} {word}", classes_told_by)] if count is not None and takes_classes(told) else []),
        (f"inputs of {sample.text}{tokens}", sample.told_by),
        (f"batch {settings.batch}", "batch"),
    ]
    flags = dict.fromkeys(f"--{flag}" for _, flag in said)
    return f"for {', '.join(text for text, _ in said)} ({', '.join(flags)})"


def _not_taken(settings: Settings, sample: Sample, error: SettingsError) -> SettingsError:
    """What is said of a model that can't take a sample of a shape that nobody set, or that the data has."""
    if error.field != "input" or "input" in settings.model_fields_set:
        return error
    if sample.told_by == "data.name":
        wrong = f"the samples of {settings.data.name} have the shape {sample.text}, and {error.wrong}"
        return SettingsError("model.name", settings.model.name, "Choose a model that fits this data", wrong)
    if sample.told_by == "input":
        wrong = f"is not set, so {sample.text} is assumed, and {error.wrong}"
        do = "Give the shape of one sample, such as --input 3x224x224, or name the data: --data.name NAME"
        return SettingsError("input", None, do, wrong)
    return error
