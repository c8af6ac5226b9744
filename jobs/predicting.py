"""Seconds of one image's step for a phone, a link and a server, and these from one row of the paper's Table 1."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jobs.published import FITTED, NETWORKS, Network, Times
from ray_split import config
from ray_split.devices import Device, Link
from ray_split.phone_memory import phone_memory
from ray_split.scan import Scan, scan_of

VALUE_BYTES = 19.75  # of a number in JSON: measured on the paper's published server, 4.0 MB of text for 0.81 MB
FLOAT = 4  # bytes of a number as ours has it
PLAIN_SGD = config.Optimizer(name="sgd")


class Work(NamedTuple):
    """Of one image's step: FLOPs of the segments, forward and backward, and bytes of what crosses."""

    a: float
    b: float
    c: float
    activation: float  # bytes of text, as many as of its gradient
    hidden: float | None  # None: single split


class Step(NamedTuple):
    """Seconds of one image's step."""

    phone: float
    server: float
    communication: float

    @property
    def overall(self) -> float:
        """All of it: one after the other."""
        return sum(self)


class Calibrated(NamedTuple):
    """What the paper ran on, as ResNet50's row tells."""

    phone: Device
    server: Device
    link: Link  # from program to program, what writes and reads the text included
    text: float  # the share of a message's time that is this: not in the paper's communication, but in its overall


def scanned(network: Network, size: int | None = None) -> Scan:
    """Every position of a network, for one image of its size or of another one."""
    model = config.Model(name=network.model, num_classes=1000, kwargs=network.kwargs)
    return scan_of(model, (3, size or network.size, size or network.size), batch=1)


def place(scan: Scan, layer: str) -> int:
    """The position after a layer."""
    return next(i for i, position in enumerate(scan.positions) if layer in position.names)


def work_of(scan: Scan, first: str, last: str | None) -> Work:
    """Cut after `first`, and after `last` in a double split."""
    at = [place(scan, layer) for layer in (first, last) if layer is not None]
    left, crossing = scan.flops[at], scan.at(scan.costs.crossing)[at] / FLOAT * VALUE_BYTES
    if last is None:
        return Work(float(left[0]), float(scan.total_flops - left[0]), 0.0, float(crossing[0]), None)
    b, c = left[1] - left[0], scan.total_flops - left[1]
    return Work(float(left[0]), float(b), float(c), float(crossing[0]), float(crossing[1]))


def memory_mb(scan: Scan, first: str | None, last: str) -> float:
    """Of the phone at the step's peak: of A and C, or of the whole network without a first cut."""
    at = np.asarray([place(scan, last)])
    cut = at if first is None else np.asarray([place(scan, first)])
    return float(phone_memory(scan, PLAIN_SGD, cut, at)[0]) / 1e6


def seconds(work: Work, phone: Device, link: Link, server: Device) -> Step:
    """Of one image's step, nothing at the same time as anything else."""
    up, down = [work.activation], [work.activation]
    if work.hidden is not None:
        up, down = [*up, work.hidden], [*down, work.hidden]
    sent = sum(float(link.seconds(size, True)) for size in up) + sum(float(link.seconds(s, False)) for s in down)
    return Step((work.a + work.c) / phone.gflops / 1e9, work.b / server.gflops / 1e9, sent)


def alone(scan: Scan, phone: Device) -> float:
    """Seconds of an image's step on the phone, unsplit."""
    return float(scan.total_flops) / phone.gflops / 1e9


def calibrated(scan: Scan, double: Work, single: Work, server: Device, memory: float, text: bool = True) -> Calibrated:
    """From the five numbers of ResNet50's row, its network cut as assumed.

    On the phone alone gives the phone's rate; the two communications give latency and bandwidth (up and down alike,
    which one row can't tell apart); the two overalls give by least squares how much longer a message takes than its
    communication says. Without `text` that is assumed to be nothing.
    """
    row = NETWORKS[FITTED].paper
    assert row.alone is not None
    phone = Device("paper", float(scan.total_flops) / row.alone / 1e9, memory, f"calibrated: {FITTED}'s row")
    latency, per_byte = _link(row, double, single)
    longer = 1 + (_longer(row, double, single, phone, server) if text else 0.0)
    mbps = 8e-6 / per_byte / longer
    link = Link("paper", mbps, mbps, latency * longer * 1e3, 0.0, 0.0, f"calibrated: {FITTED}'s row")
    return Calibrated(phone, server, link, 1 - 1 / longer)


def _link(row: Times, double: Work, single: Work) -> tuple[float, float]:
    """Seconds of a message, and of a byte."""
    assert double.hidden is not None
    messages = [[4, 2 * (double.activation + double.hidden)], [2, 2 * single.activation]]
    latency, per_byte = np.linalg.solve(messages, [row.communication_double, row.communication_single])
    return float(latency), float(per_byte)


def _longer(row: Times, double: Work, single: Work, phone: Device, server: Device) -> float:
    computing = [(w.a + w.c) / phone.gflops / 1e9 + w.b / server.gflops / 1e9 for w in (double, single)]
    told = np.asarray([row.communication_double, row.communication_single])
    rest = np.asarray([row.overall_double, row.overall_single]) - told - computing
    return float(rest @ told / (told @ told))


def predicted(work: Work, found: Calibrated, link: Link | None = None) -> tuple[float, float]:
    """Overall and communication, as the paper's two columns have them; over another link, with the same text."""
    step = seconds(work, found.phone, link or found.link, found.server)
    text = found.text * seconds(work, found.phone, found.link, found.server).communication
    return step.overall, step.communication - text
