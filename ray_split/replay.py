"""A run's stream for people: to replay it in a reference loop.

for draw in rs.stream(config):
    inputs, labels = batches.of(draw)   # batches = rs.Batches(config, rs.load_data(config.data))
"""

from __future__ import annotations

from collections.abc import Iterator

from ray_split import config
from ray_split.data import load as data
from ray_split.data import partitions
from ray_split.data.stream import Draw, Stream
from ray_split.preparation.prepare import prepare, with_held_out
from ray_split.schedules import schedule_of


def stream(settings: config.Config) -> Iterator[Draw]:
    """All local steps of a run, in order; indices are of `ray_split.load_data(config.data).train`.

    Raises SettingsError.
    """
    steps = _stream(settings)
    for round in range(settings.run.rounds):
        yield from steps.draws(round)


def _stream(settings: config.Config) -> Stream:
    if (settings.phones.device, settings.phones.link, settings.server.device, settings.phones.deadline) != (None,) * 4:
        return prepare(settings).stream  # who is late, or has too little memory, depends on the model
    schedule = schedule_of(settings.schedule)
    settings = with_held_out(settings, schedule)
    parts = data.load(settings.data)
    return Stream(settings, partitions.deal(settings, parts.train.labels, parts.groups), schedule.order)
