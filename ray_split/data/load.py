"""Loading the data set that the settings name, in the parts that a run uses."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ray_split import config
from ray_split.arrays import Array
from ray_split.config.default_models import TEXTS
from ray_split.config.user_code.by_value import ByValue, spoken
from ray_split.config.user_code.plugins import blamed, call, find
from ray_split.data.sequences import Sequences, are_sequences
from ray_split.data.sources.conversion import TEXT, Place, as_array, as_sequences, is_of, shown
from ray_split.data.sources.datasets import DATA_SETS
from ray_split.data.sources.hugging_face import Pairs, opened
from ray_split.data.sources.label_names import encode
from ray_split.data.sources.table import Table, arrays, as_table
from ray_split.data.sources.torch_datasets import hint, is_dataset, is_torchs, samples
from ray_split.data.sources.windows import may_be_unpadded, unpadded
from ray_split.data.types import TEST_FRACTION, DataSet, LazyInputs, Part, Parts, split_off, without_test_part
from ray_split.errors import SettingsError, brief, listed

__all__ = ["DataSet", "LazyInputs", "Part", "Parts", "Sequences", "Table", "load", "without_test_part"]


NOT_THERE = "Check the path"


def load(settings: config.Data) -> Parts:
    """The data set that the settings name, in its three parts. Raises SettingsError."""
    if settings.path is not None and not settings.path.expanduser().exists():
        raise SettingsError(
            "data.path", str(settings.path), NOT_THERE, f"there is no file or folder {str(settings.path)!r}"
        )
    found = opened(settings.name, _found(settings))
    table = as_table(found)
    whole = table is not None or _is_pair(found)
    data = _checked(settings.name, found) if table is None else _tabled(settings, table)
    by_step = settings.group_by_length and settings.name in TEXTS and may_be_unpadded(data)
    data = unpadded(data) if by_step else data
    rest, val = split_off(len(data.train.inputs), settings.val_fraction, "val_part")
    if not len(rest):
        wrong = f"is {settings.val_fraction:g}, which leaves none of the {len(val)} samples to train on"
        raise SettingsError("data.val_fraction", settings.val_fraction, "Set a smaller fraction", wrong)
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
        has_labels_by_step=by_step,
    )


def _found(settings: config.Data) -> Any:
    """What the data set's function returned; or the data itself, if that was given. Raises SettingsError."""
    name = settings.name
    if isinstance(name, ByValue) and not callable(name.value):
        return _as_given(settings, name.value)
    function = find("data.name", name, DATA_SETS)
    with blamed("data.name", name, settings.kwargs):
        found = call(
            "data", function, settings.kwargs, spoken(settings.name), path=settings.path and settings.path.expanduser()
        )
    if inspect.iscoroutine(found):
        found.close()  # else Python warns that nobody awaited it
    return found


def _as_given(settings: config.Data, data: Any) -> Any:
    """A data frame is a table, of which `data.kwargs` say what its columns are."""
    if is_of(data, "pandas", "DataFrame"):
        if "target" not in settings.kwargs:
            allowed = f'Write data=(frame, "COLUMN"). The columns are {listed(map(str, data.columns))}'
            raise SettingsError("data.kwargs", settings.kwargs, allowed, "must say which column has the labels")
        return call("data", Table, settings.kwargs, frame=data)
    for field in ("kwargs", "path"):
        if value := getattr(settings, field):
            raise SettingsError(
                f"data.{field}", value, f"Remove data.{field}", "can't be used where data.name is the data itself"
            )
    return data


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
        data = replace(data, classes=found.classes if isinstance(found, Pairs) else None)
    else:
        data = _split(name, _part(name, "", found))
    return replace(_encoded(name, data), groups=_groups(name, data))


def _tabled(settings: config.Data, table: Table) -> DataSet:
    """A table, standardised by the samples that are trained on."""
    if not len(table.frame):
        raise SettingsError("data.name", settings.name, "Give a table with rows", "the table has no rows")
    rest, _ = split_off(len(table.frame), TEST_FRACTION, "test_part")
    train, _ = split_off(len(rest), settings.val_fraction, "val_part")
    inputs, labels, groups = arrays(settings.name, table, rest[train] if len(train) else rest)
    data = _split(settings.name, _part(settings.name, "", (inputs, labels)))
    data = replace(data, groups={kind: ids[rest] for kind, ids in groups.items()})
    return replace(_encoded(settings.name, data), groups=_groups(settings.name, data))


def _of_parts(name: str, found: Any) -> DataSet:
    """A data set that says itself what is its test part."""
    if _are_two(found):  # torch's, for train and test
        found = DataSet(*found)
    if is_of(found, "pandas", "DataFrame"):
        do = f'Return (frame, "COLUMN"), with one of {", ".join(map(str, found.columns[:20]))}'
        raise SettingsError("data.name", name, do, f"{name} returned a frame alone: which column has the labels?")
    if not isinstance(found, DataSet):
        wrong = f"{spoken(name)} returned {shown(found)}{hint(found)}"
        raise SettingsError("data.name", name, "Return (inputs, labels), or a ray_split.DataSet", wrong)
    _check_said(name, found)
    own = _alike(replace(found, train=_own(name, "training ", found.train), test=_own(name, "test ", found.test)))
    _check_kinds(name, own)
    return replace(own, scale=_scale(own.scale), shift=_scale(own.shift))


