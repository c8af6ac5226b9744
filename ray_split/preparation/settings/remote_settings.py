"""With phones outside the cluster: what their devices can't do is refused before any of them joins."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from ray_split import config
from ray_split.algorithms import algorithm_of
from ray_split.config.phones import Phones
from ray_split.config.user_code.by_value import spoken
from ray_split.cutting.cut import Segments
from ray_split.data.load import Parts
from ray_split.devices.layers import LayerError
from ray_split.devices.welcome import OPTIMIZERS, layers_of
from ray_split.errors import SettingsError, listed
from ray_split.schedules import schedule_of

DEFAULTS = Phones()
WITHOUT = "devices can't do that"


class _Wish(NamedTuple):
    """A setting that remote phones can't have: its field and value, whether it is set, and what to do instead."""

    field: str
    value: Any
    is_set: bool
    do: str


def check_remote(settings: config.Config) -> None:
    """See that the settings, without data and model, suit phones on devices. Raises SettingsError."""
    gateway = settings.gateway
    if (gateway.key is None) != (gateway.certificate is None):
        field = "key" if gateway.key is None else "certificate"
        raise SettingsError(
            f"gateway.{field}", None, "Set gateway.certificate and gateway.key, or neither", "is not set"
        )
    if not settings.phones.remote_phones:
        _check_unused(settings)
        return
    if settings.run.min_phones > settings.phones.count:
        wrong = f"is {settings.run.min_phones}, but there are only {settings.phones.count} phones"
        raise SettingsError("run.min_phones", settings.run.min_phones, "Lower it, or raise phones.count", wrong)
    if gateway.node is not None and settings.cluster.backend != "ray":
        wrong = "can't be used with cluster.backend inprocess, where all is in one process"
        raise SettingsError("gateway.node", gateway.node, "Leave it out", wrong)
    for wish in _wishes(settings):
        if wish.is_set:
            raise SettingsError(wish.field, wish.value, wish.do, f"can't be used with phones.remote: {WITHOUT}")


def _check_unused(settings: config.Config) -> None:
    if settings.phones.remote_samples is not None:
        wrong = "is of no use without phones.remote"
        raise SettingsError("phones.remote_samples", settings.phones.remote_samples, "Set phones.remote", wrong)


def _wishes(settings: config.Config) -> Iterator[_Wish]:
    data, phones, task, model = settings.data, settings.phones, settings.task, settings.model
    schedule = schedule_of(settings.schedule)
    yield _Wish(
        "schedule.name", settings.schedule.name, not schedule.on_server, "Choose one in which B is on the server"
    )
    yield _Wish("model.cuts", model.cuts, model.cuts is not None and len(model.cuts) < 2, "Cut after two layers")
    yield _Wish("model.freeze", model.freeze, bool({"a", "c"} & set(model.freeze)), "Freeze b alone, or nothing")
    yield _Wish("model.lora.r", model.lora.r, model.lora.r is not None, "Remove model.lora")
    yield _Wish("model.backprop", model.backprop, model.backprop != "autograd", "Set autograd")
    for field, value in (("phones.dtype", phones.dtype), ("server.dtype", settings.server.dtype)):
        yield _Wish(field, value, value != "float32", "Set float32")
    yield _Wish("data.augment", data.augment, data.augment is not None, "Remove it")
    yield _Wish("data.mixup", data.mixup, data.mixup is not None, "Remove it")
    yield _Wish("data.accumulate", data.accumulate, data.accumulate > 1, "Set 1")
    yield _Wish("task.loss", spoken(task.loss), task.loss != "cross_entropy", "Set cross_entropy")
    yield _Wish("task.class_weights", task.class_weights, task.class_weights is not None, "Remove it")
    yield _Wish("phones.hostile", phones.hostile, bool(phones.hostile), "Set 0")
    for field in ("device", "link"):
        value = getattr(phones, field)
        yield _Wish(
            f"phones.{field}", value, value != getattr(DEFAULTS, field), "Remove it: real devices have their own"
        )
    algorithm = settings.algorithm
    yield _Wish("algorithm.name", algorithm.name, algorithm_of(algorithm) is not None, "Remove algorithm")
    yield from _of_optimizers(settings)


def _of_optimizers(settings: config.Config) -> Iterator[_Wish]:
    for segment in ("a", "c"):
        own = settings.optimizer.of(segment)
        do = f"Set {listed(OPTIMIZERS, 'or')}"
        yield _Wish("optimizer.name", spoken(own.name), own.name not in OPTIMIZERS, do)
        yield _Wish("optimizer.clip_norm", own.clip_norm, own.clip_norm is not None, "Remove it")
        yield _Wish(
            "optimizer.kwargs", own.kwargs, bool(own.kwargs.get("amsgrad") or own.kwargs.get("maximize")), "Remove it"
        )
        cycles = own.schedule.name in ("CyclicLR", "OneCycleLR")
        yield _Wish("optimizer.schedule.name", own.schedule.name, cycles, "Choose one that sets the lr alone")


def check_layers(settings: config.Config, segments: Segments, parts: Parts) -> None:
    """See that devices can compute A and C, and take the run's samples. Raises SettingsError."""
    if not settings.phones.remote_phones:
        return
    modules: dict[str, nn.Module] = segments.modules()
    cuts = settings.model.cuts
    if "c" not in modules:
        raise SettingsError("model.cuts", cuts, "Cut after two layers", f"can't be used with phones.remote: {WITHOUT}")
    try:
        layers_of(modules)
    except LayerError as error:
        raise SettingsError(
            "model.cuts", cuts, "Cut elsewhere, or remove phones.remote", f"{error} (phones.remote)"
        ) from error
    inputs, labels = parts.train.inputs, parts.train.labels
    plain = isinstance(inputs, np.ndarray) or hasattr(inputs, "dtype")
    if parts.sequences is not None or not plain or labels.ndim != 1 or labels.dtype.kind not in "iu":
        wrong = "devices take samples of one shape with a class each (phones.remote)"
        raise SettingsError(
            "data.name", spoken(settings.data.name), "Choose other data, or remove phones.remote", wrong
        )
