"""Adapters of other ranks for some phones: what they can't be used with, and how they are averaged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from ray_split import config
from ray_split.config.devices import device_of, mix_of
from ray_split.config.user_code.by_value import spoken
from ray_split.cutting.cut import Segments
from ray_split.errors import SettingsError, listed
from ray_split.schedules.schedule import Schedule
from ray_split.segments.adapters.pairs import pairs
from ray_split.segments.aggregators import PRODUCTS
from ray_split.segments.segment import tensors_of

FIELD = "model.lora.ranks"


class _Conflict(NamedTuple):
    field: str
    value: Any
    there: bool
    do: str
    why: str


def settle_ranks(settings: config.Config, schedule: Schedule) -> config.Config:
    """The settings with the average that ranks need, where phones have adapters of their own. Raises SettingsError."""
    lora = settings.model.lora
    if lora.ranks is None:
        return settings
    _check_ranks(settings)
    for field, value, there, do, why in _conflicts(settings, schedule):
        if there:
            raise SettingsError(field, value, do, f"can't be used with {FIELD}, {why}")
    # The mean of factors is not that of their products, and of other ranks least of all.
    return settings.with_values(aggregator={"name": PRODUCTS, "kwargs": {}})


def _check_ranks(settings: config.Config) -> None:
    lora, most = settings.model.lora, max(_numbers(settings))
    if lora.r is None:
        raise SettingsError("model.lora.r", None, f"Set the largest rank of {FIELD}, {most}", "is not set")
    if most > lora.r:
        wrong = f"has {most}, but the largest rank is model.lora.r, {lora.r}"
        raise SettingsError(FIELD, lora.ranks, f"Set model.lora.r {most}", wrong)
    if isinstance(lora.ranks, dict):
        _check_devices(settings, lora.ranks)


def _numbers(settings: config.Config) -> list[int]:
    ranks = settings.model.lora.ranks or []
    return [*ranks.values()] if isinstance(ranks, dict) else [share.of for share in ranks]


def _check_devices(settings: config.Config, ranks: dict[str, int]) -> None:
    if settings.phones.device is None:
        do = "Say which devices phones are, as phones.device '[{of: low_end, weight: 1}, {of: mid_range, weight: 1}]'"
        raise SettingsError("phones.device", None, do, f"is not set, and {FIELD} goes by it")
    there = dict.fromkeys(device.name for device, _ in mix_of(settings.phones.device, device_of))
    if without := [name for name in there if name not in ranks]:
        wrong = f"has no rank for {without[0]}, which is in phones.device"
        raise SettingsError(FIELD, ranks, f"Give one for each of {listed(there)}", wrong)
    if unknown := [name for name in ranks if name not in there]:
        wrong = f"has a rank for {unknown[0]}, which is not in phones.device"
        raise SettingsError(FIELD, ranks, f"Give one for each of {listed(there)}", wrong)


def _conflicts(settings: config.Config, schedule: Schedule) -> Iterator[_Conflict]:
    """What goes by the factors of adapters, one by one, and not by what they are to a layer."""
    name, aggregator = settings.schedule.name, settings.aggregator.name
    handed = "because a phone hands its adapters on to the next one, which has another rank"
    do = "Choose a schedule that averages, such as splitfed_v1"
    yield _Conflict("schedule.name", spoken(name), not schedule.averages, do, handed)
    other = aggregator not in ("mean", PRODUCTS)
    why = f"whose average is {PRODUCTS}"
    yield _Conflict("aggregator.name", spoken(aggregator), other, "Remove aggregator.name", why)
    for field, value in (
        ("algorithm.name", settings.algorithm.name),
        ("server_optimizer.name", settings.server_optimizer.name),
        ("optimizer.ema_decay", settings.optimizer.ema_decay),
    ):
        yield _Conflict(field, _spoken(value), value is not None, f"Remove {field}", _BY_FACTORS)
    ends = {"a", "c"} if schedule.on_server else {"a", "b", "c"}
    none = not ends & set(settings.model.lora.segments)
    do = "Add a or c to model.lora.segments, or remove model.lora.ranks"
    segments = settings.model.lora.segments
    yield _Conflict("model.lora.segments", segments, none, do, "because no phone has an adapter")


_BY_FACTORS = "because it takes an adapter's two factors apart, which change places as products are averaged"


def _spoken(value: Any) -> Any:
    return spoken(value) if isinstance(value, str) else value


def check_adapters(settings: config.Config, segments: Segments) -> None:
    """See that each adapter's product is one of two matrices. Raises SettingsError."""
    if settings.aggregator.name != PRODUCTS:
        return
    for module in segments.modules().values():
        if layer := _grouped(tensors_of(module)):
            wrong = f"can't be averaged as products: {layer} is a grouped convolution, whose adapter is several"
            raise SettingsError("model.lora.target_modules", settings.model.lora.target_modules, "Leave it out", wrong)


def _grouped(tensors: dict[str, Any]) -> str | None:
    found: Iterable[tuple[str, int, int]] = ((a, len(tensors[a]), tensors[b].shape[1]) for a, b in pairs(tensors))
    return next((a.removeprefix("weights/").partition(".lora_")[0] for a, r, other in found if r != other), None)
