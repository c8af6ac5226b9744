"""The settings, validated: the one place with defaults; and what a name in them stands for."""

from ray_split.config.gateway import Gateway
from ray_split.config.optimizer import LrSchedule, Optimizer
from ray_split.config.sections import (
    Aggregator,
    Algorithm,
    Checkpoint,
    Cluster,
    Config,
    Data,
    Model,
    Partition,
    Run,
    Schedule,
    Server,
    ServerOptimizer,
    Task,
)

__all__ = [
    "Aggregator", "Algorithm", "Checkpoint", "Cluster", "Config", "Data", "Gateway", "LrSchedule", "Model",
    "Optimizer", "Partition", "Run", "Schedule", "Server", "ServerOptimizer", "Task",
]  # fmt: skip
