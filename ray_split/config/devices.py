"""What phones and server are simulated to be: profiles of devices and of links.

A setting is a profile's name, numbers of one's own as a mapping, or over phones a mix of these by weights. All is of
public knowledge or assumed, as `source` says; docs/devices.md has the table.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple, TypeVar

import numpy as np
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError

from ray_split.arrays import Array
from ray_split.config.fields import NotNegative, Positive, Section, typed
from ray_split.config.user_code.plugins import suggest
from ray_split.config.validation import one_line
from ray_split.errors import SettingsError, listed, shown

OWN_DEVICE, OWN_LINK = "'{gflops: 5}'", "'{up_mbps: 10, down_mbps: 50, latency_ms: 20}'"
PACKET = 1448  # bytes of a message in a packet of 1,500


class Device(NamedTuple):
    """What computes. `gflops` are sustained in training, far below what data sheets call peak."""

    name: str
    gflops: float
    memory_mb: float  # that training may take
    source: str


class Link(NamedTuple):
    """Between a phone and the server. Numbers, or arrays of them with an element for each phone."""

    name: str
    up_mbps: Any
    down_mbps: Any
    latency_ms: Any  # one way, of every message
    jitter_ms: Any  # the mean of what a message takes more; exponentially distributed
    loss: Any  # share of the packets that are lost, and sent again
    source: str

    def seconds(self, size: Any, up: bool, draw: Array | tuple[float, float] = (0.0, 0.0)) -> Any:
        """That a message of `size` bytes takes; `draw` (2, ...) in [0, 1) decides jitter, and loss.

        A lost packet is noticed and sent again within a round trip; if it is lost again, within one more. Each draw
        the same, a link that is better in any of its numbers is never slower.
        """
        rate = (self.up_mbps if up else self.down_mbps) * 1e6 / 8
        late = self.latency_ms - self.jitter_ms * np.log1p(-np.asarray(draw[0]))
        again = 2 * self.latency_ms * _resends(np.asarray(size), np.asarray(self.loss, float), np.asarray(draw[1]))
        return size / (rate * (1 - self.loss)) + (late + again) / 1e3


def _resends(size: Array, loss: Array, draw: Array) -> Array:
    """How often in a row the unluckiest of a message's packets is lost, by a draw in [0, 1)."""
    packets = np.maximum(np.ceil(size / PACKET), 1)
    with np.errstate(divide="ignore"):
        one = -np.expm1(np.log(draw) / packets)  # of the same outcome for one packet: lost again with this probability
        found: Array = np.ceil(np.log(one) / np.log(loss)) - 1
    return np.where(loss > 0, np.maximum(found, 0), 0)


PHONE = "assumed: 5 % of the fast cores' peak in 32 bits (cores x GHz x FLOPs a cycle), a quarter of"
IMAGES = "ResNet50, public benchmarks, x 24.6 GFLOPs an image: images/s"

DEVICES = {
    device.name: device
    for device in (
        Device("low_end", 3.0, 500.0, f"{PHONE} 2 GB: 4 Cortex-A53 x 2.0 x 8 (2018, entry)"),
        Device("mid_range", 8.0, 1500.0, f"{PHONE} 6 GB: 4 Cortex-A78 x 2.4 x 16 (2022, middle)"),
        Device(
            "high_end", 14.0, 3000.0, f"{PHONE} 12 GB: Cortex-X3 x 3.2 x 32 and 4 A715/A710 x 2.8 x 16 (2023, best)"
        ),
        Device("raspberry_pi_4", 5.0, 3000.0, "assumed: 10 % of peak, 4 Cortex-A72 x 1.5 x 8, of 4 GB (data sheet)"),
        Device("laptop", 100.0, 8000.0, "assumed: 13 % of peak, 8 cores with AVX2 x 3.0 x 32, half of 16 GB"),
        Device("k80", 1300.0, 12000.0, f"{IMAGES} 52, one of the board's two GPUs: 46 % of 2.8 TFLOP/s"),
        Device("rtx_2080", 5000.0, 8000.0, f"{IMAGES} about 205: 50 % of 10.1 TFLOP/s"),
        Device("a100", 20000.0, 80000.0, f"{IMAGES} about 800 with TF32: 13 % of 156 TFLOP/s"),
        Device("h100", 33000.0, 80000.0, "assumed: the A100's, by memory bandwidth (3.35 over 2.04 TB/s)"),
        Device("h200", 47000.0, 141000.0, "assumed: the A100's, by memory bandwidth (4.8 over 2.04 TB/s)"),
    )
}

