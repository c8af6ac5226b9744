"""What a task's settings leave open, and whether they suit the model and its data. Raises SettingsError."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import torch

from ray_split import config, logs
from ray_split.arrays import Array
from ray_split.config.user_code.by_value import spoken
from ray_split.errors import BROKEN, SettingsError, told
from ray_split.messages.labels import IGNORED
from ray_split.messages.message import leaves, tree_map
from ray_split.segments.autograd import can_have_gradient
from ray_split.tasks.losses import LOSSES, CrossEntropy
from ray_split.tasks.task import OwnScore, Task, heads, main_head

logger = logs.get(__name__)

SAME = 1e-3  # but for rounding
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
        wrong = "can't be balanced, because the labels aren't classes"
        raise SettingsError("task.class_weights", "balanced", "Remove task.class_weights", wrong)
    counts = np.bincount(labels[labels != IGNORED], minlength=classes)
    if not counts.all():
        wrong = f"can't be balanced, because class {int(counts.argmin())} has no training sample"
        raise SettingsError("task.class_weights", "balanced", f"Give a list of {classes} weights", wrong)
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
        wrong = f"with num_classes {given}, {error.wrong or error}"
        allowed = f"Remove num_classes from model.kwargs: model.num_classes already sets {wanted}"
        raise SettingsError("model.kwargs", settings.model.kwargs, allowed, wrong) from error


def _try_loss(settings: config.Config, outputs: Any, labels: torch.Tensor) -> None:
    task = settings.task
    _check_classes(settings, outputs, labels)
    as_in_training = tree_map(_with_gradient, outputs)
    made = Task(task, settings.data.mixup is not None)
    try:
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.filterwarnings("error", message="Using a target size")  # torch would broadcast
            value = made.loss(as_in_training, labels)
        made.correct(outputs, labels)
    except BROKEN as error:
        wrong = f"{spoken(task.loss)} can't take {_shapes(outputs, labels)}: {told(error)}"
        allowed = _hint(settings, outputs, labels) or "Choose a loss, or a model, that fits"
        raise SettingsError("task.loss", task.loss, allowed, wrong) from error
    if not isinstance(value, torch.Tensor) or value.dim():
        raise SettingsError(
            "task.loss",
            task.loss,
            "Return a tensor with one number, such as loss.mean()",
            f"{spoken(task.loss)} returned {_kind_of(value)}",
        )
    if not value.requires_grad:
        wrong = f"the loss from {spoken(task.loss)} has no gradient"
        without = "without detach, item, argmax or no_grad"
        do = f"Compute it from the model's outputs with torch functions only, {without}"
        raise SettingsError("task.loss", task.loss, do, wrong)
    if task.loss not in LOSSES:
        _check_finite(task.loss, value, as_in_training)


def _check_finite(name: str, value: torch.Tensor, outputs: Any) -> None:
    """A loss of the user's that is no number from the first batch on would be told of as a phone's gradient."""
    there = [each for each in leaves(outputs) if isinstance(each, torch.Tensor)]
    finite = all(bool(each.isfinite().all()) for each in there)
    if not finite or bool(value.isfinite()):
        return
    wanted = [each for each in there if each.requires_grad]
    gradients = torch.autograd.grad(value, wanted, allow_unused=True)
    if not all(each is None or bool(each.isfinite().all()) for each in gradients):
        wrong = f"{spoken(name)} is {value.item()} for the first batch, though the model's outputs are finite"
        raise SettingsError("task.loss", name, "Look for a division by 0, or the logarithm of 0, in it", wrong)


def _kind_of(value: Any) -> str:
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else f"a {type(value).__name__}"


def _with_gradient(output: Any) -> Any:
    if not isinstance(output, torch.Tensor):
        return output
    return output.detach().requires_grad_(can_have_gradient(output))


def _hint(settings: config.Config, outputs: Any, labels: torch.Tensor) -> str:
    """What may be the matter with labels (n, D) of classes."""
    if settings.task.loss == "cross_entropy" and _are_tokens(outputs, labels):
        return OF_TOKENS
    if settings.task.loss != "cross_entropy" or labels.dim() != 2 or labels.is_floating_point():
        return ""
    instead = "labels.ravel()" if labels.shape[1] == 1 else "labels.argmax(1), if they are one-hot"
    return f"Return {instead} from {spoken(settings.data.name)}"


OF_TOKENS = "Set task.loss to token_cross_entropy, if these are a label and scores of its classes for each token"


def _are_tokens(outputs: Any, labels: torch.Tensor) -> bool:
    """Whether labels (n, T) and outputs (n, T, C) look like those of tokens."""
    scores = main_head(outputs)
    whole = labels.dim() == 2 and not labels.is_floating_point()
    return whole and scores is not None and scores.dim() == 3 and scores.shape[:2] == labels.shape


def _check_classes(settings: config.Config, outputs: Any, labels: torch.Tensor) -> None:
    """As many weights as classes, and no fewer scores than classes: training would fail when one comes up."""
    task, classes = settings.task, settings.model.num_classes
    loss, scores = LOSSES.get(task.loss), main_head(outputs)
    if not isinstance(loss, CrossEntropy) or scores is None or scores.dim() < 2:
        return
    there = scores.shape[loss.classes]
    if task.class_weights is not None and len(task.class_weights) != there:
        wrong = f"has {len(task.class_weights)} weights, but there are {there} classes"
        raise SettingsError(
            "task.class_weights", task.class_weights, f"Give {there} weights, one for each class", wrong
        )
    if classes is not None and there < classes:
        at = "the last" if loss.classes == -1 else "the second"
        wrong = (
            f"the model's outputs have the shape {tuple(scores.shape)}, but need {classes} classes in {at} dimension"
        )
        tokens = loss.classes == 1 and _are_tokens(outputs, labels)
        do = OF_TOKENS if tokens else f"Return {classes} scores there from the model"
        raise SettingsError("task.loss", task.loss, do, wrong)


def try_metrics(settings: config.Config, outputs: Any, labels: torch.Tensor) -> None:
    """Take the loss and the metrics of a batch's outputs in eval mode."""
    task = Task(settings.task)
    for name, score in task.own_scores().items():
        _check_number(settings, name, score, outputs, labels)
    try:
        task.figures(task.tallies(outputs, labels))
    except BROKEN as error:
        wrong = f"can't be computed from {_shapes(outputs, labels)}: {told(error)}"
        raise SettingsError("task.metrics", settings.task.metrics, "Choose other metrics", wrong) from error


