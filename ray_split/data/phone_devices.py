"""Which phone has which device and which link: drawn from the settings' mix by the run's seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from ray_split.arrays import Array
from ray_split.config.devices import Device, Link, Setting, device_of, link_of, mix_of
from ray_split.seeds import uniform

T = TypeVar("T")


def drawn(mix: Sequence[tuple[T, float]], seed: int, purpose: str, count: int) -> tuple[list[T], Array]:
    """The parts of a mix, and which of them each of `count` phones has (count,): drawn by weight."""
    limits = np.cumsum([weight for _, weight in mix])
    chosen = np.searchsorted(limits[:-1] / limits[-1], uniform(seed, purpose, np.arange(count))[:, 0], side="right")
    return [part for part, _ in mix], chosen


def devices_of(setting: Setting, seed: int, count: int) -> tuple[list[Device], Array]:
    """The devices of a setting for `count` phones, and which of them each phone has (count,)."""
    return drawn(mix_of(setting, device_of), seed, "devices", count)


def links_of(setting: Setting, seed: int, count: int) -> tuple[list[Link], Array]:
    """As `devices_of`, of links."""
    return drawn(mix_of(setting, link_of), seed, "links", count)


def gathered(links: Sequence[Link], chosen: Array) -> Link:
    """Many phones' links as one, whose numbers are arrays (K,)."""
    columns = {name: np.array([getattr(link, name) for link in links])[chosen] for name in Link._fields[1:-1]}
    return Link("each its own", **columns, source="")
