"""torch's Datasets as arrays, or as samples that are read when needed, where they are many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ray_split.arrays import Array
from ray_split.data.conversion import Place, as_array, is_of, shown, stacked
from ray_split.data.types import LazyInputs
from ray_split.errors import SettingsError, told

IN_MEMORY = 2**30
"""Bytes of samples that are kept in memory; of more only the labels are, and samples are read again."""


def is_torchs(value: Any) -> bool:
    """Whether it is one of torch's Datasets, or reads from one."""
    return is_of(value, "torch.utils.data", "Dataset", "DataLoader")


def is_dataset(value: Any) -> bool:
    """Whether it is one of torch's Datasets that has samples by their index."""
    return is_of(value, "torch.utils.data", "Dataset") and not is_of(value, "torch.utils.data", "IterableDataset")


def hint(value: Any) -> str:
    """What to return in place of something of torch's that has no samples by their index."""
    if is_of(value, "torch.utils.data", "DataLoader"):
        return "; return the loader's dataset: batches are made by data.batch_size"
    if is_of(value, "torch.utils.data", "IterableDataset"):
        return "; an IterableDataset has no sample by its index: return one that has, or arrays"
    return ""


@dataclass(frozen=True)
class Sample:
    """Reads the inputs of one sample of a Dataset."""

    dataset: Any

    def __call__(self, index: int) -> Array:
        """An array, however the Dataset has them. Raises SettingsError if they are none."""
        found: Array = as_array(Place(type(self.dataset).__name__, "inputs"), [self.dataset[int(index)][0]])[0]
        return found


def samples(name: str, what: str, dataset: Any) -> tuple[Any, Any]:
    """The inputs and labels of a Dataset of pairs. Raises SettingsError."""
    if is_of(dataset, "torch.utils.data", "TensorDataset"):
        if len(dataset.tensors) != 2:
            raise _not_pairs(name, what, f"{len(dataset.tensors)} tensors")
        return tuple(dataset.tensors)
    try:
        count = len(dataset)
    except TypeError as error:
        raise _not_pairs(name, what, f"a {type(dataset).__name__} without a length") from error
    inputs, labels = list[Array](), list[Any]()
    for i in range(count):
        sample, label = _pair(name, what, dataset, i)
        labels.append(label)
        if count * sample.nbytes <= IN_MEMORY or not i:
            inputs.append(sample)
    if count and not _same(inputs[0], _pair(name, what, dataset, 0)[0]):
        again = "is another when it is read again: leave random changes to data.augment"
        raise SettingsError("data.name", name, f"a data set that is always the same; {what}sample 0 {again}")
    if len(inputs) < count:
        return LazyInputs(Sample(dataset), np.arange(count), inputs[0].shape, inputs[0].dtype), labels
    return (stacked(Place(name, f"{what}inputs"), inputs) if inputs else np.zeros(0)), labels


def _pair(name: str, what: str, dataset: Any, index: int) -> tuple[Array, Any]:
    try:
        item = dataset[index]
    except Exception as error:  # a Dataset is the user's code
        found = f"sample {index} can be read: {told(error)}"
        raise SettingsError("data.name", name, f"a data set of which {what}{found}") from error
    if not isinstance(item, Sequence) or isinstance(item, str) or len(item) != 2:
        raise _not_pairs(name, what, shown(item))
    if is_of(item[0], "PIL.Image", "Image"):
        asked = "a transform to a tensor, such as torchvision.transforms.v2.PILToTensor()"
        raise SettingsError("data.name", name, f"a Dataset of arrays or tensors, not of images (PIL): give it {asked}")
    label = item[1].item() if getattr(item[1], "shape", None) == () else item[1]
    return as_array(Place(name, f"{what}inputs"), [item[0]])[0], label


def _not_pairs(name: str, what: str, found: str) -> SettingsError:
    return SettingsError("data.name", name, f"a Dataset of pairs, (inputs, label), not {what}{found}")


def _same(one: Array, other: Array) -> bool:
    return one.shape == other.shape and one.tobytes() == other.tobytes()
