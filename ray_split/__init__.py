"""Multi-client split learning: phones keep data, labels and the ends of the network, a server keeps the middle.

import ray_split as rs
result = rs.fit(rs.Config(phones={"count": 20}))
model = rs.load_model(result.path)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ray_split.version import __version__ as __version__

if TYPE_CHECKING:
    from ray_split.algorithms.algorithm import Algorithm
    from ray_split.algorithms.server_optimizer import ServerOptimizer
    from ray_split.api import fit, load_model, save_adapter, stream
    from ray_split.callbacks import STOP, Callback
    from ray_split.config import Config
    from ray_split.cutting.cut import Segments
    from ray_split.cutting.cut_error import CutError
    from ray_split.data.batches import Batches
    from ray_split.data.load import DataSet, LazyInputs, Part, Sequences, Table
    from ray_split.data.load import load as load_data
    from ray_split.data.stream import Draw
    from ray_split.errors import OutOfTimeError, RunFailedError, RunStoppedError, SettingsError
    from ray_split.messages.turn import JointStep, Start
    from ray_split.results.result import Result
    from ray_split.schedules.schedule import Schedule
    from ray_split.segments.aggregators import Aggregator

# Loaded when first used: the fed server's process needs no torch, the command line's --help no ray.
_PLACES = {
    "fit": "api", "load_model": "api", "save_adapter": "api", "STOP": "callbacks", "Callback": "callbacks",
    "Config": "config.sections", "CutError": "cutting.cut",
    "Segments": "cutting.cut", "DataSet": "data.load", "LazyInputs": "data.load", "Part": "data.load",
    "Sequences": "data.sequences",
    "Table": "data.sources.table", "load_data": "data.load:load",
    "OutOfTimeError": "errors", "RunFailedError": "errors", "RunStoppedError": "errors", "SettingsError": "errors",
    "Result": "results.result", "Schedule": "schedules.schedule", "Aggregator": "segments.aggregators",
    "Algorithm": "algorithms.algorithm", "ServerOptimizer": "algorithms.server_optimizer",
    "Start": "messages.turn", "JointStep": "messages.turn",
    "Draw": "data.stream", "stream": "api", "Batches": "data.batches",
}  # fmt: skip

__all__ = [
    "STOP",
    "Aggregator",
    "Algorithm",
    "Batches",
    "Callback",
    "Config",
    "CutError",
    "DataSet",
    "Draw",
    "JointStep",
    "LazyInputs",
    "OutOfTimeError",
    "Part",
    "Result",
    "RunFailedError",
    "RunStoppedError",
    "Schedule",
    "Segments",
    "Sequences",
    "ServerOptimizer",
    "SettingsError",
    "Start",
    "Table",
    "fit",
    "load_data",
    "load_model",
    "save_adapter",
    "stream",
]  # fmt: skip


def __dir__() -> list[str]:
    return sorted(__all__)


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'ray_split' has no attribute {name!r}")
    module, _, attribute = _PLACES[name].partition(":")
    return getattr(importlib.import_module(f"ray_split.{module}"), attribute or name)