def _check_number(settings: config.Config, name: str, score: OwnScore, outputs: Any, labels: torch.Tensor) -> None:
    """A metric of the user's gives a number; and of the same samples twice the same one, if it is a mean."""
    try:
        value = score(outputs, labels)
    except BROKEN as error:
        wrong = f"{name} can't be computed from {_shapes(outputs, labels)}: {told(error)}"
        raise SettingsError("task.metrics", settings.task.metrics, "Fix it, or choose other metrics", wrong) from error
    try:
        float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        wrong = f"{name} returned {'nothing' if value is None else _kind_of(value)}"
        do = "Return one number, the mean over the batch"
        raise SettingsError("task.metrics", settings.task.metrics, do, wrong) from error


def warn_of_sums(settings: config.Config, outputs: Any, labels: torch.Tensor) -> None:
    """Say which of the user's loss and metrics is a sum over the batch, where phones weigh in by their samples."""
    task = Task(settings.task, settings.data.mixup is not None)
    own: dict[str, OwnScore] = {} if settings.task.loss in LOSSES else {"task.loss": task.loss}
    for name, function in {**own, **task.own_scores()}.items():
        if _is_sum(function, outputs, labels):
            shown = settings.task.loss if name == "task.loss" else name
            logger.warning("%s is twice as large for the same samples twice: it should be the batch's mean", shown)


def _is_sum(function: OwnScore, outputs: Any, labels: torch.Tensor) -> bool:
    def doubled(value: Any) -> Any:
        per_sample = isinstance(value, torch.Tensor) and value.dim() and len(value) == len(labels)
        return torch.cat([value, value]) if per_sample else value

    try:
        with torch.no_grad():
            once = float(function(outputs, labels))
            twice = float(function(tree_map(doubled, outputs), doubled(labels)))
    except BROKEN:  # it is made for batches of another size than this: there is nothing to say of it
        return False
    return abs(once) > 0 and math.isfinite(once) and abs(twice / once - 2) < SAME


def _shapes(outputs: Any, labels: torch.Tensor) -> str:
    try:
        shapes = " and ".join(str(tuple(head.shape)) for head in heads(outputs))
    except TypeError:
        shapes = type(outputs).__name__
    return f"outputs {shapes} and labels {tuple(labels.shape)} of {labels.dtype}"
