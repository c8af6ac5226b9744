"""Seconds of one image's step, by the project's own clock; and phone and link from one row of the paper's Table 1."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ray_split import config
from ray_split.arrays import Array
from ray_split.config.devices import Device, Link
from ray_split.costs.phone_memory import phone_memory
from ray_split.costs.position_costs import PositionCosts, scan_of
from ray_split.costs.virtual_clock import Clock
from ray_split.costs.workload import Line, Weights, Work
from ray_split.data.partitions import Partition
from ray_split.data.stream import Stream
from ray_split.experiments.paper.published import FITTED, NETWORKS, Network
from ray_split.schedules import schedule_of

VALUE_BYTES = 19.75  # of a number in JSON: measured on the paper's published server, 4.0 MB of text for 0.81 MB
FLOAT = 4  # bytes of a number as ours has it
PLAIN_SGD = config.Optimizer(name="sgd")
STEPS = (1, 2)  # a step is what a round of two takes more than one of one: weights that cross at its ends fall out
NO_TIME = 1e15  # a rate so high that what is left is the rest


class Step(NamedTuple):
    """Seconds of one image's step."""

    phone: float
    server: float
    communication: float

    @property
    def overall(self) -> float:
        """All of it: nothing is at the same time as anything else."""
        return sum(self)


class Calibrated(NamedTuple):
    """What the paper ran on, as ResNet50's row tells."""

    phone: Device
    server: Device
    link: Link  # from program to program, what writes and reads the text included
    text: float  # the share of a message's time that is this: not in the paper's communication, but in its overall


def scan_network(network: Network, size: int | None = None) -> PositionCosts:
    """Every position of a network, for one image of its size or of another one."""
    model = config.Model(name=network.model, num_classes=1000, kwargs=network.kwargs)
    return scan_of(model, (3, size or network.size, size or network.size), batch=1)


def place(scan: PositionCosts, layer: str) -> int:
    """The position after a layer."""
    return next(i for i, position in enumerate(scan.positions) if layer in position.names)


def work_of(scan: PositionCosts, first: str, last: str | None) -> Work:
    """Of one image's step, cut after `first`, and after `last` in a double split."""
    at = [place(scan, layer) for layer in (first, last) if layer is not None]
    forward, backward = (_parts(scan, column, at) for column in (scan.costs.forward, scan.costs.backward))
    ways = [scan.at(column)[at] / FLOAT * VALUE_BYTES for column in (scan.costs.crossing, scan.costs.returning)]
    sizes, gradients = ([*(Line(float(size)) for size in way), Line(0.0)][:2] for way in ways)
    return Work(
        a_forward=forward[0], a_backward=backward[0], b_forward=forward[1], b_backward=backward[1],
        c=Line(forward[2].per_sample + backward[2].per_sample), activation=sizes[0], hidden=sizes[1],
        hidden_gradient=gradients[1], activation_gradient=gradients[0], ends=Weights(), middle=Weights(),
    )  # fmt: skip


def _parts(scan: PositionCosts, column: Array, at: list[int]) -> list[Line]:
    """Of A, B and C, what is left of the cuts, between them, and right of them; C's is 0 in a single split."""
    until = [0.0, *scan.up_to(column)[at], float(column.sum())]
    return [*(Line(float(part)) for part in np.diff(until)), Line(0.0)][:3]


def memory_mb(scan: PositionCosts, first: str | None, last: str) -> float:
    """Of the phone at the step's peak: of A and C, or of the whole network without a first cut."""
    at = np.asarray([place(scan, last)])
    cut = at if first is None else np.asarray([place(scan, first)])
    return float(phone_memory(scan, PLAIN_SGD, cut, at)[0]) / 1e6


def seconds(work: Work, phone: Device, link: Link, server: Device, schedule: str = "sequential") -> Step:
    """Of one image's step: one phone, one step, a batch of one, by ray_split's clock."""
    one, two = (_round(work, phone, link, server, schedule, steps) for steps in STEPS)
    return Step(*(float(two[part][0] - one[part][0]) for part in Step._fields))


def _round(work: Work, phone: Device, link: Link, server: Device, schedule: str, steps: int) -> dict[str, Array]:
    wire = {name: getattr(link, name) for name in Link._fields[1:-1]}
    single = not work.hidden.per_sample
    settings = config.Config(
        model={"cuts": ["first"] if single else ["first", "last"]}, data={"batch_size": 1},
        phones={"count": 1, "local_steps": steps, "device": {"gflops": phone.gflops}, "link": wire},
        server={"device": {"gflops": server.gflops}}, schedule={"name": schedule},
    )  # fmt: skip
    partition = Partition(np.arange(STEPS[-1]), np.asarray([0, STEPS[-1]]))
    stream = Stream(settings, partition, schedule_of(settings.schedule).order)
    return Clock(settings, work).round(stream, 0).parts


def alone(work: Work, found: Calibrated) -> float:
    """Seconds of an image's step on the phone, unsplit: as in federated learning."""
    return seconds(work, found.phone, found.link, found.server, schedule="fedavg").phone


def calibrate(double: Work, single: Work, server: Device, memory: float, text: bool = True) -> Calibrated:
    """From the five numbers of ResNet50's row, its network cut as assumed.

    On the phone alone gives the phone's rate; the two communications give latency and bandwidth (up and down alike,
    which one row can't tell apart); the two overalls give by least squares how much longer a message takes than its
    communication says. Without `text` that is assumed to be nothing.
    """
    row, source = NETWORKS[FITTED].paper, f"calibrated: {FITTED}'s row"
    assert row.alone is not None
    phone = Device("paper", sum(part.per_sample for part in double[:5]) / row.alone / 1e9, memory, source)  # all FLOPs
    told = np.asarray([row.communication_double, row.communication_single])
    per_message, per_bit = np.linalg.solve(_linear((double, single), phone, server), told)
    rest = np.asarray([row.overall_double, row.overall_single]) - told
    longer = 1 + float((rest - _computing((double, single), phone, server)) @ told / (told @ told)) * text
    mbps = float(1 / (per_bit * longer))
    link = Link("paper", mbps, mbps, float(per_message * longer * 1e3), 0.0, 0.0, source)
    return Calibrated(phone, server, link, 1 - 1 / longer)


def _linear(works: tuple[Work, Work], phone: Device, server: Device) -> Array:
    """Seconds of communication of each work: with 1 s a message and no more, and with 1 s for a million bits."""
    only_latency = Link("latency", NO_TIME, NO_TIME, 1e3, 0.0, 0.0, "to find how many messages there are")
    only_bits = Link("bits", 1.0, 1.0, 0.0, 0.0, 0.0, "to find how many bits there are")
    links = (only_latency, only_bits)
    return np.asarray([[seconds(work, phone, link, server).communication for link in links] for work in works])


def _computing(works: tuple[Work, Work], phone: Device, server: Device) -> Array:
    free = Link("free", NO_TIME, NO_TIME, 0.0, 0.0, 0.0, "to find what is computed")
    return np.asarray([seconds(work, phone, free, server).overall for work in works])


def predict(work: Work, found: Calibrated, link: Link | None = None) -> tuple[float, float]:
    """Overall and communication, as the paper's two columns have them; over another link, with the same text."""
    here = seconds(work, found.phone, found.link, found.server)
    step = here if link is None else seconds(work, found.phone, link, found.server)
    return step.overall, step.communication - found.text * here.communication
