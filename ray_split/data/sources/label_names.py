"""Labels as torch takes them: text and truth values as the numbers of classes, whose names are kept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ray_split.arrays import Array
from ray_split.config.user_code.by_value import spoken
from ray_split.data.sources.conversion import TEXT, shown
from ray_split.errors import SettingsError


def encode(name: str, train: Array, test: Array, names: Sequence[str] | None) -> tuple[Array, Array, list[str] | None]:
    """Both parts' labels as int64 classes or values, and the classes' names where labels are text or truth values.

    Text is numbered in sorted order, or as `names` has it. Raises SettingsError.
    """
    kinds = {_kind(part) for part in (train, test)}
    if len(kinds) > 1:
        wrong = f"the labels of {spoken(name)} are {shown(train)} in train but {shown(test)} in test"
        raise SettingsError("data.name", name, "Return labels of one kind in both", wrong)
    if train.dtype.kind == "c":
        raise SettingsError(
            "data.name", name, "Return classes or real numbers", f"the labels of {spoken(name)} are {shown(train)}"
        )
    if train.dtype.kind in TEXT:
        return _numbered(name, _as_text(train), _as_text(test), names)
    if train.dtype.kind == test.dtype.kind == "b":
        names = ["False", "True"] if names is None else names
    return _whole(train), _whole(test), None if names is None else [str(each) for each in names]


def _kind(labels: Array) -> str:
    kind: str = labels.dtype.kind
    return "text" if kind in TEXT else "whole" if kind in "biu" else kind


def _as_text(labels: Array) -> Array:
    if labels.dtype.kind == "S":
        decoded: Array = np.char.decode(labels, "utf-8", "backslashreplace")
        return decoded
    return np.array(labels.tolist(), str)


def _numbered(
    name: str, train: Array, test: Array, names: Sequence[str] | None
) -> tuple[Array, Array, list[str] | None]:
    found = np.unique(np.concatenate([train.ravel(), test.ravel()]))
    wanted = found if names is None else np.array([str(each) for each in names])
    if len(unknown := np.setdiff1d(found, wanted)):
        wrong = f"{spoken(name)} has the label {str(unknown[0])!r}, which is not among its classes"
        some = f"{', '.join(wanted[:5])}{', ...' if len(wanted) > 5 else ''}"
        raise SettingsError("data.name", name, f"Add that to classes, which are {some}", wrong)
    order = np.argsort(wanted)
    numbers = [order[np.searchsorted(wanted[order], part)].astype(np.int64) for part in (train, test)]
    return numbers[0], numbers[1], wanted.tolist()


def _whole(labels: Array) -> Array:
    if labels.dtype == np.float16:  # torch's losses want them as the outputs are
        return labels.astype(np.float32)
    return labels.astype(np.int64) if labels.dtype.kind in "iub" else labels
