"""What is logged: every record says of which run and round it is, and of which phones; as text, or as JSON.

The loggers are Python's own, under `ray_split` and `actors`. With run.log_format text nothing is set up: records are
shown, or not, as the program that calls `fit` has it, and by default warnings go to stderr as they are.
"""

from __future__ import annotations

import json
import logging
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime, timezone
from typing import Any, NamedTuple

PACKAGES = ("ray_split", "actors")


class _At(NamedTuple):
    """Where a run is."""

    run: str | None = None
    round: int | None = None


_NOWHERE = _At()
_at: ContextVar[_At] = ContextVar("at", default=_NOWHERE)


@contextmanager
def run(name: str | None) -> Iterator[None]:
    """Within it, records are of this run; of no round yet."""
    token = _at.set(_At(name))
    try:
        yield
    finally:
        _at.reset(token)


def at(round: int) -> None:
    """From now on records are of this round, counted from 0."""
    _at.set(_at.get()._replace(round=round))


def get(name: str) -> logging.Logger:
    """The logger of a module of ours."""
    logger = logging.getLogger(name)
    logger.addFilter(_with_place)
    return logger


def _with_place(record: logging.LogRecord) -> bool:
    """Say of what a record is, where it doesn't itself (with `extra`)."""
    for name, value in (*_at.get()._asdict().items(), ("phones", None), ("fields", {})):
        if not hasattr(record, name):
            setattr(record, name, value)
    return True


def about(round: int | None = None, phones: Sequence[int] | None = None, **fields: Any) -> dict[str, Any]:
    """`extra` of a record that is of another round than the run is in, of some phones, or says more in JSON."""
    said = {"round": round, "phones": None if phones is None else list(phones), "fields": fields}
    return {name: value for name, value in said.items() if value is not None}


class Json(logging.Formatter):
    """One object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """time (UTC), level, logger, message, run, round, phones; what else the record says."""
        values = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **{name: getattr(record, name, None) for name in ("run", "round", "phones")},
            **finite(getattr(record, "fields", {})),
        }
        if record.exc_info:
            values["exception"] = self.formatException(record.exc_info)
        return json.dumps(values, default=str)


@contextmanager
def written(log_format: str) -> Iterator[None]:
    """Within it, with `json`, our records go to stderr as JSON, and nowhere else."""
    loggers = [logging.getLogger(name) for name in PACKAGES]
    if log_format != "json" or any(isinstance(each.formatter, Json) for each in loggers[0].handlers):
        yield
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Json())
    before = [(each, each.level, each.propagate) for each in loggers]
    for each in loggers:
        each.addHandler(handler)
        each.setLevel(logging.INFO)
        each.propagate = False
    try:
        yield
    finally:
        for each, level, propagate in before:
            each.removeHandler(handler)
            each.setLevel(level)
            each.propagate = propagate


def finite(values: dict[str, Any]) -> dict[str, Any]:
    """What is no number any more as null: JSON has no NaN."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
