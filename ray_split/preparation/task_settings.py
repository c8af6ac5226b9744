"""What a task's settings leave open, and whether they suit the model and its data. Raises SettingsError."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch

from ray_split import config
from ray_split.arrays import Array
from ray_split.errors import BROKEN, SettingsError, told
from ray_split.messages.labels import IGNORED
from ray_split.messages.message import tree_map
from ray_split.segments.autograd import can_have_gradient
from ray_split.tasks.losses import LOSSES, CrossEntropy
from ray_split.tasks.task import Task, heads, main_head

OF_VALUES = {"mse": ["mae", "r2"], "l1": ["mse", "r2"], "huber": ["mse", "mae", "r2"]}
"""The metrics of a regression by its loss, if none are named: what the loss itself doesn't tell."""


def check_names(settings: config.Task) -> None:
    """See that there is what the settings name, before the data is loaded."""
    weights = [1.0] if settings.class_weights == "balanced" else settings.class_weights
    Task(settings.model_copy(update={"class_weights": weights}))


def settle_task(settings: config.Config, labels: Array) -> config.Config:
    """The settings with metrics and class weights filled in, by the training labels."""
    task = settings.task
    if task.metrics is None and task.loss in OF_VALUES:
        settings = settings.with_values(task={"metrics": OF_VALUES[task.loss]})
    if task.class_weights == "balanced":
        settings = settings.with_values(task={"class_weights": balanced(labels, settings.model.num_classes)})
    return settings


def balanced(labels: Array, classes: int | None) -> list[float]:
    """n / (classes * count) for each class, of labels that are not ignored (scikit-learn's class_weight='balanced')."""
    if classes is None or not np.issubdtype(labels.dtype, np.integer) or (labels[labels != IGNORED] < 0).any():
        raise SettingsError("task.class_weights", "balanced", "left out: the labels aren't classes")
    counts = np.bincount(labels[labels != IGNORED], minlength=classes)
    if not counts.all():
        allowed = f"a list of {classes} weights: class {int(counts.argmin())} has no training sample to count"
        raise SettingsError("task.class_weights", "balanced", allowed)
    weights: list[float] = (counts.sum() / (classes * counts)).tolist()
    return weights


def outputs_of(labels: Array) -> int | None:
    """How many outputs values (n,) or (n, D) want; None of other labels."""
    if labels.ndim > 2 or not np.issubdtype(labels.dtype, np.floating):
        return None
    return 1 if labels.ndim == 1 else labels.shape[1]


def try_loss(settings: config.Config, outputs: Any, labels: torch.Tensor) -> None:
    """Take the loss of a batch's outputs in train mode, which must have a gradient."""
    given, wanted = settings.model.kwargs.get("num_classes"), settings.model.num_classes
    try:
        _try_loss(settings, outputs, labels)
    except SettingsError as error:
        if error.field != "task.loss" or given in (None, wanted):
            raise
        allowed = f"without num_classes, which model.num_classes says: {wanted} here; with {given}, {error.allowed}"
        raise SettingsError("model.kwargs", settings.model.kwargs, allowed) from error


def _try_loss(settings: config.Config, outputs: Any, labels: torch.Tensor) -> None:
    task = settings.task
    _check_classes(settings, outputs)
    as_in_training = tree_map(_with_gradient, outputs)
    try:
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.filterwarnings("error", message="Using a target size")  # torch would broadcast
            value = Task(task).loss(as_in_training, labels)
        Task(task).correct(outputs, labels)
    except BROKEN as error:
        allowed = f"one that takes {_shapes(outputs, labels)}: {told(error)}{_hint(settings, labels)}"
        raise SettingsError("task.loss", task.loss, allowed) from error
    if not isinstance(value, torch.Tensor) or value.dim():
        raise SettingsError("task.loss", task.loss, "a function that returns one number, a tensor")
    if not value.requires_grad:
        allowed = "a function with a gradient: what this one returns has none (detach, item, argmax, no_grad?)"
        raise SettingsError("task.loss", task.loss, allowed)


def _with_gradient(output: Any) -> Any:
    if not isinstance(output, torch.Tensor):
        return output
    return output.detach().requires_grad_(can_have_gradient(output))


def _hint(settings: config.Config, labels: torch.Tensor) -> str:
    """What may be the matter with labels (n, D) of classes."""
    if settings.task.loss != "cross_entropy" or labels.dim() != 2 or labels.is_floating_point():
        return ""
    instead = "labels.ravel()" if labels.shape[1] == 1 else "labels.argmax(1), if they are one-hot"
    return f"; let {settings.data.name} return {instead}"


def _check_classes(settings: config.Config, outputs: Any) -> None:
    """As many weights as classes, and no fewer scores than classes: training would fail when one comes up."""
    task, classes = settings.task, settings.model.num_classes
    loss, scores = LOSSES.get(task.loss), main_head(outputs)
    if not isinstance(loss, CrossEntropy) or scores is None or scores.dim() < 2:
        return
    there = scores.shape[loss.classes]
    if task.class_weights is not None and len(task.class_weights) != there:
        raise SettingsError("task.class_weights", task.class_weights, f"{there} weights, one for each class")
    if classes is not None and there < classes:
        at = "the last" if loss.classes == -1 else "the second"
        allowed = f"one whose outputs {tuple(scores.shape)} have {classes} classes in {at} dimension"
        raise SettingsError("task.loss", task.loss, allowed)


def try_metrics(settings: config.Config, outputs: Any, labels: torch.Tensor) -> None:
    """Take the loss and the metrics of a batch's outputs in eval mode."""
    task = Task(settings.task)
    try:
        task.figures(task.tallies(outputs, labels))
    except BROKEN as error:
        allowed = f"others: of {_shapes(outputs, labels)}, {told(error)}"
        raise SettingsError("task.metrics", settings.task.metrics, allowed) from error


def _shapes(outputs: Any, labels: torch.Tensor) -> str:
    try:
        shapes = " and ".join(str(tuple(head.shape)) for head in heads(outputs))
    except TypeError:
        shapes = type(outputs).__name__
    return f"outputs {shapes} and labels {tuple(labels.shape)} of {labels.dtype}"
