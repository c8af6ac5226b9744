"""What is wrong with a data set's numbers, before a run starts: the rows that are not finite, or have no class.

Rows are named as the user's array has them. Inputs that are read when needed are checked when they are (data/types.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ray_split import config, logs
from ray_split.arrays import Array
from ray_split.config.default_models import TEXTS
from ray_split.config.user_code.by_value import spoken
from ray_split.data.load import Parts, Sequences
from ray_split.data.stream import Stream
from ray_split.data.types import TEST_FRACTION, split_off
from ray_split.errors import SettingsError
from ray_split.messages.labels import IGNORED
from ray_split.tasks.losses import LOSSES, CrossEntropy, Distance, MultiLabel

logger = logs.get(__name__)

NAMES = {"train": "training", "val": "validation", "test": "test"}
AT_ONCE = 2**26
"""Bytes that are looked at together: an array may lie in a file, and be larger than memory."""
MOST_CLASSES = 10**7
LARGE = 1e4
"""Of an input: images as bytes reach 255, and are scaled."""
GAPS = "Fill in missing values (for example with numpy.nan_to_num), or drop those rows"


Bad = Callable[[Array], Array]
"""Which of an array's numbers are bad."""


@dataclass(frozen=True)
class _Checked:
    """What a data set is checked for."""

    settings: config.Config
    parts: Parts
    stream: Stream

    def array(self, part: str, what: str) -> Any:
        """The 'inputs' or 'labels' of a part."""
        return getattr(getattr(self.parts, part), what)

    @property
    def count(self) -> int | None:
        """How many classes there are."""
        return self.settings.model.num_classes or self.parts.num_classes

    @property
    def said(self) -> bool:
        """Whether somebody said so: else it is what the labels look like."""
        return not self.parts.is_counted or self.settings.model.num_classes is not None


def check_data(settings: config.Config, parts: Parts, stream: Stream) -> None:
    """Raises SettingsError for rows that can't be trained or evaluated on, naming the first.

    Not for those of phones that are left out, or with run.on_bad_phone skip will be.
    """
    data, loss = _Checked(settings, parts, stream), LOSSES.get(settings.task.loss)
    _check(data, "inputs", _not_finite, "finite", GAPS)
    if isinstance(loss, Distance):
        _check_values(data)
    if isinstance(loss, MultiLabel):
        _check_truths(data)
    if isinstance(loss, CrossEntropy):
        _check_classes(data)


def warn_of_large(settings: config.Config, batch: torch.Tensor) -> None:
    """Say of inputs that reach far beyond what weights are drawn for: what fails then is a phone's activation."""
    if not batch.is_floating_point():
        return
    largest = batch.abs().amax(0)
    if float(largest.max()) > LARGE:
        at = f" in column {int(largest.argmax())}" if largest.dim() == 1 else ""
        logger.warning(
            "inputs of %s reach %.2g%s, and training is likely to diverge: standardise them, to mean 0 and deviation 1 "
            "(a frame with the name of its column of labels is standardised)",
            settings.data.name, float(largest.max()), at,
        )  # fmt: skip


def _check_truths(data: _Checked) -> None:
    """Labels say of each class whether it is true."""
    labels, loss = data.parts.train.labels, data.settings.task.loss
    if labels.dtype.kind != "f" or labels.ndim != 2:
        found = f"{labels.shape} of {labels.dtype}"
        wrong = f"{_name(data)} returned labels {found}, but {loss} needs floats (N, classes), 0 or 1"
        allowed = "Return labels.astype(float), with a column for each class"
        raise SettingsError("data.name", data.settings.data.name, allowed, wrong)
    _check(
        data,
        "labels",
        lambda found: (found != 0) & (found != 1),
        "0 or 1",
        "Return 1 where a class is true, and 0 elsewhere",
    )


def _check_values(data: _Checked) -> None:
    """Labels are values, which may have a fraction."""
    labels, loss = data.parts.train.labels, data.settings.task.loss
    if labels.dtype.kind not in "f":
        kind = "names" if data.parts.classes is not None else "whole numbers"
        wrong = f"{loss} needs labels that are real numbers, but those of {_name(data)} are {kind}"
        allowed = "Set task.loss to cross_entropy for classes, or return labels.astype(float) for values"
        raise SettingsError("task.loss", loss, allowed, wrong)
    _check(data, "labels", _not_finite, "finite", GAPS)


