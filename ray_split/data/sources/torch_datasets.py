"""torch's Datasets as arrays, or as samples that are read when needed, where they are many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ray_split.arrays import Array
from ray_split.config.user_code.by_value import spoken
from ray_split.data.sequences import are_sequences
from ray_split.data.sources.conversion import Place, as_array, is_of, shown, stacked
from ray_split.data.sources.hugging_face import Pairs
from ray_split.data.types import LazyInputs
from ray_split.errors import SettingsError, told

IN_MEMORY = 2**30
"""Bytes of samples that are kept in memory; of more only the labels are, and samples are read again."""


def is_torchs(value: Any) -> bool:
    """Whether it is one of torch's Datasets, or reads from one."""
    return is_of(value, "torch.utils.data", "Dataset", "DataLoader")


def is_dataset(value: Any) -> bool:
    """Whether it has pairs by their index: one of torch's Datasets, or of Hugging Face's."""
    theirs = is_of(value, "torch.utils.data", "Dataset") and not is_of(value, "torch.utils.data", "IterableDataset")
    return theirs or isinstance(value, Pairs)


def hint(value: Any) -> str:
    """What to return in place of something of torch's that has no samples by their index."""
    if is_of(value, "torch.utils.data", "DataLoader"):
        return ", but must return its dataset (loader.dataset): batches are made by data.batch_size"
    if is_of(value, "torch.utils.data", "IterableDataset"):
        return ", but must return arrays or a dataset with __getitem__ and __len__"
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
    inputs, labels, lengths = list[Array](), list[Any](), set[tuple[int, ...]]()
    for i in range(count):
        sample, label = _pair(name, what, dataset, i)
        labels.append(label)
        lengths.add(sample.shape)
        if count * sample.nbytes <= IN_MEMORY or not i:
            inputs.append(sample)
    if count and not _same(inputs[0], _pair(name, what, dataset, 0)[0]):
        wrong = f"{what}sample 0 of {spoken(name)} is different when read a second time"
        raise SettingsError("data.name", name, "Move random changes to data.augment", wrong)
    if len(inputs) < count and len(lengths) > 1:
        wrong = f"the {what}samples of {spoken(name)} differ in length, and only {IN_MEMORY >> 30} GiB of them fit here"
        raise SettingsError("data.name", name, "Return fewer, or pad them to one length", wrong)
    if len(inputs) < count:
        return LazyInputs(Sample(dataset), np.arange(count), inputs[0].shape, inputs[0].dtype), labels
    if are_sequences(inputs):
        return inputs, labels
    return (stacked(Place(name, f"{what}inputs"), inputs) if inputs else np.zeros(0)), labels


def _pair(name: str, what: str, dataset: Any, index: int) -> tuple[Array, Any]:
    try:
        item = dataset[index]
    except Exception as error:  # a Dataset is the user's code
        wrong = f"{what}sample {index} of {spoken(name)} can't be read: {told(error)}"
        raise SettingsError("data.name", name, "Fix that sample, or leave it out", wrong) from error
    if not isinstance(item, Sequence) or isinstance(item, str) or len(item) != 2:
        raise _not_pairs(name, what, shown(item))
    if is_of(item[0], "PIL.Image", "Image"):
        asked = "Add a transform to a tensor, such as torchvision.transforms.v2.PILToTensor()"
        raise SettingsError(
            "data.name", name, asked, f"the samples of {spoken(name)} are PIL images, not arrays or tensors"
        )
    label = item[1].item() if getattr(item[1], "shape", None) == () else item[1]
    return as_array(Place(name, f"{what}inputs"), [item[0]])[0], label


def _not_pairs(name: str, what: str, found: str) -> SettingsError:
    return SettingsError(
        "data.name",
        name,
        "Return pairs (input, label)",
        f"{what}samples of {spoken(name)} must be pairs, but found {found}",
    )


def _same(one: Array, other: Array) -> bool:
    return one.shape == other.shape and one.tobytes() == other.tobytes()
