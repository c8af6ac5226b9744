"""What is wrong with a data set's numbers, before a run starts: the rows that are not finite, or have no class.

Rows are named as the user's array has them. Inputs that are read when needed are checked when they are (data/types.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ray_split import config, logs
from ray_split.arrays import Array
from ray_split.data.load import Parts
from ray_split.data.stream import Stream
from ray_split.data.types import TEST_FRACTION, split_off
from ray_split.errors import SettingsError
from ray_split.messages.labels import IGNORED
from ray_split.tasks.losses import LOSSES, CrossEntropy, Distance

logger = logs.get(__name__)

NAMES = {"train": "training", "val": "validation", "test": "test"}
AT_ONCE = 2**26
"""Bytes that are looked at together: an array may lie in a file, and be larger than memory."""
MOST_CLASSES = 10**7
GAPS = "fill the gaps (impute, numpy.nan_to_num), or leave such rows out"


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
    _check(data, "inputs", _not_finite, "finite numbers", GAPS)
    if isinstance(loss, Distance):
        _check_values(data)
    if isinstance(loss, CrossEntropy):
        _check_classes(data)


def _check_values(data: _Checked) -> None:
    """Labels are values, which may have a fraction."""
    labels, name, loss = data.parts.train.labels, data.settings.data.name, data.settings.task.loss
    if labels.dtype.kind not in "f":
        kind = "names" if data.parts.classes is not None else "whole numbers"
        allowed = f"cross_entropy, as {name} has {kind} for labels; {loss}'s are values: "
        raise SettingsError("task.loss", loss, f"{allowed}if these are, return labels.astype(float)")
    _check(data, "labels", _not_finite, "finite numbers", GAPS)


def _not_finite(values: Array) -> Array:
    return ~np.isfinite(values) if values.dtype.kind in "fc" else np.zeros(values.shape, bool)


def _check(data: _Checked, what: str, is_bad: Bad, expected: str, hint: str) -> None:
    for part in NAMES:
        array = data.array(part, what)
        if isinstance(array, np.ndarray):
            rows = _bad_rows(array, is_bad)
            rows = rows[_counts(data, rows)] if part == "train" else rows
            if len(rows):
                raise _refused(data, what, part, rows, is_bad, expected, hint)


def _bad_rows(array: Array, is_bad: Callable[[Array], Array]) -> Array:
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


def _refused(data: _Checked, what: str, part: str, rows: Array, is_bad: Bad, expected: str, hint: str) -> SettingsError:
    """The line about the first of a part's bad rows."""
    name, training = data.settings.data.name, part == "train"
    row = row_of(data.settings.data, data.parts, part, int(rows[0]))
    values = np.asarray(data.array(part, what)[rows[0]])
    at = tuple(int(i) for i in np.argwhere(is_bad(values))[0])
    column = f" at {', '.join(map(str, at))}" if at else ""
    whose = f", phone {_phones(data.stream, rows[:1])[0]}'s" if training else ""
    more = f", and {len(rows) - 1} more rows" if len(rows) > 1 else ""
    skip = "; run.on_bad_phone skip leaves out the phones that have such" if training else ""
    value = f"{values[at]} (as {values.dtype})" if np.isinf(values[at]) else str(values[at])
    found = f"row {row} of the {what}, in the {NAMES[part]} part{whose}, has {value}{column}{more}"
    return SettingsError("data.name", name, f"a data set of {expected}: {found}: {hint}{skip}")


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
        allowed = (
            f"a data set whose labels are classes (N,), as {loss} wants, not one-hot or shares (N, {labels.shape[1]})"
        )
        raise SettingsError("data.name", name, f"{allowed}: return labels.argmax(1)")
    if labels.dtype.kind == "f":
        _check(data, "labels", _not_finite, "a label for every row", GAPS)
        allowed = f"mse, l1 or huber, as {name} has values ({labels.dtype}) for labels; {loss}'s are classes, "
        raise SettingsError("task.loss", loss, f"{allowed}whole numbers: if these are, return labels.astype(int)")
    if labels.dtype != np.int64:
        return
    if data.count is None and (labels == IGNORED).all():
        raise SettingsError("data.name", name, f"a data set with labels that count, not all of them {IGNORED}")
    count, there = data.count or 1, data.parts.num_classes
    if there is not None and count < there and (labels == 0).any():  # else they may begin with 1
        raise SettingsError("model.num_classes", count, f"at least {there}, as the labels have")

    def is_bad(found: Array) -> Array:
        outside: Array = ((found < 0) & (found != IGNORED)) | (found >= count)
        return outside

    hint = f"number the classes from 0 (np.unique(labels, return_inverse=True)[1]); {IGNORED} counts for nothing"
    _check(data, "labels", is_bad, f"labels from 0 to {count - 1}", hint)
    if not data.said:
        _check_counted(data)
    _tell(data)


def _check_counted(data: _Checked) -> None:
    """Nobody said how many classes there are: labels that don't begin with 0 may be a mistake."""
    count, name = data.count or 0, data.settings.data.name
    if count > MOST_CLASSES:
        allowed = f"classes from 0 on, not labels up to {count - 1}: np.unique(labels, return_inverse=True)[1]"
        raise SettingsError("data.name", name, f"a data set of {allowed}")
    there = np.logical_or.reduce([_there(data.array(part, "labels"), count) for part in NAMES])
    if data.parts.train.labels.ndim == 1 and count > 1 and not there[0] and there[1:].all():
        allowed = f"a data set whose classes are numbered from 0, not from 1 to {count - 1}: return labels - 1"
        said = f"{allowed} (or, if class 0 is one that has no sample here, set model.num_classes to {count})"
        raise SettingsError("data.name", name, said)


def _there(labels: Array, count: int) -> Array:
    """Which of the classes (count,) have a label."""
    found = np.zeros(count, bool)
    found[labels[(labels >= 0) & (labels < count)]] = True
    return found


def _tell(data: _Checked) -> None:
    """A warning about classes that nobody has, and those that can't be learned."""
    count, name = data.count or 0, data.settings.data.name
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