def _not_finite(values: Array) -> Array:
    return ~np.isfinite(values) if values.dtype.kind in "fc" else np.zeros(values.shape, bool)


def _check(data: _Checked, what: str, is_bad: Bad, expected: str, hint: str) -> None:
    for part in NAMES:
        array = data.array(part, what)
        if isinstance(array, (np.ndarray, Sequences)):
            rows = _bad_rows(array, is_bad)
            rows = rows[_counts(data, rows)] if part == "train" else rows
            if len(rows):
                raise _refused(data, what, part, rows, is_bad, expected, hint)


def _bad_rows(array: Array | Sequences, is_bad: Callable[[Array], Array]) -> Array:
    if isinstance(array, Sequences):
        return array.rows(np.asarray(is_bad(array.steps).reshape(len(array.steps), -1).any(1)))
    size = max(1, AT_ONCE // max(1, array[:1].nbytes))
    found = [np.zeros(0, np.int64)]
    for start in range(0, len(array), size):
        bad = is_bad(array[start : start + size])
        if bad.any():
            found.append(start + np.flatnonzero(bad.reshape(len(bad), -1).any(1)))
    return np.concatenate(found)


def _counts(data: _Checked, rows: Array) -> Array:
    """Whether training rows matter: those of a phone that is left out from the start don't."""
    if data.settings.run.on_bad_phone == "skip" or not len(rows):
        return np.zeros(len(rows), bool)
    return np.array([not data.stream.is_left_out(phone, 0) for phone in _phones(data.stream, rows)])


def _phones(stream: Stream, rows: Array) -> list[int]:
    """Whose training rows they are."""
    partition = stream.partition
    places = np.empty(len(partition.indices), np.int64)
    places[partition.indices] = np.arange(len(partition.indices))
    found: list[int] = (np.searchsorted(partition.offsets, places[rows], side="right") - 1).tolist()
    return found


def _whose(stream: Stream, phone: int) -> str:
    groups = stream.partition.groups
    return str(phone) if groups is None else f"{phone} ({groups.whose([phone])})"


def _refused(data: _Checked, what: str, part: str, rows: Array, is_bad: Bad, expected: str, hint: str) -> SettingsError:
    """The line about the first of a part's bad rows."""
    name, training = data.settings.data.name, part == "train"
    row = row_of(data.settings.data, data.parts, part, int(rows[0]))
    array = data.array(part, what)
    values = np.asarray(array.sample(rows[0]) if isinstance(array, Sequences) else array[rows[0]])
    at = tuple(int(i) for i in np.argwhere(is_bad(values))[0])
    column = _column(at)
    whose = f", of phone {_whose(data.stream, _phones(data.stream, rows[:1])[0])}" if training else ""
    more = f", and in {len(rows) - 1} more row{'s' * (len(rows) > 2)}" if len(rows) > 1 else ""
    skip = ". Or set run.on_bad_phone to skip, to train without the phones that have such rows" if training else ""
    value = f"{values[at]} (as {values.dtype})" if np.isinf(values[at]) else str(values[at])
    place = f"at row {row}{column} (counting from 0){whose}{more}"
    must = "" if expected == "finite" else f", but must be {expected}"
    found = f"{_name(data)} returned {value} in the {NAMES[part]} {what}, {place}{must}"
    return SettingsError("data.name", name, f"{hint}{skip}", found)


def _column(at: tuple[int, ...]) -> str:
    return "" if not at else f", column {at[0]}" if len(at) == 1 else f", position {', '.join(map(str, at))}"


def _name(data: _Checked) -> str:
    return spoken(data.settings.data.name)


def row_of(settings: config.Data, parts: Parts, part: str, row: int) -> int:
    """Where a row of a part stands in the user's array: of all samples, or of the training or test samples."""
    if part != "test":
        total = len(parts.train.labels) + len(parts.val.labels)
        rest, val = split_off(total, settings.val_fraction, "val_part")
        row = int((rest if part == "train" else val)[row])
    if not parts.is_one:
        return row
    total = sum(len(getattr(parts, name).labels) for name in NAMES)
    rest, test = split_off(total, TEST_FRACTION, "test_part")
    return int((test if part == "test" else rest)[row])


def _check_classes(data: _Checked) -> None:
    """Labels are classes from 0 on, and there is none too many."""
    labels, name, loss = data.parts.train.labels, data.settings.data.name, data.settings.task.loss
    if labels.dtype.kind == "f" and labels.ndim == 2 and labels.shape[1] > 1 and (labels.sum(1) == 1).all():
        wrong = f"{_name(data)} returned one-hot labels (N, {labels.shape[1]}), but {loss} needs classes (N,)"
        raise SettingsError("data.name", name, "Return labels.argmax(1)", wrong)
    if labels.dtype.kind == "f":
        _check(data, "labels", _not_finite, "finite", GAPS)
        wrong = f"{loss} needs labels that are classes, but those of {_name(data)} are real numbers ({labels.dtype})"
        allowed = "Set task.loss to mse, l1 or huber for values, or return labels.astype(int) for classes"
        raise SettingsError("task.loss", loss, allowed, wrong)
    if labels.dtype != np.int64:
        return
    if data.count is None and (labels == IGNORED).all():
        raise SettingsError(
            "data.name", name, "Label some samples", f"all labels of {_name(data)} are {IGNORED}, which no loss counts"
        )
    count, there = data.count or 1, data.parts.num_classes
    if there is not None and count < there and (labels == 0).any():  # else they may begin with 1
        raise SettingsError("model.num_classes", count, f"Set {there} or more", _too_few(count, there))

    def is_bad(found: Array) -> Array:
        outside: Array = ((found < 0) & (found != IGNORED)) | (found >= count)
        return outside

    hint = f"Number the classes from 0: np.unique(labels, return_inverse=True)[1] ({IGNORED} stands for no label)"
    _check(data, "labels", is_bad, f"from 0 to {count - 1}", hint)
    if not data.said:
        _check_counted(data)
    _tell(data)


def _too_few(count: int, there: int) -> str:
    return f"is {count}, but the labels have {there} classes"


def _check_counted(data: _Checked) -> None:
    """Nobody said how many classes there are: labels that don't begin with 0 may be a mistake."""
    count, name = data.count or 0, data.settings.data.name
    if count > MOST_CLASSES:
        wrong = f"the labels of {_name(data)} go up to {count - 1}, which would make {count} classes"
        allowed = "Number the classes from 0: return np.unique(labels, return_inverse=True)[1]"
        raise SettingsError("data.name", name, allowed, wrong)
    there = np.logical_or.reduce([_there(data.array(part, "labels"), count) for part in NAMES])
    if data.parts.train.labels.ndim == 1 and count > 1 and not there[0] and there[1:].all():
        wrong = f"the labels of {_name(data)} go from 1 to {count - 1}, but must start at 0"
        allowed = (
            f"Return labels - 1. If class 0 exists but has no samples here, set model.num_classes to {count} instead"
        )
        raise SettingsError("data.name", name, allowed, wrong)


def _there(labels: Array, count: int) -> Array:
    """Which of the classes (count,) have a label."""
    found = np.zeros(count, bool)
    found[labels[(labels >= 0) & (labels < count)]] = True
    return found


def _tell(data: _Checked) -> None:
    """A warning about classes that nobody has, and those that can't be learned."""
    count, name = data.count or 0, data.settings.data.name
    if name in TEXTS:
        return  # of a vocabulary there are always words that nobody uses
    train, val, test = (_there(data.array(part, "labels"), count) for part in NAMES)
    known = train | val
    if (test & ~known).any():
        only = _shown(data.parts, np.flatnonzero(test & ~known))
        logger.warning("%s: in the test part alone, so nobody can learn them: classes %s", name, only)
    elif known.sum() == 1:
        logger.warning("%s: all labels are of one class: there is nothing to learn", name)
    elif not data.said and not (known | test).all():
        empty = np.flatnonzero(~(known | test))
        logger.warning("%s: of %d classes %d have no sample: %s", name, count, len(empty), _shown(data.parts, empty))


def _shown(parts: Parts, classes: Array) -> str:
    names = [parts.classes[c] if parts.classes is not None else str(c) for c in classes[:5].tolist()]
    return ", ".join(names) + (", ..." if len(classes) > 5 else "")
