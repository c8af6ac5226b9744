"""What devices did since they were looked at last, phone by phone: for an operator's metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

MOST = 1000
"""Phones that are told of one by one: each is a series of its own. All others are one."""

OTHERS = "others"
COUNTED = ("up", "down", "seconds", "answers", "lost")

Figures = dict[str, float | None]


class DeviceFigures:
    """Of a gateway's devices, which may have been replaced by one that counts from 0."""

    def __init__(self) -> None:
        self._before: dict[int, dict[str, float]] = {}

    def of_all(self, devices: Sequence[Mapping[str, Any]]) -> tuple[Figures, dict[str, Figures]]:
        """The run's figures, and by label a phone's, of what the gateway says of its devices."""
        sums: dict[str, dict[str, float]] = {}
        for place, device in enumerate(devices):
            label = str(device["phone"]) if place < MOST else OTHERS
            own = sums.setdefault(label, dict.fromkeys(COUNTED, 0.0))
            for name, more in self._since(device).items():
                own[name] += more
        lost = sum(own["lost"] for own in sums.values())
        there = sum(bool(device["there"]) for device in devices)
        return {"devices_connected": there, "devices_lost": lost}, {n: _told(own) for n, own in sums.items()}

    def _since(self, device: Mapping[str, Any]) -> dict[str, float]:
        now = {name: float(device[name]) for name in COUNTED}
        before = self._before.get(device["phone"], {})
        self._before[device["phone"]] = now
        fresh = any(now[name] < value for name, value in before.items())
        return now if fresh else {name: value - before.get(name, 0.0) for name, value in now.items()}


def _told(own: Mapping[str, float]) -> Figures:
    mean = own["seconds"] / own["answers"] if own["answers"] else None
    return {"device_answer_seconds": mean, "device_bytes_up": own["up"], "device_bytes_down": own["down"]}
