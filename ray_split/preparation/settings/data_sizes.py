"""What a model is told of its data: how many classes there are, the shape of a sample, in whose tokens text is."""

from __future__ import annotations

from ray_split import config
from ray_split.config.default_models import TEXTS
from ray_split.data.types import Parts
from ray_split.errors import SettingsError
from ray_split.models import registry, transformers_by_name
from ray_split.preparation.settings.task_settings import outputs_of


def with_tokenizer(settings: config.Config) -> config.Config:
    """Text is in the tokens of the model that is to read it, where nothing says another."""
    data, model = settings.data, settings.model
    if data.name not in TEXTS or "tokenizer" in data.kwargs or not model.name.startswith(transformers_by_name.TRAINED):
        return settings
    where = {key: model.kwargs[key] for key in ("gguf_file",) if key in model.kwargs}
    tokenizer = {"tokenizer": model.name.removeprefix(transformers_by_name.TRAINED), **where}
    return settings.with_values(data={"kwargs": {**tokenizer, **data.kwargs}})


def with_sizes(settings: config.Config, parts: Parts) -> config.Config:
    """The settings with what the model is told of these data. Raises SettingsError."""
    model = settings.model
    sizes = {"num_classes": _classes(model, parts), "input_shape": _input_shape(model, parts)}
    return settings.with_values(model=sizes)


def _classes(settings: config.Model, parts: Parts) -> int | None:
    """As many classes as the data has, or as the settings say if that is no fewer; of values as many as a label has."""
    there = parts.num_classes
    if settings.num_classes is None and there is None:
        return outputs_of(parts.train.labels)
    if settings.num_classes is not None and there is not None and settings.num_classes < there:
        wrong = f"is {settings.num_classes}, but the labels have {there} classes"
        raise SettingsError("model.num_classes", settings.num_classes, f"Set {there} or more", wrong)
    return settings.num_classes if settings.num_classes is not None else there


def _input_shape(settings: config.Model, parts: Parts) -> list[int | None] | None:
    """Of a sample, for a model that asks for it; of sequences None stands for the length.

    Raises SettingsError if the settings say another.
    """
    shape = list(parts.train.inputs.shape[1:])
    if settings.input_shape not in (None, shape):
        said = ",".join(map(str, shape))
        wrong = f"is {','.join(map(str, settings.input_shape or ()))}, but the samples have the shape {said}"
        raise SettingsError("model.input_shape", settings.input_shape, "Remove model.input_shape", wrong)
    return shape if shape and registry.takes_shape(settings) else None
