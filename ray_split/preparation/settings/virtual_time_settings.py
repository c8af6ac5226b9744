"""What follows from describing phones, links or the server: virtual time, and which phones the model doesn't fit."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch

from ray_split import config
from ray_split.arrays import Array
from ray_split.costs.cut_positions import Position
from ray_split.costs.phone_memory import phone_memory
from ray_split.costs.position_costs import PositionCosts, scan_of
from ray_split.costs.virtual_clock import Clock
from ray_split.costs.workload import work_of
from ray_split.cutting.cut import Segments
from ray_split.data.phone_devices import devices_of
from ray_split.errors import SettingsError
from ray_split.schedules import schedule_of

DEFAULTS = {"device": "mid_range", "link": "wifi"}
SERVER = "rtx_2080"

logger = logging.getLogger(__name__)


def described(settings: config.Config) -> config.Config:
    """The settings with phones, links and server all described, if any of them is. Raises SettingsError."""
    phones, server = settings.phones, settings.server
    if phones.device is None and phones.link is None and server.device is None:
        if phones.deadline is not None:
            wrong = "can't be used without virtual time"
            allowed = "Set phones.device, phones.link or server.device too, or remove phones.deadline"
            raise SettingsError("phones.deadline", phones.deadline, allowed, wrong)
        return settings
    own = {name: default for name, default in DEFAULTS.items() if getattr(phones, name) is None}
    return settings.with_values(phones=own, server={"device": server.device or SERVER})


def clock_of(
    settings: config.Config, segments: Segments, examples: Sequence[torch.Tensor], labels: torch.Tensor
) -> Clock | None:
    """The clock of a run's virtual time, if it is described. Raises SettingsError."""
    if settings.phones.device is None:
        return None
    return Clock(settings, work_of(settings, segments, examples, labels))


def fitting(settings: config.Config, example: torch.Tensor) -> config.Config:
    """The settings without the phones whose memory training doesn't fit, or refused. Raises SettingsError."""
    devices, chosen = devices_of(settings.phones.device, settings.run.seed, settings.phones.count)
    limits = np.array([device.memory_mb for device in devices])
    if np.isinf(limits).all():
        return settings
    try:
        needed = _needed_mb(settings, example)
    except SettingsError as error:
        logger.warning("whether training fits the phones' memory is not known: %s", error)
        return settings
    small = needed > limits
    phones = np.flatnonzero(small[chosen])
    if not len(phones):
        return settings
    names = ", ".join(f"{devices[i].name} has {limits[i]:g} MB" for i in np.flatnonzero(small))
    if settings.phones.on_misfit == "refuse":
        wrong = (
            f"a batch of {len(example)} needs {needed:.4g} MB on a phone, but {len(phones)} of "
            f"{settings.phones.count} phones have less ({names})"
        )
        allowed = "Choose larger devices, lower data.batch_size, or set phones.on_misfit to skip (without those phones)"
        raise SettingsError("phones.device", settings.phones.device, allowed, wrong)
    if len(set(settings.phones.left_out) | set(phones.tolist())) == settings.phones.count:
        wrong = f"would leave out every phone, because training needs {needed:.4g} MB there but {names}"
        allowed = "Choose larger devices, or lower data.batch_size"
        raise SettingsError("phones.on_misfit", settings.phones.on_misfit, allowed, wrong)
    told = "%d of %d phones are left out: training needs %.4g MB there, and %s"
    logger.warning(told, len(phones), settings.phones.count, needed, names)
    return settings.with_values(phones={"left_out": {**settings.phones.left_out, **dict.fromkeys(phones.tolist(), 0)}})


def _needed_mb(settings: config.Config, example: torch.Tensor) -> float:
    scanned = scan_of(settings.model, example.shape[1:], len(example), example.dtype)
    return float(_needed(settings, scanned)) / 1e6


def _needed(settings: config.Config, scanned: PositionCosts) -> float:
    """Peak bytes of what a phone has of the model: A and C, or all of it."""
    if not schedule_of(settings.schedule).on_server:
        end = Position(("the whole model",), len(scanned.costs.forward) - 1, True)
        return float(phone_memory(scanned._replace(positions=[end]), settings.optimizer, np.array([0]), None)[0])
    places = [_place(scanned, name) for name in settings.model.cuts or ()]
    first, second = places[0], places[1] if places[1:] else None
    return float(phone_memory(scanned, settings.optimizer, first, second)[0])


def _place(scanned: PositionCosts, cut: str) -> Array:
    found = [i for i, position in enumerate(scanned.positions) if cut in position.names]
    if not found:
        raise SettingsError(
            "model.cuts",
            cut,
            "Cut after a layer that 'ray-split plan' lists",
            f"the memory needed at {cut} isn't known",
        )
    return np.array(found[:1])