LINKS = {
    link.name: link
    for link in (
        Link("same_network", 100.0, 100.0, 2.0, 1.0, 0.0, "assumed: phone and server on one wifi"),
        Link("cloud_tcp", 20.0, 100.0, 25.0, 3.0, 0.001, "assumed: home line, data centre on the same continent"),
        Link("tunnel", 8.0, 20.0, 90.0, 15.0, 0.005, "assumed: as cloud_tcp, through a relay and several hops"),
        Link("wifi", 40.0, 90.0, 12.0, 4.0, 0.001, "as Ookla's medians of fixed lines, 2024; the rest assumed"),
        Link("5g", 20.0, 200.0, 20.0, 8.0, 0.002, "as Opensignal's averages of 2023-2024; the rest assumed"),
        Link("4g", 9.0, 30.0, 30.0, 12.0, 0.005, "as Opensignal's averages of 2019-2023; the rest assumed"),
        Link("3g", 1.5, 4.0, 80.0, 30.0, 0.01, "as Opensignal's averages of 2017-2019; the rest assumed"),
    )
}


class _OwnDevice(Section):
    """Numbers of one's own."""

    gflops: Positive
    memory_mb: Positive | None = None


class _OwnLink(Section):
    up_mbps: Positive
    down_mbps: Positive
    latency_ms: NotNegative = 0.0
    jitter_ms: NotNegative = 0.0
    loss: float = Field(0.0, ge=0, lt=1)


class _Part(Section):
    """Of a mix."""

    of: Any
    weight: Positive


Setting = Any
"""A profile's name, or a mapping of numbers; of phones also a list of mappings `of` and `weight`."""

P = TypeVar("P", Device, Link)


def device_of(setting: Setting) -> Device:
    """The device of a setting. Raises ValueError."""

    def own(values: dict[str, Any]) -> Device:
        numbers = _numbers(_OwnDevice, values)
        return Device("own", numbers["gflops"], numbers["memory_mb"] or math.inf, "own")

    return _profile(setting, DEVICES, own)


def link_of(setting: Setting) -> Link:
    """The link of a setting. Raises ValueError."""
    return _profile(setting, LINKS, lambda own: Link("own", **_numbers(_OwnLink, own), source="own"))


def _profile(setting: Setting, known: dict[str, P], own: Callable[[dict[str, Any]], P]) -> P:
    if isinstance(setting, dict):
        return own(setting)
    name = str(setting)
    if name not in known:
        what, example = ("device", OWN_DEVICE) if known is DEVICES else ("link", OWN_LINK)
        there = f"Choose {listed(known, 'or')}, or give numbers of your own, such as {example}"
        raise SettingsError("", name, suggest(name, known, there), f"there is no {what} {shown(name)}")
    return known[name]


def _numbers(kind: type[Section], values: dict[str, Any]) -> dict[str, Any]:
    try:
        return kind.model_validate(values).model_dump()
    except ValidationError as error:
        names = list(kind.model_fields)
        if unknown := [str(name) for name in values if name not in names]:
            near = suggest(unknown[0], names, f"The mapping may have {listed(names)}")
            raise SettingsError("", values, near, f"the mapping can't have {shown(unknown[0])}") from None
        told, what = one_line(error, kind), error.errors()[0]["type"]
        do, wrong = told.allowed if told.wrong else "", f"in the mapping, {told.field} {told.fault}"
        if what == "missing":
            do, wrong = f"Add '{told.field}: NUMBER'", f"the mapping lacks {told.field}"
        raise SettingsError("", told.value, do, wrong) from None


def mix_of(setting: Setting, profile: Callable[[Setting], P]) -> list[tuple[P, float]]:
    """Profiles with their weights; of a setting that is no mix, the one. Raises ValueError."""
    if not isinstance(setting, list):
        return [(profile(setting), 1.0)]
    parts = [_numbers(_Part, part if isinstance(part, dict) else {"of": part}) for part in setting]
    if not parts:
        raise ValueError("a mix of one part or more, such as [{of: mid_range, weight: 3}, {of: low_end, weight: 1}]")
    return [(profile(part["of"]), float(part["weight"])) for part in parts]


def _parsed(value: Any) -> Any:
    """On a command line mappings and lists are YAML."""
    if not isinstance(value, str) or value[:1] not in ("{", "["):
        return value
    return typed(value, f"a mapping such as {OWN_DEVICE}")


def _checked(check: Callable[[Setting], object]) -> AfterValidator:
    def checked(setting: Setting) -> Setting:
        if setting is not None:
            check(setting)
        return setting

    return AfterValidator(checked)


DeviceSetting = Annotated[Any, BeforeValidator(_parsed), _checked(device_of)]
DeviceMix = Annotated[Any, BeforeValidator(_parsed), _checked(lambda setting: mix_of(setting, device_of))]
LinkMix = Annotated[Any, BeforeValidator(_parsed), _checked(lambda setting: mix_of(setting, link_of))]
