"""Loading the data set that the settings name, in the parts that a run uses."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ray_split import config
from ray_split.arrays import Array
from ray_split.config.plugins import blamed, call, find
from ray_split.data.conversion import TEXT, Place, as_array, shown
from ray_split.data.datasets import DATA_SETS
from ray_split.data.label_names import encode
from ray_split.data.torch_datasets import hint, is_dataset, is_torchs, samples
from ray_split.data.types import TEST_FRACTION, DataSet, LazyInputs, Part, Parts, split_off, without_test_part
from ray_split.errors import SettingsError

__all__ = ["DataSet", "LazyInputs", "Part", "Parts", "load", "without_test_part"]


def load(settings: config.Data) -> Parts:
    """The data set that the settings name, in its three parts. Raises SettingsError."""
    if settings.path is not None and not settings.path.expanduser().exists():
        raise SettingsError("data.path", str(settings.path), "a folder that exists")
    function = find("data.name", settings.name, DATA_SETS)
    with blamed("data.name", settings.name, settings.kwargs):
        found = call("data", function, settings.kwargs, path=settings.path and settings.path.expanduser())
    if inspect.iscoroutine(found):
        found.close()  # else Python warns that nobody awaited it
    whole = _is_pair(found)
    data = _checked(settings.name, found)
    rest, val = split_off(len(data.train.inputs), settings.val_fraction, "val_part")
    if not len(rest):
        allowed = f"less: of {len(val)} training samples none is left to train on"
        raise SettingsError("data.val_fraction", settings.val_fraction, allowed)
    return Parts(
        train=data.train.subset(rest),
        val=data.train.subset(val),
        test=data.test,
        num_classes=data.num_classes if data.num_classes is not None else _counted(data),
        scale=data.scale,
        shift=data.shift,
        groups={kind: ids[rest] for kind, ids in data.groups.items()},
        classes=tuple(data.classes) if data.classes is not None else None,
        is_one=whole,
        is_counted=data.num_classes is None,
    )


def _is_pair(found: Any) -> bool:
    """Whether it is inputs and labels, of which we split off the test part."""
    return is_dataset(found) or (_are_two(found) and not all(map(is_torchs, found)))


def _are_two(found: Any) -> bool:
    return isinstance(found, (tuple, list)) and len(found) == 2


def _checked(name: str, found: Any) -> DataSet:
    if not _is_pair(found):
        data = _of_parts(name, found)
    elif is_dataset(found):
        data = _split(name, _part(name, "", samples(name, "", found)))
    else:
        data = _split(name, _part(name, "", found))
    return replace(_encoded(name, data), groups=_groups(name, data))


def _of_parts(name: str, found: Any) -> DataSet:
    """A data set that says itself what is its test part."""
    if _are_two(found):  # torch's, for train and test
        found = DataSet(*found)
    if not isinstance(found, DataSet):
        what = f"not {shown(found)}{hint(found)}"
        raise SettingsError(
            "data.name", name, f"a function that returns (inputs, labels) or a ray_split.DataSet, {what}"
        )
    _check_said(name, found)
    own = replace(found, train=_own(name, "training ", found.train), test=_own(name, "test ", found.test))
    _check_kinds(name, own)
    return replace(own, scale=_scale(own.scale), shift=_scale(own.shift))


def _scale(value: Any) -> Any:
    """A number as it is; what else can be one array, a tensor say, as that."""
    return value if isinstance(value, (int, float, np.generic)) else np.asarray(value)


def _check_kinds(name: str, data: DataSet) -> None:
    """Both parts have numbers of one kind: bytes are scaled, others are taken as they are."""
    train, test = data.train.inputs.dtype, data.test.inputs.dtype
    if _kind(train) != _kind(test):
        allowed = f"a data set whose inputs are of one type, not {train} in train and {test} in test: "
        raise SettingsError("data.name", name, f"{allowed}return both as they are, or both scaled")
    neutral = np.array_equal(np.asarray(data.scale), 1) and np.array_equal(np.asarray(data.shift), 0)
    if not neutral and _kind(train) != "bytes":
        allowed = f"a data set of bytes (uint8) if it has scale and shift, not of {train}: return inputs as they are "
        raise SettingsError("data.name", name, f"{allowed}to be taken, without them")


def _kind(dtype: np.dtype[Any]) -> str:
    return "bytes" if dtype == np.uint8 else "whole" if dtype.kind in "iub" else dtype.kind


def _own(name: str, what: str, given: Any) -> Part:
    """A part of a data set that says itself what its parts are."""
    if is_dataset(given):
        given = samples(name, what, given)
    if not _are_two(given):
        allowed = f"a data set whose {what}part is a ray_split.Part(inputs, labels), not {shown(given)}{hint(given)}"
        raise SettingsError("data.name", name, allowed)
    return _part(name, what, given)


def _part(name: str, what: str, given: Iterable[Any]) -> Part:
    """Inputs and labels as arrays of one length. Raises SettingsError."""
    inputs, labels = given
    if not isinstance(inputs, LazyInputs):
        place = Place(name, f"{what}inputs")
        inputs = as_array(place, inputs)
        if inputs.dtype.kind in TEXT:
            found = f"text ({inputs.flat[0].item()!r:.40})" if inputs.size else "text"
            raise place.refused("numbers", found, "encode it; of words or letters return their numbers in a vocabulary")
    labels = as_array(Place(name, f"{what}labels", text=True), labels)
    if len(inputs) != len(labels) or not len(inputs):
        lengths = f"{len(inputs)} {what}inputs and {len(labels)} labels"
        raise SettingsError("data.name", name, f"a data set with a label for every input, not {lengths}")
    return Part(inputs, labels)


def _split(name: str, whole: Part) -> DataSet:
    """A part of the samples becomes the test part."""
    data = without_test_part(*whole)
    if not len(data.test.inputs):
        fewest = next(n for n in range(1, 100) if round(n * TEST_FRACTION))
        allowed = f"a data set of {fewest} samples or more, not {len(whole.inputs)}: a fifth becomes the test part; "
        raise SettingsError("data.name", name, f"{allowed}or an rs.DataSet that says what is")
    return data


def _check_said(name: str, data: DataSet) -> None:
    """What a data set says beside its samples."""
    scale, shift, classes = data.scale, data.shift, data.num_classes
    if not (_is_finite(scale) and _is_finite(shift)):
        raise SettingsError("data.name", name, f"a data set whose scale and shift are finite, not {scale} and {shift}")
    if not np.asarray(scale).all():
        raise SettingsError("data.name", name, f"a data set whose scale is not 0: it is {scale}")
    whole = isinstance(classes, (int, np.integer)) and not isinstance(classes, bool)
    if classes is not None and not (whole and classes > 0):
        raise SettingsError("data.name", name, f"a data set whose num_classes is a positive number, not {classes!r}")
    names = data.classes
    if names is not None and not (_is_list(names) and len({str(each) for each in names}) == len(names)):
        raise SettingsError("data.name", name, f"a data set whose classes are a list of different names, not {names!r}")
    if not isinstance(data.groups, Mapping):
        allowed = f'a data set whose groups are a dict such as {{"writer": ids}}, not {shown(data.groups)}'
        raise SettingsError("data.name", name, allowed)
    for kind in data.groups:
        if not isinstance(kind, str):
            allowed = f"a data set whose groups have names of text, which data.partition.by is to tell, not {kind!r}"
            raise SettingsError("data.name", name, allowed)


def _is_finite(value: Any) -> bool:
    """Whether it is a number, or an array of numbers, and none is infinite."""
    try:
        array = np.asarray(value)
    except (ValueError, TypeError):  # of rows of several lengths
        return False
    return array.dtype.kind in "fiu" and bool(np.isfinite(array).all())


def _is_list(value: Any) -> bool:
    """Whether it has an order, the same in every process: a set has not."""
    return hasattr(value, "__len__") and hasattr(value, "__getitem__") and not isinstance(value, (str, Mapping))


def _encoded(name: str, data: DataSet) -> DataSet:
    """Labels as whole numbers where they are classes; the classes named where they have names."""
    train, test, names = encode(name, data.train.labels, data.test.labels, data.classes)
    count = data.num_classes
    if names is not None and count is not None and count < len(names):
        raise SettingsError("data.name", name, f"a data set whose num_classes is at least {len(names)}, not {count}")
    return replace(
        data,
        train=Part(data.train.inputs, train),
        test=Part(data.test.inputs, test),
        num_classes=len(names) if names is not None and count is None else count,
        classes=names,
    )


def _counted(data: DataSet) -> int | None:
    """How many classes labels tell of that are whole numbers."""
    if data.train.labels.dtype != np.int64:
        return None
    count = int(max(data.train.labels.max(initial=-1), data.test.labels.max(initial=-1))) + 1
    return count or None


def _groups(name: str, data: DataSet) -> dict[str, Array]:
    """The ids of each kind as an array, one for each training sample."""
    groups = {kind: as_array(Place(name, f"groups {kind!r}", text=True), ids) for kind, ids in data.groups.items()}
    for kind, ids in groups.items():
        if ids.shape != (len(data.train.inputs),) or ids.dtype.kind not in "iu" + TEXT:
            expected = f"a number or string for each of the {len(data.train.inputs)} training samples"
            found = f"{ids.shape} of {np.asarray(data.groups[kind]).dtype}"
            allowed = f"a data set whose groups {kind!r} are {expected}, not {found}"
            raise SettingsError("data.name", name, allowed)
    return groups
