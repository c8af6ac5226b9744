"""The settings, validated: the one place with defaults; and what a name in them stands for."""

from ray_split.config.sections import (
    Aggregator,
    Checkpoint,
    Cluster,
    Config,
    Data,
    Model,
    Optimizer,
    Partition,
    Run,
    Schedule,
    Server,
    Task,
)

__all__ = [
    "Aggregator", "Checkpoint", "Cluster", "Config", "Data", "Model", "Optimizer", "Partition", "Run", "Schedule",
    "Server", "Task",
]  # fmt: skip
