"""A reference is trained once for all runs that are compared with it one after the other."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeVar

import ray_split as rs
from tests.rounding import computed_in

Trained = TypeVar("Trained")
Train = Callable[..., Trained]
KEPT = 24  # of the small models of the tests: the float64 ones that tell the rounding, too
UNREAD = {
    "phones": {"cohort", "stacked"},
    "schedule": {"name"},  # what it changes is in the stream
    "run": {"storage_path", "name", "resume", "eval_every", "max_failures"},
    **dict.fromkeys(("cluster", "server", "checkpoint", "aggregator")),
}
"""Settings that no reference reads. They say how a run is carried out, or by what a test stands for the mean."""


def once(patched: Callable[[], tuple[Any, ...]]) -> Callable[[Train[Trained]], Train[Trained]]:
    """Keep what a reference trains, by all that it depends on; nobody may write to it.

    Those are the settings that it reads, the stream, what it is told, the precision, and `patched`: what tests put
    others in place of.
    """
    kept: OrderedDict[tuple[Any, ...], Any] = OrderedDict()

    def decorate(train: Train[Trained]) -> Train[Trained]:
        @functools.wraps(train)
        def trained(settings: rs.Config, **told: Any) -> Trained:
            if settings.data.path is not None:
                return train(settings, **told)  # files may have changed
            key = (train, _read(settings), _drawn(settings), computed_in(), *patched(), *_hashable(told))
            if key not in kept:
                kept[key] = train(settings, **told)
                if len(kept) > KEPT:
                    kept.popitem(last=False)
            kept.move_to_end(key)
            found: Trained = kept[key]
            return found

        return trained

    return decorate


def _read(settings: rs.Config) -> str:
    values = settings.model_dump()
    for section, names in UNREAD.items():
        values[section] = {name: value for name, value in values[section].items() if names and name not in names}
    return repr(values)


def _drawn(settings: rs.Config) -> int:
    return hash(tuple((d.round, d.phone, d.step, d.finishes, d.indices.tobytes()) for d in rs.stream(settings)))


def _hashable(told: dict[str, Any]) -> tuple[Any, ...]:
    return tuple((name, tuple(v.items()) if isinstance(v, dict) else v) for name, v in sorted(told.items()))
