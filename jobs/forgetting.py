"""Does a schedule forget its first phones? Each phone's own accuracy by its place in the round's order.

python -m jobs.forgetting RUN [RUN ...]: folders of runs with phones.held_out; a line for each fifth of the order.
With --trust before them also of data sets and schedules of your own: what the folders name is imported.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas

import ray_split as rs
from ray_split.config.user_code.plugins import named_by
from ray_split.data import partitions
from ray_split.data.length_groups import lengths_of
from ray_split.data.stream import Stream
from ray_split.errors import SettingsError, first_line, shown
from ray_split.schedules import schedule_of

PARTS = 5
WITH = "that was trained with phones.held_out"


def places(folder: Path, trust: bool = False) -> Iterator[tuple[float, float]]:
    """(place in the order from 0 to 1, accuracy on its own samples) of every phone and evaluated round of a run.

    What the run's settings name is imported only with `trust`. Raises SettingsError.
    """
    if not (folder / "config.yaml").is_file():
        wrong = f"{shown(str(folder))} is not a run's folder: there is no config.yaml in it"
        raise SettingsError("", str(folder), "Give the folder of a run", wrong)
    settings = rs.Config.from_yaml(folder / "config.yaml")
    with named_by(folder, trust):
        parts = rs.load_data(settings.data)
        partition = partitions.deal(settings, parts.train.labels, parts.groups)
        lengths = lengths_of(settings, parts)
        stream = Stream(settings, partition, schedule_of(settings.schedule).order, lengths=lengths)
    try:
        table = pandas.read_parquet(folder / "phones.parquet").dropna(subset=["test_accuracy"])
    except (OSError, ValueError, KeyError) as error:
        wrong = f"{folder / 'phones.parquet'} can't be read: {first_line(error)}"
        raise SettingsError("", str(folder), f"Give the folder of a run {WITH}", wrong) from error
    for round, phones in table.groupby("round"):
        order = {phone: place for place, phone in enumerate(stream.phones(int(str(round))))}
        for phone, accuracy in zip(phones["phone"], phones["test_accuracy"], strict=True):
            if phone in order:
                yield order[phone] / len(order), float(accuracy)


def by_fifths(folders: list[Path], trust: bool = False) -> list[float]:
    """Mean accuracy of the phones in each fifth of the order, over rounds and runs."""
    found = np.array([pair for folder in folders for pair in places(folder, trust)])
    if not len(found):
        wrong = "these runs have no phone's accuracy on samples of its own"
        raise SettingsError("", " ".join(map(str, folders)), f"Give folders of runs {WITH}", wrong)
    part = np.minimum((found[:, 0] * PARTS).astype(int), PARTS - 1)
    if empty := sorted(set(range(PARTS)) - set(part.tolist())):
        wrong = f"no phone is in {len(empty)} of the fifths"
        allowed = f"Name folders of runs with {PARTS} phones a round or more"
        raise SettingsError("", " ".join(map(str, folders)), allowed, wrong)
    return [float(found[part == i, 1].mean()) for i in range(PARTS)]


def main(arguments: list[str]) -> int:
    """Print the fifths."""
    words = [word for word in arguments if word != "--trust"]
    if not words or {"-h", "--help"} & set(words):
        print(__doc__, file=sys.stderr if not words else sys.stdout)
        return 0 if words else 2
    folders = [Path(word) for word in words]
    try:
        fifths = by_fifths(folders, "--trust" in arguments)
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for i, accuracy in enumerate(fifths):
        print(f"phones {i * 100 // PARTS:3d} % to {(i + 1) * 100 // PARTS:3d} % of the order: {accuracy:.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
