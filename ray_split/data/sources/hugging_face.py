"""Hugging Face Datasets as pairs of inputs and labels, or as tables; the names of their classes are kept.

`datasets` is no dependency: one of its Datasets can only be there if it is imported already.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ray_split.arrays import Array
from ray_split.config.user_code.by_value import spoken
from ray_split.data.sources.conversion import is_of
from ray_split.data.sources.table import Table
from ray_split.data.types import DataSet
from ray_split.errors import SettingsError, listed

LABELS = ("label", "labels", "target")
TEST = ("test", "validation")
"""Which split becomes the test part: the first that is there."""


@dataclass(frozen=True)
class Pairs:
    """A Dataset's samples by their index: the column of inputs as an array, and the label."""

    dataset: Any
    inputs: str
    target: str
    classes: list[str] | None = None

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """The inputs and the label of a sample; a class that has a name by its name. Raises ValueError."""
        found = self.dataset[int(index)]
        return _as_array(found[self.inputs]), self._named(index, found[self.target])

    def _named(self, index: int, label: Any) -> Any:
        if self.classes is None or isinstance(label, str):
            return label
        if label is None or not 0 <= label < len(self.classes):
            raise ValueError(f"its label in row {index}, {label}, is none of the {len(self.classes)} classes")
        return self.classes[label]


def opened(name: str, found: Any) -> Any:
    """What a data function returned; of Hugging Face's as pairs, a table or an rs.DataSet. Raises SettingsError."""
    target = None
    if isinstance(found, (tuple, list)) and len(found) == 2 and isinstance(found[1], str) and _is_theirs(found[0]):
        found, target = found
    if is_of(found, "datasets", "IterableDataset", "IterableDatasetDict"):
        raise _refused(name, "Load it without streaming=True", "an IterableDataset can't give a sample by its index")
    if is_of(found, "datasets", "DatasetDict"):
        return _in_parts(name, found, target)
    return _whole(name, found, target) if is_of(found, "datasets", "Dataset") else found


def _is_theirs(value: Any) -> bool:
    return is_of(value, "datasets", "Dataset", "DatasetDict", "IterableDataset", "IterableDatasetDict")


def _in_parts(name: str, splits: Mapping[str, Any], target: str | None) -> Any:
    test = next((split for split in TEST if split in splits), None)
    if "train" not in splits:
        raise _refused(
            name, "Return one with a split train, or a Dataset", f"there is no split train, but only {listed(splits)}"
        )
    if test is None:
        return _whole(name, splits["train"], target)
    train = _pairs(name, splits["train"], target)
    return DataSet(train, _pairs(name, splits[test], train.target), classes=train.classes)  # type: ignore[arg-type]


def _whole(name: str, dataset: Any, target: str | None) -> Any:
    target = _target(name, dataset, target)
    kinds = list(_beside(dataset, target).values())
    is_text = len(kinds) == 1 and getattr(kinds[0], "dtype", None) == "string"
    if kinds and all(is_of(kind, "datasets", "Value", "ClassLabel") for kind in kinds) and not is_text:
        frame, classes = dataset.to_pandas(), _classes(dataset, target)
        return Table(frame if classes is None else frame.assign(**{target: _names(frame[target], classes)}), target)
    return _pairs(name, dataset, target)


def _names(labels: Any, classes: list[str]) -> list[str | None]:
    return [classes[label] if 0 <= label < len(classes) else None for label in labels]


def _pairs(name: str, dataset: Any, target: str | None) -> Pairs:
    target = _target(name, dataset, target)
    inputs = list(_beside(dataset, target))
    if len(inputs) != 1:
        wrong = f"beside the labels {target!r} there must be one column, but found {listed(inputs)}"
        raise _refused(name, "Keep the labels and one column of inputs, with dataset.select_columns", wrong)
    if getattr(dataset.features[inputs[0]], "dtype", None) == "string":
        raise _refused(
            name, "Turn it into numbers, such as tokens, with dataset.map", f"the column {inputs[0]!r} is text"
        )
    return Pairs(dataset, inputs[0], target, _classes(dataset, target))


def _target(name: str, dataset: Any, target: str | None) -> str:
    known = dataset.column_names
    found = [target] if target is not None else [column for column in LABELS if column in known]
    if not found or found[0] not in known:
        wrong = "no column is called label or labels" if target is None else f"there is no column {target!r}"
        raise _refused(name, f"Return (dataset, 'COLUMN'), where COLUMN is {listed(known, 'or')}", wrong)
    return str(found[0])


def _beside(dataset: Any, target: str) -> dict[str, Any]:
    return {column: kind for column, kind in dataset.features.items() if column != target}


def _classes(dataset: Any, target: str) -> list[str] | None:
    names = getattr(dataset.features[target], "names", None)
    return None if names is None else list(names)


def _as_array(value: Any) -> Array:
    """Images with their channels first, as models take them."""
    array = np.asarray(value)
    if not is_of(value, "PIL.Image", "Image"):
        return array
    return array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))


def _refused(name: str, allowed: str, wrong: str) -> SettingsError:
    return SettingsError("data.name", name, allowed, f"in the Hugging Face dataset of {spoken(name)}, {wrong}")
