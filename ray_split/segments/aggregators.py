"""How the weights of a round's phones become one: the mean, or a robust aggregate, against phones that send bad ones.

An aggregator's function is (rows, shares, start, **kwargs): of one segment the phones' weights and floating-point
buffers (P, ...), each phone's share of the round's samples (P,), and the state before the round (...); it returns the
state after it (...). Of integers (BatchNorm's num_batches_tracked) there is always the largest. To add one, write it
and its line in AGGREGATORS; the user's own may be such a function, or an Aggregator.
All but the mean need one round's phones x weights of memory where they are made, at the fed server (A, C) and at the
server (B's copies; of several replicas at one of them, and each its own copies' besides), and while a segment is
aggregated that segment's a second time.
Numbers in half precision come in single, complex ones as their two parts (..., 2).
numpy alone: the fed server's process has no torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ray_split import config
from ray_split.arrays import Array
from ray_split.config.user_code.by_value import spoken
from ray_split.config.user_code.plugins import FIX, find_record, signature_of, unknown_kwargs
from ray_split.errors import BROKEN, SettingsError, failed, shown
from ray_split.messages import bits
from ray_split.messages.state import Ends, Rows, State
from ray_split.segments.adapters.pairs import pairs
from ray_split.segments.adapters.products import averaged_factors


def mean(rows: State, shares: Array, start: State) -> State:
    """The mean weighted by shares. The clients add it up, so that only sums are kept; this is what they add up to.

    One phone can move it anywhere. Source: McMahan et al. 2017, https://arxiv.org/abs/1602.05629.
    """
    return {key: _added_up(array, shares) for key, array in rows.items()}


def median(rows: State, shares: Array, start: State) -> State:
    """The median of each coordinate. Shares are not used: each phone counts the same, as in the paper.

    Stays among the honest phones' values while fewer than half of the round's phones are hostile.
    Source: Yin et al. 2018, https://arxiv.org/abs/1803.01498, definition 1.
    """
    return {key: _middle(array, (len(shares) - 1) // 2) for key, array in rows.items()}


def trimmed_mean(rows: State, shares: Array, start: State, trim: float = 0.2) -> State:
    """The mean of each coordinate without its largest and its smallest values.

    `trim` is the share of the round's phones that is cut at each end: above 0, below 0.5, rounded up to whole phones,
    so at least one, but never so many that none is left: of one or two phones nothing is cut. Stays among the honest
    phones' values while no more are hostile than are cut at one end. Shares are not used: each phone counts the same,
    as in the paper.
    Source: Yin et al. 2018, https://arxiv.org/abs/1803.01498, definition 2.
    """
    if not _number(trim) or not 0 < trim < 0.5:
        raise SettingsError("aggregator.kwargs", {"trim": trim}, "a trim greater than 0 and less than 0.5")
    return {key: _middle(array, trimmed(trim, len(shares))) for key, array in rows.items()}


def _middle(rows: Array, cut: int) -> Array:
    """The mean of each coordinate without so many values at each end.

    Sorted: a NaN counts as the largest, and the sum does not depend on the phones' order.
    """
    return np.asarray(np.sort(rows, axis=0)[cut : len(rows) - cut].mean(axis=0, dtype=np.float64))


def trimmed(trim: float, phones: int) -> int:
    """How many phones `trimmed_mean` cuts at each end."""
    return min(math.ceil(round(trim * phones, 9)), (phones - 1) // 2)  # 0.07 * 100 is 7.000000000000001


def norm_clipping(rows: State, shares: Array, start: State, max_norm: float | None = None) -> State:
    """The mean by shares of updates that are made no longer than `max_norm`: w - start times min(1, max_norm / norm).

    The norm is of the phone's whole update of the segment, buffers included. Without `max_norm` it is the median of
    the phones' norms in this round. A hostile phone moves the result by no more than its share of max_norm; its
    direction is not judged. An update that is not finite counts as none.
    Source: Sun et al. 2019, https://arxiv.org/abs/1911.07963, section 4 (there of all segments' weights as one).
    """
    if max_norm is not None and not (_number(max_norm) and max_norm > 0):
        raise SettingsError("aggregator.kwargs", {"max_norm": max_norm}, "a max_norm greater than 0, or none")
    norms = np.sqrt(sum(_squares(array, start[key]) for key, array in rows.items()))
    norms[~np.isfinite(norms)] = np.inf
    limit = np.median(norms) if max_norm is None else max_norm
    kept = np.isfinite(norms).astype(np.float64)
    np.divide(limit, norms, out=kept, where=(norms > limit) & (kept > 0))
    # Not start + sum(update): where nothing is clipped this is the mean itself, to the last bit.
    rest = float((shares * (1 - kept)).sum())
    return {key: _added_up(array, shares * kept) + start[key] * array.dtype.type(rest) for key, array in rows.items()}


def adapter_products(rows: State, shares: Array, start: State) -> State:
    """The mean by shares, but of adapters (model.lora) that of their products B A, which is what they are to a layer.

    Of it the best approximation of the rank that adapters have, whose first parts are those of smaller ranks: exact
    where the average has no larger rank. Phones' adapters may be of different ranks (model.lora.ranks).
    Source: Bai et al. 2024 (FlexLoRA), https://arxiv.org/abs/2402.11505, section 3.
    """
    found = mean(rows, shares, start)
    for a, b in pairs(rows):
        found[a], found[b] = averaged_factors(rows[a], rows[b], shares)
    return found


@dataclass(frozen=True)
class Aggregator:
    """How the weights of a round's phones become one."""

    combine: Callable[..., State]
    """A function (rows, shares, start, **kwargs): see above."""
    by_sums: bool = False
    """Sums that the clients make are enough, so that no phone's weights are kept, and `combine` is not called."""


