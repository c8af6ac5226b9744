"""Virtual time: how long a round takes on the phones, links and server that the settings describe.

A round's schedule is run once more with recording handles; each call of a cohort is one of each of its phones. A
phone's calls follow each other. The server, or each of its replicas, serves in the order of submission, one phone's
batch at a time, or all of a joint step together; it waits for who is next, also if another is there before: were they
served by arrival, a faster phone could make a round later. docs/devices.md says what is modelled and what is not.
Times are in seconds since the round's start. Shapes: K phones of a round, in its order, S steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ray_split import config
from ray_split.algorithms import contrast_of
from ray_split.arrays import Array
from ray_split.config.devices import Link, device_of
from ray_split.costs.recorded_calls import Merged, replay
from ray_split.costs.virtual_timeline import Durations, Span, Timeline
from ray_split.costs.workload import Work
from ray_split.data.participation import Ends
from ray_split.data.phone_devices import devices_of, gathered, links_of
from ray_split.data.stream import Stream
from ray_split.schedules import schedule_of
from ray_split.schedules.roles import is_single
from ray_split.seeds import uniform

MESSAGES = ("activation", "hidden", "hidden_gradient", "activation_gradient")
UP = {"activation": True, "hidden": False, "hidden_gradient": True, "activation_gradient": False}
AT_ENDS = 0  # the place of a round's first and last message in the draws; steps come after it


class Times(NamedTuple):
    """A round in virtual time; arrays are of its phones (K,), in their order."""

    phones: Array
    seconds: Array  # until the phone is through
    parts: dict[str, Array]  # of these seconds: PARTS
    step_ends: Array  # (K, S); infinite where a phone has no such step
    spans: Sequence[Span] = ()

    @property
    def whole(self) -> float:
        """Until the last one is through."""
        return float(self.seconds.max(initial=0.0))

    def row(self, over: float | None = None) -> dict[str, float]:
        """The round's figures in metrics.jsonl: its seconds, and of the phones' the mean of each part.

        `over`: when the round ended, if that is not when the last one is through.
        """
        means = {f"virtual_{name}_seconds": float(part.mean()) for name, part in self.parts.items()}
        return {"virtual_seconds": self.whole if over is None else over, **(means if len(self.phones) else {})}

    def columns(self, phones: Array) -> dict[str, Array]:
        """Columns of phones.parquet; not a number of phones that are not the round's."""
        order = np.argsort(self.phones)
        there = np.isin(phones, self.phones)
        places = order[np.searchsorted(self.phones, phones[there], sorter=order)]
        columns = {}
        for name, values in {"virtual_seconds": self.seconds, **_named(self.parts)}.items():
            columns[name] = np.full(len(phones), np.nan)
            columns[name][there] = values[places]
        return columns


def _named(parts: dict[str, Array]) -> dict[str, Array]:
    return {f"virtual_{name}_seconds": part for name, part in parts.items()}


class Clock:
    """The virtual time of a run's rounds."""

    def __init__(self, settings: config.Config, work: Work) -> None:
        phones, seed, count = settings.phones, settings.run.seed, settings.phones.count
        devices, chosen = devices_of(phones.device, seed, count)
        self.work = work
        self._seed = seed
        self._rates = np.array([device.gflops * 1e9 for device in devices])[chosen]
        self._links = gathered(*links_of(phones.link, seed, count))
        self._server = device_of(settings.server.device).gflops * 1e9
        schedule = schedule_of(settings.schedule)
        self._schedule, self._hands_on = schedule.bind(settings.schedule.kwargs), not schedule.averages
        self._joint_batch = schedule.way_with(settings.schedule.kwargs) == "joint_batch"
        self._beside = 0 if contrast_of(settings.algorithm) is None else 2  # further models that a batch goes through
        self._servers, self._single = settings.server.replicas, is_single(settings)

    def round(self, stream: Stream, round: int, spans: bool = False) -> Times:
        """A round by its stream; with `spans` for a picture of it."""
        phones = np.array(stream.phones(round), int)
        merged = Merged(stream, self._servers)
        taken, durations = merged.taken(round, phones), self._durations(merged, round, phones)
        timeline = Timeline(phones, taken, durations, self._servers, spans, self._joint_batch)
        if len(phones):
            replay(self._schedule, merged, round, timeline.submit, self._servers, self._single)
        return Times(phones, timeline.now, timeline.parts, timeline.step_ends, timeline.spans)

    def ends(self, stream: Stream, round: int) -> Ends:
        """When the round's phones are through."""
        times = self.round(stream, round)
        return Ends(times.seconds, times.step_ends)

    def step_ends(self, stream: Stream, round: int) -> Array:
        """When each step of the round's phones ends (K, S), in their order; infinite if it has none."""
        return self.round(stream, round).step_ends

    def _durations(self, stream: Stream, round: int, phones: Array) -> Durations:
        """Of every call and message of the round."""
        steps, work = int(stream.steps(phones).max(initial=0)), self.work
        sizes = np.stack([stream.batch_sizes(phones, step) for step in range(steps)] or [np.zeros(len(phones))])
        rates, link = self._rates[phones], _of(self._links, phones)
        draws = self._draws(round, phones, steps + 1)
        crossing = {
            name: link.seconds(getattr(work, name).at(sizes), UP[name], draws[i, :, 1:])
            for i, name in enumerate(MESSAGES)
        }
        ends = {
            name: link.seconds(size, up, draws[int(up), :, AT_ENDS])
            for name, (size, up) in self._weights(first=not round).items()
        }
        phone = {name: getattr(work, name).at(sizes) / rates for name in ("a_forward", "a_backward", "c")}
        middle = {name: getattr(work, f"b_{name}").at(sizes) for name in ("forward", "backward")}
        middle["learn"] = middle["forward"] + middle["backward"]
        beside = self._beside * (phone["a_forward"] + (0 if self._single else middle["forward"] / rates))
        serving = {name: flops / self._server for name, flops in middle.items()}
        return Durations(**phone, alone=sum(phone.values()) + middle["learn"] / rates + beside, serving=serving,
                         crossing=crossing, ends=ends)  # fmt: skip

    def _weights(self, first: bool) -> dict[str, tuple[float, bool]]:
        """Bytes of the weights that cross at a phone's beginning and end, and whether they go up."""
        ends, middle = self.work.ends, self.work.middle
        slots = ends.slots if self._hands_on else 0.0  # the optimizer is handed on with the weights
        return {
            "load": (ends.down + (0.0 if first else slots), False), "load whole": (ends.down + middle.down, False),
            "handed on": (ends.down + slots, False), "state": (ends.down + slots, True),
            "close": (ends.up, True), "close whole": (ends.up + middle.up, True),
        }  # fmt: skip

    def _draws(self, round: int, phones: Array, steps: int) -> Array:
        """For every message (messages, 2, steps, K)."""
        shape = (len(MESSAGES), 2, steps, len(phones))
        if not (np.any(self._links.jitter_ms) or np.any(self._links.loss)):
            return np.zeros(shape)
        each = [uniform(self._seed, "messages", round, phones, step, count=8) for step in range(steps)]
        return np.stack(each).reshape(steps, len(phones), *shape[:2]).transpose(2, 3, 0, 1)


def _of(link: Link, phones: Array) -> Link:
    return link._replace(**{name: getattr(link, name)[phones] for name in Link._fields[1:-1]})
