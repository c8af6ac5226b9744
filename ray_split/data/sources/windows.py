"""Tokens as samples: inputs (N, length), and as labels (N, length) the next token of each place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ray_split.arrays import Array
from ray_split.data.sequences import Sequences
from ray_split.data.types import TEST_FRACTION, DataSet, Part, without_test_part
from ray_split.messages.labels import IGNORED


class Tokens(NamedTuple):
    """A document's tokens (length,); the first `prompt` of them are not to be learned."""

    tokens: Array
    prompt: int = 0


def packed(documents: Sequence[Array], length: int, pad: int) -> Part:
    """Documents one after the other, cut in windows of `length` inputs, int64.

    A window's last label is the next one's first input, so each token but the first is a label once. What is left at
    the end is padded, and its labels there are ignored.
    """
    tokens = np.concatenate(documents) if documents else np.zeros(0, np.int32)
    learned = max(len(tokens) - 1, 0)
    inputs, labels = _empty(-(-learned // length), length, pad)
    inputs.reshape(-1)[:learned] = tokens[:-1]
    labels.reshape(-1)[:learned] = tokens[1:]
    return Part(inputs, labels)


def one_each(documents: Sequence[Tokens], length: int, pad: int) -> Part:
    """A sample of each document, cut at `length` or padded on the right, int64; labels of prompts are ignored.

    Some may have no label that counts.
    """
    # No mask is needed: a causal model looks to the left, where no padding is, and labels of padding are ignored.
    inputs, labels = _empty(len(documents), length, pad)
    for row, (tokens, prompt) in enumerate(documents):
        seen, wanted, first = tokens[:-1][:length], tokens[1:][:length], max(prompt - 1, 0)
        inputs[row, : len(seen)] = seen
        labels[row, first : len(wanted)] = wanted[first:]
    return Part(inputs, labels)


def may_be_unpadded(data: DataSet) -> bool:
    """Whether texts differ in length."""
    return len(set(_lengths(data.train).tolist())) > 1


def unpadded(data: DataSet) -> DataSet:
    """Each text as long as it is, up to the last token that it is learned after; copies no tokens."""
    train, test = (part._replace(inputs=_unpadded(part)) for part in (data.train, data.test))
    return replace(data, train=train, test=test)


def _unpadded(part: Part) -> Sequences:
    inputs = np.asarray(part.inputs)
    return Sequences(inputs.reshape(-1), np.arange(len(inputs)) * inputs.shape[1], _lengths(part))


def _lengths(part: Part) -> Array:
    """Of each text (N,) the tokens up to its last label that counts."""
    found: Array = part.labels.shape[1] - (part.labels[:, ::-1] != IGNORED).argmax(1)
    return found


def _empty(count: int, length: int, pad: int) -> tuple[Array, Array]:
    return np.full((count, length), pad, np.int64), np.full((count, length), IGNORED, np.int64)


def split(samples: Part, kind: str | None, groups: Array) -> DataSet:
    """Of each group the last fifth of its samples becomes the test part, as LEAF splits them by time.

    Without a `kind` of groups it is a fifth of all samples, always the same.
    """
    if kind is None:
        return without_test_part(*samples)
    _, group, counts = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.argsort(group, kind="stable")
    place = np.empty(len(group), np.int64)  # of a sample among those of its group
    place[order] = np.arange(len(group)) - np.repeat(np.cumsum(counts) - counts, counts)
    test = place >= (counts - np.round(counts * TEST_FRACTION).astype(np.int64))[group]
    rest = np.flatnonzero(~test)
    return DataSet(samples.subset(rest), samples.subset(np.flatnonzero(test)), groups={kind: groups[rest]})