def _alike(data: DataSet) -> DataSet:
    """Where one part is of sequences, the other is too, though they happen to be equally long."""
    train, test = data.train.inputs, data.test.inputs
    if isinstance(train, Sequences) and isinstance(test, np.ndarray) and test.ndim == len(train.shape):
        return replace(data, test=data.test._replace(inputs=Sequences.of(list(test), train.axis)))
    if isinstance(test, Sequences) and isinstance(train, np.ndarray) and train.ndim == len(test.shape):
        return replace(data, train=data.train._replace(inputs=Sequences.of(list(train), test.axis)))
    return data


def _scale(value: Any) -> Any:
    """A number as it is; what else can be one array, a tensor say, as that."""
    return value if isinstance(value, (int, float, np.generic)) else np.asarray(value)


def _check_kinds(name: str, data: DataSet) -> None:
    """Both parts have numbers of one kind: bytes are scaled, others are taken as they are."""
    train, test = data.train.inputs.dtype, data.test.inputs.dtype
    if _kind(train) != _kind(test):
        wrong = f"the inputs of {spoken(name)} are {train} in train but {test} in test"
        raise SettingsError("data.name", name, "Return the same type in both", wrong)
    neutral = np.array_equal(np.asarray(data.scale), 1) and np.array_equal(np.asarray(data.shift), 0)
    if not neutral and _kind(train) != "bytes":
        wrong = f"{spoken(name)} has scale and shift, which are for uint8 inputs, but its inputs are {train}"
        raise SettingsError("data.name", name, "Scale the inputs yourself, and leave scale and shift out", wrong)


def _kind(dtype: np.dtype[Any]) -> str:
    return "bytes" if dtype == np.uint8 else "whole" if dtype.kind in "iub" else dtype.kind


def _own(name: str, what: str, given: Any) -> Part:
    """A part of a data set that says itself what its parts are."""
    if is_dataset(given):
        given = samples(name, what, given)
    if not _are_two(given):
        wrong = f"the {what}part of {spoken(name)} is {shown(given)}{hint(given)}"
        raise SettingsError("data.name", name, "Return a ray_split.Part(inputs, labels)", wrong)
    return _part(name, what, given)


def _part(name: str, what: str, given: Iterable[Any]) -> Part:
    """Inputs and labels as arrays of one length. Raises SettingsError."""
    inputs, labels = given
    place = Place(name, f"{what}inputs")
    if isinstance(inputs, Sequences) or are_sequences(inputs):
        inputs = as_sequences(place, inputs)
    elif not isinstance(inputs, LazyInputs):
        inputs = as_array(place, inputs)
        if inputs.dtype.kind in TEXT:
            found = f"text ({inputs.flat[0].item()!r:.40})" if inputs.size else "text"
            raise place.refused("numbers", found, "encode it; of words or letters return their numbers in a vocabulary")
    labels = as_array(Place(name, f"{what}labels", text=True), labels)
    if len(inputs) != len(labels):
        wrong = f"{spoken(name)} returned {len(inputs)} {what}inputs but {len(labels)} labels"
        raise SettingsError("data.name", name, "Return one label for each input", wrong)
    if not len(inputs):
        raise SettingsError("data.name", name, "Return at least one", f"{spoken(name)} returned no {what}inputs")
    return Part(inputs, labels)


def _split(name: str, whole: Part) -> DataSet:
    """A part of the samples becomes the test part."""
    data = without_test_part(*whole)
    if not len(data.test.inputs):
        fewest = next(n for n in range(1, 100) if round(n * TEST_FRACTION))
        wrong = f"{spoken(name)} returned {len(whole.inputs)} samples, of which a fifth is too few for a test part"
        allowed = f"Return {fewest} samples or more, or a ray_split.DataSet with a test part"
        raise SettingsError("data.name", name, allowed, wrong)
    return data


def _check_said(name: str, data: DataSet) -> None:
    """What a data set says beside its samples."""
    scale, shift, classes = data.scale, data.shift, data.num_classes
    if not (_is_finite(scale) and _is_finite(shift)):
        raise SettingsError(
            "data.name", name, "Return finite numbers", f"the scale and shift of {spoken(name)} are {scale} and {shift}"
        )
    if not np.asarray(scale).all():
        raise SettingsError("data.name", name, "Return a scale without a 0", f"the scale of {spoken(name)} is {scale}")
    whole = isinstance(classes, (int, np.integer)) and not isinstance(classes, bool)
    if classes is not None and not (whole and classes > 0):
        wrong = f"the num_classes of {spoken(name)} must be a whole number greater than 0, not {classes!r}"
        raise SettingsError("data.name", name, "", wrong)
    names = data.classes
    if names is not None and not (_is_list(names) and len({str(each) for each in names}) == len(names)):
        wrong = f"the classes of {spoken(name)} must be a list of different names, not {brief(names, 200)}"
        raise SettingsError("data.name", name, "", wrong)
    if not isinstance(data.groups, Mapping):
        wrong = f"the groups of {spoken(name)} are {shown(data.groups)}"
        raise SettingsError("data.name", name, 'Return a dict such as {"writer": ids}', wrong)
    for kind in data.groups:
        if not isinstance(kind, str):
            wrong = f"the groups of {spoken(name)} have the key {kind!r}, which is not text"
            raise SettingsError("data.name", name, "Use text as keys, such as 'writer'", wrong)


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
        wrong = f"the num_classes of {spoken(name)} is {count}, but there are {len(names)} names of classes"
        raise SettingsError("data.name", name, f"Return a num_classes of at least {len(names)}", wrong)
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
            wrong = f"the groups {kind!r} of {spoken(name)} must be {expected}, but are {found}"
            raise SettingsError("data.name", name, "", wrong)
    return groups
