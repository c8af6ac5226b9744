"""Time series that come with aeon, from the UCR and UEA archive: inputs (N, channels, length)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ray_split.arrays import Array
from ray_split.data.sequences import Sequences
from ray_split.data.sources.package_files import file_of
from ray_split.data.types import DataSet, Part

Samples = tuple[list[Array], list[str]]
"""Series (channels, length), of lengths of their own, and the class of each."""


def japanese_vowels(padded: bool = False) -> DataSet:
    """270 and 370 utterances of two vowels by nine speakers, who are the classes (Kudo, Toyama and Shimbo 1999).

    12 coefficients of 7 to 29 time steps: sequences (12, length); or, `padded`, all of (12, 29), with zeros after the
    end. Groups: 'speaker'. Raises SettingsError.
    """
    train, test = (_read("japanese_vowels", "JapaneseVowels", part) for part in ("TRAIN", "TEST"))
    parts = [_padded(*each, 29) if padded else _sequences(*each) for each in (train, test)]
    return DataSet(parts[0], parts[1], groups={"speaker": np.array(train[1])})


def basic_motions() -> DataSet:
    """40 and 40 recordings of a smart watch, standing, running, walking or at badminton (UEA archive, Bagnall 2018).

    Three axes of its accelerometer and three of its gyroscope, 10 seconds at 10 Hz: (6, 100), each channel
    standardised by the training part. Raises SettingsError.
    """
    parts = [_read("basic_motions", "BasicMotions", part) for part in ("TRAIN", "TEST")]
    train, test = (filled(series, 100) for series, _ in parts)
    mean, std = train.mean((0, 2), keepdims=True), train.std((0, 2), keepdims=True)
    standardised = [Part((inputs - mean) / std, np.array(parts[i][1])) for i, inputs in enumerate((train, test))]
    return DataSet(standardised[0], standardised[1])


def _read(data_set: str, name: str, part: str) -> Samples:
    path = file_of(data_set, "aeon", f"datasets/data/{name}/{name}_{part}.ts")
    series, classes = zip(*_lines(path), strict=True)
    return list(series), list(classes)


def _lines(path: Path) -> Iterator[tuple[Array, str]]:
    """Each sample of a .ts file: after the header channels with colons between, then the class."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if not line.startswith(("#", "@")) and line.strip():
                *channels, label = line.strip().split(":")
                yield np.array([channel.split(",") for channel in channels]).astype(np.float64), label


def _sequences(series: Sequence[Array], labels: Sequence[str]) -> Part:
    return Part(Sequences.of([each.astype(np.float32) for each in series], axis=1), np.array(labels))


def _padded(series: Sequence[Array], labels: Sequence[str], length: int) -> Part:
    return Part(filled(series, length), np.array(labels))


def filled(series: Sequence[Array], length: int) -> Array:
    """Series (channels, at most `length`) as one array (N, channels, length) of float32, with zeros after their end."""
    found = np.zeros((len(series), len(series[0]), length), np.float32)
    for row, values in zip(found, series, strict=True):
        row[:, : values.shape[1]] = values
    return found