PRODUCTS = "adapter_products"

AGGREGATORS = {
    "mean": Aggregator(mean, by_sums=True),
    "median": Aggregator(median),
    "trimmed_mean": Aggregator(trimmed_mean),
    "norm_clipping": Aggregator(norm_clipping),
    PRODUCTS: Aggregator(adapter_products),
}


def aggregator_of(settings: config.Aggregator) -> Aggregator:
    """The aggregator that the settings name. Raises SettingsError."""
    return find_record("aggregator.name", settings.name, AGGREGATORS, Aggregator)


def combined(settings: config.Aggregator, cohorts: Sequence[Rows], start: Ends) -> Ends:
    """The aggregate of each segment that cohorts have rows of, of their phones in this order."""
    combine, found = aggregator_of(settings).combine, {}
    for name in dict.fromkeys(name for rows in cohorts for name in rows.states):
        some = [rows for rows in cohorts if name in rows.states]
        shares = np.concatenate([rows.shares for rows in some])
        found[name] = _combined(combine, settings.kwargs, [rows.states[name] for rows in some], shares, start[name])
    return found


def _combined(
    combine: Callable[..., State], kwargs: dict[str, Any], cohorts: Sequence[State], shares: Array, start: State
) -> State:
    rows = {key: np.concatenate([state[key] for state in cohorts]) for key in cohorts[0]}
    values = {key: bits.as_real(array) for key, array in rows.items() if bits.is_inexact(array.dtype)}
    found = combine(values, shares, {key: bits.as_real(start[key]) for key in values}, **kwargs) if values else {}
    return {
        key: bits.of_real(np.asarray(found[key], values[key].dtype), array.dtype)
        if key in values
        else np.asarray(array.max(axis=0))
        for key, array in rows.items()
    }


def check(settings: config.Aggregator, averages: bool, schedule: str) -> None:
    """See that there is what the settings name, and try it. `averages`: whether the schedule does.

    Raises SettingsError.
    """
    aggregator = aggregator_of(settings)
    if not averages and not aggregator.by_sums:
        wrong = f"can't be used with schedule.name {spoken(schedule)}, where nothing is averaged"
        raise SettingsError(
            "aggregator.name",
            settings.name,
            "Remove aggregator.name (the default is mean), or choose another schedule, such as fedavg",
            wrong,
        )
    _check_kwargs(aggregator.combine, settings.kwargs)
    rows, start = {"weights/x": np.eye(3, 2, dtype=np.float32)}, {"weights/x": np.zeros(2, np.float32)}
    try:
        found = aggregator.combine(rows, np.array([0.5, 0.25, 0.25]), start, **settings.kwargs)
        shapes = {key: np.shape(array) for key, array in found.items()}
    except SettingsError:
        raise
    except BROKEN as error:
        wrong = f"{failed(spoken(settings.name), error)} when called with (rows, shares, start) and aggregator.kwargs"
        allowed = FIX
        raise SettingsError("aggregator.name", settings.name, allowed, wrong) from error
    if shapes != {"weights/x": (2,)}:
        do = "Return a dict with the keys and shapes of start"
        raise SettingsError("aggregator.name", settings.name, do, f"{spoken(settings.name)} returned {shown(shapes)}")


def _check_kwargs(combine: Callable[..., State], kwargs: dict[str, Any]) -> None:
    parameters = list(signature_of("aggregator.name", combine).parameters.values())[3:]
    known = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
    unknown = [name for name in kwargs if name not in known]
    if unknown and len(known) == len(parameters):
        raise unknown_kwargs("aggregator.kwargs", combine, unknown, known)


def _added_up(rows: Array, shares: Array) -> Array:
    """The sum of the rows times their shares, phone by phone, as weighted_mean.py does; without those of none."""
    total = np.zeros(rows.shape[1:], rows.dtype)
    for row, share in zip(rows, shares, strict=True):
        if share:  # nothing times NaN is NaN
            total = np.asarray(total + row * rows.dtype.type(share))
    return total


def _squares(rows: Array, start: Array) -> Array:
    """The squared norm of each phone's update (P,): phone by phone, for the sake of memory."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.array([np.square(row.astype(np.float64) - start).sum() for row in rows])


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
