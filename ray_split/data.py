"""Loading the data set that the settings name, in the parts that a run uses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ray_split import config
from ray_split.datasets import DATA_SETS
from ray_split.failure import SettingsError
from ray_split.lazy import LazyInputs
from ray_split.loading import blamed, call, find
from ray_split.samples import DataSet, Part, Parts, split_off, without_test_part
from ray_split.state import Array

__all__ = ["DataSet", "LazyInputs", "Part", "Parts", "load", "without_test_part"]


def load(settings: config.Data) -> Parts:
    """The data set that the settings name, in its three parts. Raises SettingsError."""
    if settings.path is not None and not settings.path.expanduser().exists():
        raise SettingsError("data.path", str(settings.path), "a folder that exists")
    function = find("data.name", settings.name, DATA_SETS)
    with blamed("data.name", settings.name, settings.kwargs):
        found = call("data", function, settings.kwargs, path=settings.path and settings.path.expanduser())
    data = _checked(settings.name, found)
    rest, val = split_off(len(data.train.inputs), settings.val_fraction, "val_part")
    return Parts(
        train=data.train.subset(rest),
        val=data.train.subset(val),
        test=data.test,
        num_classes=data.num_classes,
        scale=data.scale,
        shift=data.shift,
        groups={kind: ids[rest] for kind, ids in data.groups.items()},
    )


def _checked(name: str, found: Any) -> DataSet:
    if isinstance(found, DataSet):
        data = replace(found, train=Part(*found.train), test=Part(*found.test))
    elif isinstance(found, tuple) and len(found) == 2:
        inputs = found[0] if isinstance(found[0], LazyInputs) else np.asarray(found[0])
        labels = np.asarray(found[1])
        _check_lengths(name, Part(inputs, labels))
        data = without_test_part(inputs, labels)
    else:
        raise SettingsError("data.name", name, "a function that returns (inputs, labels) or a ray_split.DataSet")
    for part in (data.train, data.test):
        _check_lengths(name, part)
    return _plain(data, _groups(name, data))


def _check_lengths(name: str, part: Part) -> None:
    if len(part.inputs) != len(part.labels) or not len(part.inputs):
        lengths = f"{len(part.inputs)} inputs and {len(part.labels)} labels"
        raise SettingsError("data.name", name, f"a data set with a label for every input, not {lengths}")


def _groups(name: str, data: DataSet) -> dict[str, Array]:
    """The ids of each kind as an array, one for each training sample."""
    groups = {kind: np.asarray(ids) for kind, ids in data.groups.items()}
    for kind, ids in groups.items():
        if ids.shape != (len(data.train.inputs),) or ids.dtype.kind not in "iuSU":
            expected = f"a number or string for each of the {len(data.train.inputs)} training samples"
            allowed = f"a data set whose groups {kind!r} are {expected}, not {ids.shape} of {ids.dtype}"
            raise SettingsError("data.name", name, allowed)
    return groups


def _plain(data: DataSet, groups: dict[str, Array] | None = None) -> DataSet:
    """Doubles as float32, integer labels as int64 classes, counted where the data set doesn't say."""
    train, test = (Part(_single(p.inputs), _labels(p.labels)) for p in (data.train, data.test))
    classes = data.num_classes
    if classes is None and train.labels.dtype == np.int64:
        classes = int(max(train.labels.max(), test.labels.max())) + 1
    return DataSet(train, test, classes, data.scale, data.shift, groups or {})


def _single(array: Any) -> Any:
    double = isinstance(array, np.ndarray) and array.dtype == np.float64
    return array.astype(np.float32) if double else array


def _labels(array: Array) -> Array:
    labels: Array = array.astype(np.int64) if np.issubdtype(array.dtype, np.integer) else _single(array)
    return labels
